"""A few values out of a JSON text that comes in pieces, each from its exact place, without keeping or decoding the rest.

An engine's answer may echo what the client wrote: the schema of a tool, the input of a tool call. So "the last `usage` in
the text" is not good enough where a client could have put one there too. `JsonPicks` follows the nesting:

    picks = JsonPicks({b"response": {b"usage": None, b"status": None}})
    picks.feed(b'{"response":{"tools":[{"usage":{}}],"usage":{"input_tokens":16},"sta')
    picks.feed(b'tus":"completed"}}')
    picks.values == {b"response.usage": b'{"input_tokens":16}', b"response.status": b'"completed"'}

A value is the bytes that stand there. What is longer than `MAX_VALUE_BYTES` is not kept. A name that occurs twice in one
object counts the first time. Text that is no JSON yields nothing, or what was found before it broke; it never raises.
Strings and whatever lies beside the places are skipped by regular expressions, so a long text costs little.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: A usage object with a figure for each of a thousand turns is shorter.
MAX_VALUE_BYTES = 64 * 1024
_MAX_NAME_BYTES = 64
# Beside the places only nesting counts; in an object that holds one, names and ends of values as well.
_BESIDE = re.compile(rb'["{}\[\]]')
_WITHIN = re.compile(rb'["{}\[\],:]')
_STRING_REST = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)

Places = Mapping[bytes, "Places | None"]


class JsonPicks:
    """One text. `values` by the names of the place, joined by dots. `whole`: everything wanted has been found."""

    __slots__ = (
        "_at_name",
        "_capture",
        "_capturing",
        "_depth",
        "_escaped",
        "_in_string",
        "_levels",
        "_name",
        "_next",
        "_place",
        "_wanted",
        "values",
        "whole",
    )

    def __init__(self, places: Places) -> None:
        self.values: dict[bytes, bytes] = {}
        self.whole = False
        self._wanted = _leaves(places)
        #: The objects entered on the way to a place: how deep they are, what is wanted in them, their place.
        self._levels: list[tuple[int, Places, bytes]] = []
        self._next: tuple[Places, bytes] | None = (places, b"")
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._at_name = False
        self._name: bytearray | None = None
        self._place = b""
        self._capture = bytearray()
        self._capturing = False

    def feed(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        """Read on: the bytes of `data` from `start` to `end`."""
        at = start
        end = len(data) if end is None else end
        kept = at  # from here on a value that is being captured is not yet copied
        while at < end and not self.whole:
            if self._in_string:
                at = self._string(data, at, end)
                continue
            level = self._levels[-1] if self._levels else None
            within = level is not None and level[0] == self._depth
            found = (_WITHIN if within else _BESIDE).search(data, at, end)
            if found is None:
                break
            at = found.end()
            token = data[at - 1]
            if token == 0x22:  # "
                self._in_string = True
                self._name = bytearray() if within and self._at_name else None
            elif token == 0x3A:  # :
                if self._at_name and level is not None:
                    self._at_name = False
                    self._value_begins(level)
                    kept = at
            elif token == 0x2C:  # ,
                self._value_ends(data, kept, at - 1)
                self._at_name = True
            elif token in b"{[":
                self._enter(token == 0x7B)
            else:
                if within:
                    self._value_ends(data, kept, at - 1)
                self._leave()
        if self._capturing and not self.whole:
            self._keep(data, kept, end)

    def _string(self, data: bytes, at: int, end: int) -> int:
        """Past what `data` holds of a string, its closing quote included if that is there."""
        if self._escaped:
            self._escaped = False
            at += 1
        rest = _STRING_REST.match(data, min(at, end), end)
        assert rest is not None
        stop = rest.end()
        name = self._name
        if name is not None and len(name) <= _MAX_NAME_BYTES:
            name += data[at : min(stop, at + _MAX_NAME_BYTES + 1)]
        if stop < end:
            if data[stop] == 0x22:
                self._in_string = False
            else:  # a backslash, and the piece ends
                self._escaped = True
            return stop + 1
        return end

    def _enter(self, is_object: bool) -> None:
        self._depth += 1
        if self._next is not None and is_object:
            self._levels.append((self._depth, *self._next))
            self._at_name = True
            self._name = None
        self._next = None

    def _leave(self) -> None:
        self._next = None
        if self._levels and self._levels[-1][0] == self._depth:
            self._levels.pop()
        self._depth -= 1
        self._at_name = False
        if self._depth <= 0:
            self.whole = True  # the text is over, or broken

    def _value_begins(self, level: tuple[int, Places, bytes]) -> None:
        name = bytes(self._name or b"")
        self._name = None
        self._next = None
        if name not in level[1]:
            return
        wanted = level[1][name]
        place = level[2] + b"." + name if level[2] else name
        if wanted is not None:
            self._next = (wanted, place)
        elif place not in self.values:
            self._capturing = True
            self._capture.clear()
            self._place = place

    def _value_ends(self, data: bytes, start: int, end: int) -> None:
        self._next = None
        if not self._capturing:
            return
        self._keep(data, start, end)
        self._capturing = False
        if len(self._capture) <= MAX_VALUE_BYTES:
            self.values[self._place] = bytes(self._capture).strip()
        self._wanted -= 1
        if self._wanted == 0:
            self.whole = True

    def _keep(self, data: bytes, start: int, end: int) -> None:
        if len(self._capture) <= MAX_VALUE_BYTES:
            self._capture += data[start : min(end, start + MAX_VALUE_BYTES + 1)]


def _leaves(places: Places) -> int:
    return sum(1 if inner is None else _leaves(inner) for inner in places.values())
