"""One request's life between client and engine, without a socket and without a clock.

The sidecar tells an exchange what happened (the engine's answer came, piece by piece; the engine was lost; the client
left) and asks for the next `Step`: what to write down, then what to send. The order within a step is the promise:

- the intent is written before the engine hears of the request,
- the outcome is written before the last byte of the answer goes to the client,
- and each metered request that was put to the engine has exactly one outcome, however it ends:

    finished      the engine answered 2xx, whole (a stream: up to `data: [DONE]`, with no error in it)
    aborted       the client left first: the tokens of what had been passed on to it
    failed        the engine answered an error (no tokens), could not be reached (no tokens), fell silent or was cut
                  off in mid-answer (the tokens of what had been passed on)
    interrupted   the sidecar itself had to stop (the tokens of what had been passed on)

Tokens of a stream that did not end come from its running usage, which says how large the prompt was but not what of it
was cached: it counts as uncached. Of an answer in one piece nothing is known before its end: no tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from metering.event import Event
from metering.http_answer import AnswerHead, head_bytes
from metering.http_refusal import Refused, answer_bytes
from metering.http_request import Request
from metering.request_body import Ask, read_ask
from metering.sse import BodyReader, StreamReader
from metering.usage import NOTHING, Usage, openai_usage, sum_of_choices
from metering.write_ahead import Intent

#: What is written for the model of a request that names none and gets none in the answer.
UNKNOWN_MODEL = "unknown"
_MODEL = re.compile(rb'"model"\s*:\s*"([A-Za-z0-9][\w.:/@+-]{0,199})"')

#: Why the engine was lost, and what a client that has seen nothing yet is told.
LOST = {
    "unreachable": Refused(
        503, "engine_unreachable", "The engine does not answer.", headers=((b"retry-after", b"1"),)
    ),
    "closed": Refused(502, "engine_closed", "The engine closed the connection before it answered."),
    "malformed": Refused(502, "engine_malformed", "The engine's answer was not valid HTTP/1.1."),
    "silent": Refused(504, "engine_silent", "The engine did not answer in time."),
}
STOPPING = Refused(503, "stopping", "This server is stopping.", close=True, headers=((b"retry-after", b"1"),))


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now, in this order: write `event` down, send `to_client`; then, if `over`, let go of both sides.

    `keep_client`: the client's connection may carry another request. `unread_usage`: a finished answer whose usage
    could not be read; its event has no tokens.
    """

    event: Event | None
    to_client: bytes
    over: bool
    keep_client: bool
    unread_usage: bool = False


class Exchange:
    """One request that goes to the engine. Feed it events, then call `step`; after `over` it is done."""

    __slots__ = (
        "_ask",
        "_body",
        "_chunked",
        "_cut",
        "_fingerprint",
        "_head",
        "_keep_client",
        "_model",
        "_out",
        "_outcome",
        "_stream",
        "_written",
        "body",
        "intent",
        "over",
        "request",
    )

    def __init__(
        self, request: Request, ask: Ask | None, intent: Intent | None, fingerprint: bytes | None = None
    ) -> None:
        self.request = request
        self.intent = intent
        self.body = request.body if ask is None else ask.body
        self.over = False
        self._ask = ask
        self._model = None if ask is None else ask.model
        self._head: AnswerHead | None = None
        self._stream: StreamReader | None = None
        self._body: BodyReader | None = None
        self._chunked = False
        self._cut = False
        self._fingerprint = fingerprint
        self._keep_client = request.keep_alive
        self._out: list[bytes] = []
        self._outcome: str | None = None
        self._written = intent is None

    @property
    def route(self) -> tuple[str | None, int | None]:
        """By what its engine is picked: the model that it names, and the ordinal of the engine that keeps what it
        asks for."""
        return self._model, None

    def aim(self, ordinal: int, fingerprint: bytes | None) -> None:  # noqa: ARG002 - nothing names its engine yet
        """It goes to this engine, whose `fingerprint` an earlier stream has shown."""
        self._fingerprint = fingerprint

    def to_engine(self, opening: bytes) -> bytes:
        """The head of the request as the engine gets it; `body` follows. `opening` are the header lines that each
        request to that engine begins with."""
        request = self.request
        lines = [request.method + b" " + request.target + b" HTTP/1.1", opening, *request.lines]
        if self.intent is not None:
            lines.append(b"X-Request-Id: " + self.intent.request.hex().encode())
        lines.append(b"Accept-Encoding: identity")
        if self.body or request.method == b"POST":
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join([*lines, b"", b""])

    # -- what the engine does ---------------------------------------------------------------------------------------

    def answer_head(self, head: AnswerHead) -> None:
        """The head of the answer is whole."""
        self._head = head
        ask = self._ask
        edited = False
        if ask is not None and 200 <= head.status < 300:
            if head.event_stream:
                self._stream = StreamReader(
                    hide_final=ask.hide_final, hide_each=ask.hide_each, fingerprint=self._fingerprint
                )
                edited = ask.hide_each
            else:
                self._body = BodyReader()
        http10 = self.request.http10
        sized = head.length is not None and not edited
        self._chunked = not http10 and not sized
        if http10:
            self._keep_client = False
        self._out.append(head_bytes(head, sized=sized, chunked=self._chunked, close=not self._keep_client))

    def answer_piece(self, piece: bytes) -> None:
        """A piece of the answer's body has come."""
        if self._ask is not None and self._model is None:
            self._look_for_model(piece)
        if self._stream is not None:
            piece = self._stream.feed(piece)
            if self._stream.done and self._outcome is None:
                self._decide("failed" if self._stream.error else "finished")
        elif self._body is not None:
            self._body.feed(piece)
        self._send(piece)

    def answer_end(self) -> None:
        """The answer is whole."""
        head = self._head
        assert head is not None
        error = not 200 <= head.status < 300
        if self._stream is not None:
            self._send(self._stream.flush())
            error = self._stream.error
        self._decide("failed" if error else "finished")
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self.over = True

    def engine_lost(self, cause: str) -> None:
        """No more of the answer will come. `cause` is one of `LOST`."""
        self._end("failed", LOST[cause])

    # -- what the client and the sidecar do -------------------------------------------------------------------------

    def client_gone(self) -> None:
        """The client closed its side or cannot be reached any more."""
        self._decide("aborted")
        self._keep_client = False
        self.over = True

    def close_after(self) -> None:
        """The client's connection shall carry no further request."""
        self._keep_client = False

    def stop(self) -> None:
        """The sidecar cannot wait for the answer any longer."""
        self._keep_client = False
        self._end("interrupted", STOPPING)

    # -- what to do about it ----------------------------------------------------------------------------------------

    def step(self, now_us: int) -> Step:
        """What is due since the last step. `now_us` is the time of the outcome, if there is one."""
        event = None
        unread = False
        if self._outcome is not None and not self._written:
            self._written = True
            event, unread = self._event(self._outcome, now_us)
        out = self._out
        to_client = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return Step(event, to_client, self.over, self._keep_client and not self._cut, unread)

    @property
    def fingerprint(self) -> bytes | None:
        """The engine's fingerprint as the last stream showed it, this one or an earlier one."""
        return self._fingerprint if self._stream is None else self._stream.fingerprint

    def _end(self, outcome: str, refused: Refused) -> None:
        """An end without the answer's end: tell a client that has seen nothing, cut off one that has."""
        if self.over:
            return
        self._decide(outcome)
        if self._head is None:
            self._out.append(answer_bytes(refused, keep_alive=self._keep_client))
        else:
            if self._stream is not None:
                self._send(self._stream.flush(torn=True))
            self._cut = True
        self.over = True

    def _decide(self, outcome: str) -> None:
        if self._outcome is None:
            self._outcome = outcome

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
        intent = self.intent
        assert intent is not None
        usage = self._usage()
        unread = usage is None and outcome == "finished"
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
            model=self._model or UNKNOWN_MODEL,
            outcome=outcome,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            generated_tokens=None,
            audio_seconds=usage.audio_seconds,
            request_digest=None,
        )
        return event, unread

    def _usage(self) -> Usage | None:
        """What the client was told, None where that cannot be known."""
        if self._body is not None:
            return openai_usage(self._body.usage)
        if self._stream is None or self._ask is None:
            return None
        whole = openai_usage(self._stream.final)
        if whole is not None:
            return whole
        if self._stream.by_choice:
            per_prompt = self._ask.choices_per_prompt
            return sum_of_choices(self._stream.by_choice, per_prompt)
        return None


def open_exchange(
    request: Request, request_id: bytes, now_us: int, fingerprint: bytes | None = None
) -> Exchange | Refused:
    """The exchange for a request that may go to the engine, or why it may not (its body cannot be read).

    `request_id` are the 16 bytes minted for it; `fingerprint` is the engine's, as an earlier stream showed it.
    """
    endpoint, key = request.endpoint, request.key
    if not endpoint.metered:
        return Exchange(request, None, None, fingerprint)
    assert key is not None
    ask = read_ask(request.body)
    if isinstance(ask, Refused):
        return ask
    model = ask.model or UNKNOWN_MODEL
    intent = Intent(request_id, now_us, key.customer, key.project, key.id, endpoint.name, model)
    return Exchange(request, ask, intent, fingerprint)
