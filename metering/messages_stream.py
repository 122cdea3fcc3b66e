"""A streamed message (Anthropic's `/v1/messages`): what it told of its usage, and how it ended.

    event: message_start         {"message": {…, "usage": {"input_tokens": 538, "output_tokens": 0}}}
    event: content_block_delta   {"delta": {"type": "text_delta" | "thinking_delta" | "input_json_delta", …}}: a token
                                 or more each; `signature_delta` holds none
    event: message_delta         {"delta": {…}, "usage": {…}}: all of it, also what of the prompt was cached
    event: message_stop
    event: error                 in the place of the rest

The start tells the whole prompt, whatever was cached (vLLM knows that at the end only), so a client that leaves has been
told the prompt and the deltas passed on to it; where it left between the last `content_block_stop` and `message_delta`,
it had the whole answer without its usage (`unread`). Its bytes are never changed.
"""

from __future__ import annotations

from metering.json_picks import JsonPicks, Places
from metering.named_events import NamedStream
from metering.usage import NOTHING, Usage, deltas_usage, messages_usage

_PLACES: dict[bytes, Places] = {
    b"message_start": {b"message": {b"usage": None}},
    b"message_delta": {b"usage": None},
}


class MessagesStream(NamedStream):
    """One stream."""

    __slots__ = ("_deltas", "_final", "_start", "_thinking", "_whole")

    #: A request for a message always names its model.
    model: str | None = None
    pending = False

    def __init__(self) -> None:
        super().__init__()
        self._start: bytes | None = None
        self._final: bytes | None = None
        self._deltas = 0
        self._thinking = 0
        self._whole = False

    @property
    def unread(self) -> bool:
        """All content begun was passed on to its end, and not what the answer used."""
        return self._whole and self.verdict is None and messages_usage(self._final) is None

    def usage(self) -> Usage | None:
        final = messages_usage(self._final)
        if final is not None or self.verdict == "finished":
            return final
        start = messages_usage(self._start) or NOTHING
        return deltas_usage(start.prompt_tokens, start.cached_tokens, self._deltas, self._thinking)

    def _begins(self, name: bytes) -> JsonPicks | None:
        places = _PLACES.get(name)
        return None if places is None else JsonPicks(places)

    def _ends(self, name: bytes, picks: JsonPicks | None, head: bytes) -> None:
        if self.verdict is not None:
            return
        if name == b"error":
            self.verdict = "failed"
        elif name == b"message_stop":
            self.verdict = "finished"
        elif name in (b"content_block_start", b"content_block_stop"):
            self._whole = name == b"content_block_stop"
        elif name == b"content_block_delta":
            if b'"signature_delta"' not in head:  # within a text a quote is escaped
                self._deltas += 1
                self._thinking += b'"thinking_delta"' in head
        elif name == b"message_start" and picks is not None:
            self._start = picks.values.get(b"message.usage")
        elif picks is not None:
            self._final = picks.values.get(b"usage")
