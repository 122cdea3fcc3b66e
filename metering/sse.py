"""Server-sent events of a completions stream, read in passing and, where the sidecar asked for more than the client
did, edited back to what the engine would have sent to that client. Nothing is decoded to be counted.

With `include_usage` and `continuous_usage_stats` on, vLLM (0.32) differs from a plain stream in three places:

    plain   data: {…,"choices":[{…,"finish_reason":null}]}
    asked   data: {…,"choices":[{…,"finish_reason":null}],"usage":{"prompt_tokens":16,…}}           on every chunk
    plain   data: {…,"choices":[{…,"finish_reason":"length",…}],"system_fingerprint":"vllm-0.32…"}
    asked   data: {…,"choices":[{…,"finish_reason":"length",…}],"usage":{…}}                         a choice's last
    asked   data: {…,"choices":[],"usage":{…},"system_fingerprint":"vllm-0.32…"}                     one more, the last

So the usage is cut out of each chunk, the last chunk is left out, and the fingerprint goes back to where the usage was
cut out of a choice's last chunk. For that such a chunk waits for the next one, which comes at once where it was the
only choice. Where another choice goes on, the fingerprint that the engine showed in an earlier stream is used (it is
one constant of the engine's). A client that asked for `include_usage` alone gets the last chunk, and the fingerprint
stays there; one that asked for both gets every byte as it came. Streams of transcriptions are alike, without choices'
numbers and without fingerprints (`fingerprinted` false), so nothing waits there.

Finding keys by their bytes is safe: inside a JSON string a quote is escaped, so `"usage":` with bare quotes can only
be a key.
"""

from __future__ import annotations

import re

from metering.usage import Usage, openai_usage, sum_of_choices

_DONE = b"data: [DONE]"
_ERROR = b'data: {"error"'
_ONLY_CHOICE = b'"choices":[{"index":0,'
# An object whose parts are objects of objects of figures: `prompt_tokens_details` has `multimodal_tokens` within.
_FLAT = rb"\{[^{}]*\}"
_NESTED = rb"\{[^{}]*(?:" + _FLAT + rb"[^{}]*)*\}"
USAGE_VALUE = rb"null|\{[^{}]*(?:" + _NESTED + rb"[^{}]*)*\}"
_USAGE = re.compile(rb'\s*,?\s*"usage"\s*:\s*(' + USAGE_VALUE + rb")")
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_INDEX = re.compile(rb'"choices"\s*:\s*\[\s*\{\s*"index"\s*:\s*(\d{1,6})')
_FINGERPRINT = re.compile(rb',\s*"system_fingerprint"\s*:\s*"[^"\\]*"')

#: An event longer than this is passed on as it is: memory is bounded for whatever an engine sends.
MAX_EVENT_BYTES = 16 * 1024 * 1024
#: vLLM lets a request have 16,384 choices; a usage object is a few hundred bytes. What is beyond either is not kept.
_MAX_CHOICES = 65_536
_MAX_USAGE_BYTES = 4096


class StreamReader:
    """One stream: `feed` takes bytes as they come and gives the bytes that the client is to see.

    `final` is the usage object of the last chunk, as bytes; `by_choice` the running one of each choice, of what has
    been passed on. `error`: an error came in the place of a chunk.
    """

    __slots__ = (
        "_carry",
        "_choices_at",
        "_choices_per_prompt",
        "_fingerprinted",
        "_hide_each",
        "_hide_final",
        "_waiting",
        "by_choice",
        "error",
        "final",
        "fingerprint",
        "verdict",
    )

    #: The request or its head says which model it is.
    model: str | None = None
    pending = False

    def __init__(
        self,
        *,
        hide_final: bool,
        hide_each: bool,
        fingerprint: bytes | None,
        choices_per_prompt: int = 1,
        fingerprinted: bool = True,
    ) -> None:
        self._hide_final = hide_final
        self._hide_each = hide_each
        self._choices_per_prompt = choices_per_prompt
        self._fingerprinted = fingerprinted
        self._carry = bytearray()
        self._choices_at = 0
        #: A choice's last chunk: what stands before and after its usage, its choice, its usage.
        self._waiting: tuple[bytes, bytes, int, bytes] | None = None
        self.fingerprint = fingerprint
        self.by_choice: dict[int, bytes] = {}
        self.final: bytes | None = None
        #: The outcome, once the stream has said that it is over.
        self.verdict: str | None = None
        self.error = False

    def feed(self, piece: bytes) -> bytes:
        """The bytes for the client, events whole; while nothing is hidden, just `piece`."""
        # One event, as engines send them: the first line end (one letter is found fastest) is the one before the last.
        if not self._carry and piece.endswith(b"\n\n") and piece.find(b"\n") == len(piece) - 2:
            seen = self._event(piece)
            return seen if self._hide_each else piece
        data = piece
        searched = 0
        if self._carry:
            searched = max(0, len(self._carry) - 3)
            self._carry += piece
            data = bytes(self._carry)
            self._carry.clear()
        end = _event_end(data, searched)
        out: list[bytes] = []
        start = 0
        while end > 0:
            out.append(self._event(data[start:end]))
            start = end
            end = _event_end(data, start)
        rest = data[start:]
        if len(rest) > MAX_EVENT_BYTES:
            out.append(rest)
            rest = b""
        self._carry += rest
        return b"".join(out) if self._hide_each else piece

    @property
    def fault(self) -> str | None:
        """What was wrong with the stream, if it ends here."""
        return "engine_error" if self.error else None

    def usage(self) -> Usage | None:
        """What of it the client was told; None if nothing."""
        whole = openai_usage(self.final)
        if whole is None and self.by_choice:
            return sum_of_choices(self.by_choice, self._choices_per_prompt)
        return whole

    def flush(self, *, torn: bool = False) -> bytes:
        """The stream is at its end: what was still kept back. Of a `torn` one, half an event is no event."""
        rest = bytes(self._carry) if self._hide_each and not torn else b""
        self._carry.clear()
        return self._release(self.fingerprint) + rest

    def _event(self, event: bytes) -> bytes:
        """One whole event, its blank line included, as the client is to see it, with what waited for it."""
        if self.verdict is not None:  # what comes after the end, an engine does not say
            return event
        if self._waiting is None and (seen := self._running(event)) is not None:
            return seen
        at = event.rfind(b'"usage"')
        usage = _USAGE.search(event, max(0, at - 8)) if at >= 0 else None
        if usage is None:
            if event.startswith(_DONE):
                self.verdict = "failed" if self.error else "finished"
            elif event.startswith(_ERROR):
                self.error = True
            elif self._hide_final and self._fingerprinted and _FINISHED.search(event):
                return self._keep_waiting(event, event.rfind(b"}"), event.rfind(b"}"), 0, b"null")
            return self._release(self.fingerprint) + event
        if _NO_CHOICES.search(event):
            return self._last_chunk(event, usage)
        return self._chunk(event, usage)

    def _running(self, event: bytes) -> bytes | None:
        """The commonest event, found without a regular expression: one token of the only choice, in vLLM's own
        spelling, with a flat usage at its end. None for any other, though it may only be spelt otherwise."""
        at = event.rfind(b'}],"usage":{') + 2
        start = at + 9
        if (
            at < 2
            or event.find(b"}", start) != len(event) - 4
            or event.find(b"{", start + 1) >= 0
            or event.find(b'"usage"', start) >= 0
            or not event.endswith(b"}}\n\n")
            or event.rfind(b'"finish_reason":null', 0, at) < 0
            or b'"finish_reason":"' in event
        ):
            return None
        if not event.startswith(_ONLY_CHOICE, self._choices_at):  # it stands where it stood
            self._choices_at = event.find(_ONLY_CHOICE)
            if self._choices_at < 0:
                return None
        self.by_choice[0] = event[start:-3]
        return event[:at] + b"}\n\n" if self._hide_each else event

    def _chunk(self, event: bytes, usage: re.Match[bytes]) -> bytes:
        found = _INDEX.search(event)
        choice = int(found[1]) if found else 0
        start, end = usage.span()
        if self._hide_final and self._fingerprinted and _FINISHED.search(event):
            return self._keep_waiting(event, start, end, choice, usage[1])
        before = self._release(self.fingerprint)
        self._passed_on(choice, usage[1])
        return before + (event[:start] + event[end:] if self._hide_each else event)

    def _keep_waiting(self, event: bytes, start: int, end: int, choice: int, usage: bytes) -> bytes:
        """Keep a choice's last chunk, less `start` to `end`, until its fingerprint is known."""
        before = self._release(self.fingerprint)
        self._waiting = (event[:start], event[end:], choice, usage)
        return before

    def _last_chunk(self, event: bytes, usage: re.Match[bytes]) -> bytes:
        self.final = usage[1]
        if self._fingerprinted:
            fingerprint = _FINGERPRINT.search(event)
            self.fingerprint = fingerprint[0] if fingerprint else None
        before = self._release(self.fingerprint)
        return before if self._hide_final else before + event

    def _release(self, fingerprint: bytes | None) -> bytes:
        """The chunk that waited, with its fingerprint, if one waits."""
        if self._waiting is None:
            return b""
        head, tail, choice, usage = self._waiting
        self._waiting = None
        self._passed_on(choice, usage)
        return head + (fingerprint or b"") + tail

    def _passed_on(self, choice: int, usage: bytes) -> None:
        if usage == b"null" or len(usage) > _MAX_USAGE_BYTES:
            return
        if len(self.by_choice) < _MAX_CHOICES or choice in self.by_choice:
            self.by_choice[choice] = usage


def _event_end(data: bytes, start: int) -> int:
    """Where the event that begins at or before `start` ends, its blank line included; 0 if it has not ended."""
    end = data.find(b"\n\n", start)
    if end >= 0:
        return end + 2
    end = data.find(b"\r\n\r\n", start)
    return end + 4 if end >= 0 else 0
