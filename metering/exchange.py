"""One request's life between client and engine, without a socket and without a clock.

The sidecar tells an exchange what happened (the engine's answer came, piece by piece; the engine was lost; the client
left) and asks for the next `Step`: what to write down, then what to send. The order within a step is the promise:

- the intent is written before the engine hears of the request,
- the outcome is written before the last byte of the answer goes to the client,
- and each metered request that was put to the engine has exactly one outcome, however it ends:

    finished      the engine answered 2xx, whole (a stream: up to its last event, with no error in it)
    aborted       the client left first: the tokens of what had been passed on to it
    failed        the engine answered an error (no tokens), could not be reached (no tokens), fell silent or was cut
                  off in mid-answer (the tokens of what had been passed on)
    interrupted   the sidecar itself had to stop (the tokens of what had been passed on)

Tokens of a stream that did not end come from its running usage, which says how large the prompt was but not what of it
was cached: it counts as uncached. Streams of responses and messages have none: there each delta passed on counts as one
token, and `usage_unread` says that the client left after the last of them. Of an answer in one piece nothing is known
before its end: no tokens. Where figures are or may be incomplete, the event's `reason` says why.

A response in the background (`background: true`) is answered before its work is done, and goes on without a client. Its
outcome is not this exchange's to know: the step says `watch`, and `metering.background` asks the engine for it.
"""

from __future__ import annotations

import re

from metering.dialects import Dialect, Reader
from metering.error_answers import may_count, of_length, without_added
from metering.event import Event
from metering.exchange_step import LOST, STOPPING, UNKNOWN_MODEL, Step, Watch
from metering.http_answer import AnswerHead, head_bytes
from metering.http_refusal import Refused, answer_bytes
from metering.http_request import Request
from metering.messages_stream import MessagesStream
from metering.request_body import Ask
from metering.response_id import UNMETERED, make_response_id
from metering.responses_stream import PassedOn, ResponsesStream
from metering.sse import StreamReader
from metering.usage import NOTHING
from metering.write_ahead import Intent

_MODEL = re.compile(rb'"model"\s*:\s*"([A-Za-z0-9./][\w.:/@+-]{0,199})"')


#: The others may have several in a request. vLLM begins with them side by side: one is refused, others have run.
_ONE_PROMPT = frozenset({"chat", "responses", "messages"})


class Exchange:
    """One request that goes to the engine. Feed it events, then call `step`; after `over` it is done."""

    __slots__ = (
        "_ask",
        "_chunked",
        "_cut",
        "_dialect",
        "_fingerprint",
        "_head",
        "_held",
        "_keep_client",
        "_kept_by",
        "_model",
        "_ordinal",
        "_out",
        "_outcome",
        "_reader",
        "_reason",
        "_response",
        "_secret",
        "_unmetered",
        "_written",
        "body",
        "intent",
        "over",
        "passed",
        "request",
    )

    def __init__(
        self,
        request: Request,
        ask: Ask | None,
        intent: Intent | None,
        dialect: Dialect | None = None,
        *,
        secret: bytes = b"",
        model: str | None = None,
        kept_by: int | None = None,
    ) -> None:
        self.request = request
        self.intent = intent
        self.body = request.body if ask is None else ask.body
        self.over = False
        #: Where the deltas are counted if this streams a response again that goes on in the background.
        self.passed: PassedOn | None = None
        self._ask = ask
        self._dialect = dialect
        self._secret = secret
        self._model = model if ask is None else ask.model
        self._kept_by = kept_by
        self._ordinal: int | None = None  # where it went; None: nowhere yet
        self._response = b""
        self._head: AnswerHead | None = None
        self._held: list[bytes] | None = None  # an error that is not passed on before it is whole
        self._reader: Reader | None = None
        self._chunked = False
        self._cut = False
        self._fingerprint: bytes | None = None
        self._keep_client = request.keep_alive
        self._out: list[bytes] = []
        self._outcome: str | None = None
        self._reason: str | None = None
        self._unmetered = False
        self._written = intent is None

    @property
    def route(self) -> tuple[str | None, int | None]:
        """By what its engine is picked: the model that it names, and the ordinal of the engine that keeps what it
        asks for."""
        return self._model, self._kept_by

    def serve_unmetered(self) -> None:
        """It is served although it cannot be written down: no event, and an id that the engine's lines show."""
        self._unmetered = True
        self._written = True

    def aim(self, ordinal: int, fingerprint: bytes | None) -> None:
        """It goes to this engine, whose `fingerprint` an earlier stream has shown."""
        self._ordinal = ordinal
        self._fingerprint = fingerprint
        ask, intent = self._ask, self.intent
        if ask is not None and ask.id_at is not None and intent is not None:
            self._response = make_response_id(
                self._secret, intent.request, intent.customer, ordinal, unmetered=self._unmetered
            )
            self.body = b"".join((ask.body[: ask.id_at], self._response, ask.body[ask.id_at :]))

    def to_engine(self, opening: bytes) -> bytes:
        """The head of the request as the engine gets it; `body` follows. `opening` are the header lines that each
        request to that engine begins with."""
        request = self.request
        lines = [request.method + b" " + request.target + b" HTTP/1.1", opening, *request.lines]
        if self.intent is not None:
            mark = UNMETERED if self._unmetered else b""
            lines.append(b"X-Request-Id: " + mark + self.intent.request.hex().encode())
        lines.append(b"Accept-Encoding: identity")
        if self.body or request.method == b"POST":
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join([*lines, b"", b""])

    # -- what the engine does ---------------------------------------------------------------------------------------

    def answer_head(self, head: AnswerHead) -> None:
        """The head of the answer is whole."""
        self._head = head
        ask, dialect = self._ask, self._dialect
        edited = False
        if ask is not None and dialect is not None and 200 <= head.status < 300:
            if head.event_stream:
                self._reader = dialect.stream(ask, self._fingerprint)
                edited = ask.hide_each
            else:
                self._reader = dialect.answer(head)
        elif self.passed is not None and head.event_stream:
            self._reader = ResponsesStream(self.passed)
        elif ask is not None and ask.added and may_count(head):
            self._held = []
            return
        self._begin_answer(head, edited=edited)

    def _begin_answer(self, head: AnswerHead, *, edited: bool) -> None:
        """Send the head on; `edited`: the body's length will not be the engine's."""
        http10 = self.request.http10
        sized = head.length is not None and not edited
        self._chunked = not http10 and not sized
        if http10:
            self._keep_client = False
        self._out.append(head_bytes(head, sized=sized, chunked=self._chunked, close=not self._keep_client))

    def answer_piece(self, piece: bytes) -> None:
        """A piece of the answer's body has come."""
        reader = self._reader
        if self._held is not None:
            self._held.append(piece)
            return
        if reader is not None:
            if self._model is None and self._dialect is not None and self._dialect.named_first:
                self._look_for_model(piece)
            piece = reader.feed(piece)
            if self._outcome is None and (verdict := reader.verdict) is not None:
                self._decide(verdict, reader.fault)
        self._send(piece)

    def answer_end(self) -> None:
        """The answer is whole."""
        head, reader = self._head, self._reader
        assert head is not None
        if self._held is not None and self._ask is not None:
            error, self._held = without_added(b"".join(self._held), self._ask.added), None
            self._begin_answer(of_length(head, len(error)), edited=False)
            self._send(error)
        if reader is None:
            self._decide("failed", "engine_error")
        else:
            self._send(reader.flush())
            fault = reader.fault
            self._decide(reader.verdict or ("finished" if fault is None else "failed"), fault)
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self.over = True

    def engine_lost(self, cause: str) -> None:
        """No more of the answer will come. `cause` is one of `LOST`."""
        self._end("failed", f"engine_{cause}", LOST[cause])

    # -- what the client and the sidecar do -------------------------------------------------------------------------

    def client_gone(self, *, stalled: bool = False) -> None:
        """The client closed its side or cannot be reached any more; or it has taken nothing for too long."""
        self._decide("aborted", "client_stalled" if stalled else None)
        self._keep_client = False
        self.over = True

    def close_after(self) -> None:
        """The client's connection shall carry no further request."""
        self._keep_client = False

    def stop(self) -> None:
        """The sidecar cannot wait for the answer any longer."""
        self._keep_client = False
        self._end("interrupted", "sidecar_stopped", STOPPING)

    # -- what to do about it ----------------------------------------------------------------------------------------

    @property
    def runs_on(self) -> bool:
        """Nothing is decided yet: of a step only `to_client` can be due, and `passing` says it."""
        return self._outcome is None

    def passing(self) -> bytes:
        """The bytes for the client since the last step."""
        out = self._out
        to_client = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return to_client

    def step(self, now_us: int) -> Step:
        """What is due since the last step. `now_us` is the time of the outcome, if there is one."""
        to_client = self.passing()
        keep = self._keep_client and not self._cut
        if self._outcome is None or self._written:
            return Step(None, to_client, self.over, keep)
        self._written = True
        event, unread = self._event(self._outcome, now_us)
        if self._goes_on:
            return Step(None, to_client, self.over, keep, watch=self._watch(event))
        return Step(event, to_client, self.over, keep, unread, self._lines)

    @property
    def fingerprint(self) -> bytes | None:
        """The engine's fingerprint as the last stream showed it, this one or an earlier one."""
        return self._reader.fingerprint if isinstance(self._reader, StreamReader) else self._fingerprint

    @property
    def _lines(self) -> int | None:
        lines = None if self._ask is None else self._ask.lines
        if self._ordinal is None:
            return 0
        if self._head is None or not 400 <= self._head.status < 500:
            return lines
        several = lines != 1 and self._model is not None and self.request.endpoint.name not in _ONE_PROMPT
        return None if several and self._head.status == 400 else 0

    @property
    def background(self) -> bool:
        """It may go on without its client, and without this sidecar."""
        return self._ask is not None and self._ask.background

    def _watch(self, absent: Event) -> Watch:
        ask, reader = self._ask, self._reader
        place = (self._ordinal or 0, self._response.decode("ascii"))
        events = reader.events if isinstance(reader, ResponsesStream) else 0
        return Watch((place,), absent, self._lines, ask is not None and ask.stream, events)

    @property
    def _goes_on(self) -> bool:
        """The engine works on it in the background, whatever became of this answer; or may do so."""
        ask, head, reader = self._ask, self._head, self._reader
        if ask is None or not ask.background or not self._response:
            return False
        return head is None if reader is None else reader.pending

    def _end(self, outcome: str, reason: str, refused: Refused) -> None:
        """An end without the answer's end: tell a client that has seen nothing, cut off one that has."""
        if self.over:
            return
        self._decide(outcome, reason)
        if self._head is None or self._held is not None:
            self._out.append(
                answer_bytes(refused, keep_alive=self._keep_client, anthropic=self.request.endpoint.anthropic)
            )
        else:
            if self._reader is not None:
                self._send(self._reader.flush(torn=True))
            self._cut = True
        self.over = True

    def _decide(self, outcome: str, reason: str | None) -> None:
        if self._outcome is None:
            self._outcome = outcome
            self._reason = reason

    def _send(self, piece: bytes) -> None:
        if not piece:
            return
        if self._chunked:
            self._out.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        else:
            self._out.append(piece)

    def _look_for_model(self, piece: bytes) -> None:
        """vLLM serves its default model to a request that names none, and says which."""
        found = _MODEL.search(piece)
        self._model = found[1].decode("ascii") if found else UNKNOWN_MODEL

    def _event(self, outcome: str, now_us: int) -> tuple[Event, bool]:
        intent, reader = self.intent, self._reader
        assert intent is not None
        usage = None if reader is None else reader.usage()
        model = self._model or (None if reader is None else reader.model) or UNKNOWN_MODEL
        unread = usage is None and outcome == "finished"
        left_whole = False
        if outcome == "aborted" and isinstance(reader, ResponsesStream | MessagesStream):
            left_whole = reader.unread
        usage = usage or NOTHING
        event = Event(
            kind="usage",
            time_us=now_us,
            request=intent.request,
            names=None,
            customer=intent.customer,
            project=intent.project,
            key=intent.key,
            endpoint=intent.endpoint,
            model=model,
            outcome=outcome,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            generated_tokens=None,
            audio_seconds=usage.audio_seconds,
            request_digest=None,
            reason="usage_unread" if unread or left_whole else self._reason,
        )
        return event, unread
