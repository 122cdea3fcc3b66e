"""Thrift's compact protocol, as much of it as it takes to walk over what a stranger wrote without trusting a byte of it.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md. A `Reader` goes over structs: numbers
are read, the rest is skipped by its type. Nothing is made whose size the bytes say, and no step leads past `limit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from metering.refusal import Refusal

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_MAX_DEPTH = 8

Take = Callable[[], None]


class Reader:
    """Where one stands in some bytes. `what` names them in a refusal (`body_format`)."""

    def __init__(self, content: bytes, at: int, limit: int, what: str) -> None:
        self.content = content
        self.at = at
        self.limit = limit
        self.what = what

    def bad(self, how: str) -> Refusal:
        return Refusal("body_format", f"{self.what} {how}")

    def byte(self) -> int:
        if self.at >= self.limit:
            raise self.bad("is cut off")
        self.at += 1
        return self.content[self.at - 1]

    def varint(self) -> int:
        # Without `byte`: most of what is read is numbers.
        content, at, limit = self.content, self.at, self.limit
        value = 0
        for shift in range(0, 70, 7):
            if at >= limit:
                raise self.bad("is cut off")
            byte = content[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                self.at = at
                return value
        raise self.bad("holds a number that does not end")

    def zigzag(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def struct(
        self, depth: int = 0, taken: Mapping[tuple[int, int], Take] | None = None
    ) -> dict[tuple[int, int], int]:
        """Reads one struct; its integers by (field number, type). A field of `taken` is read by what stands there."""
        found: dict[tuple[int, int], int] = {}
        number = 0
        while True:
            head = self.byte()
            if head == 0:
                return found
            kind = head & 0x0F
            number = number + (head >> 4) if head >> 4 else self.zigzag()
            field = (number, kind)
            if kind in (I16, I32, I64):
                if field in found:
                    raise self.bad("says something twice")
                found[field] = self.zigzag()
            elif taken is not None and field in taken:
                if field in found:
                    raise self.bad("says something twice")
                found[field] = 0
                taken[field]()
            else:
                self.skip(kind, depth, in_field=True)

    def items(self) -> tuple[int, int]:
        """The head of a list: how many items, and of which type. An item takes at least a byte."""
        head = self.byte()
        count = head >> 4
        if count == 0x0F:
            count = self.varint()
        if count > self.limit - self.at:
            raise self.bad("is cut off")
        return count, head & 0x0F

    def skip(self, kind: int, depth: int, *, in_field: bool) -> None:
        if depth > _MAX_DEPTH:
            raise self.bad("is nested too deeply")
        if kind in (TRUE, FALSE):
            self.at += 0 if in_field else 1
        elif kind == BYTE:
            self.at += 1
        elif kind in (I16, I32, I64):
            self.varint()
        elif kind == DOUBLE:
            self.at += 8
        elif kind == BINARY:
            length = self.varint()
            self.at += length
        elif kind == STRUCT:
            self.struct(depth + 1)
        elif kind in (LIST, SET):
            count, of = self.items()
            for _ in range(count):
                self.skip(of, depth + 1, in_field=False)
        else:  # nothing in a Parquet file holds a map
            raise self.bad("holds what none holds")
        if self.at > self.limit:
            raise self.bad("is cut off")
