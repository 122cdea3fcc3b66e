"""How large the pages of a Parquet file will be when decompressed, learnt without decompressing any.

A footer only claims sizes; what a reader allocates is what each page's own header says, up to 2 GiB a page, and a
zstd frame of a few hundred kilobytes can really fill it. So the page headers of every column are walked: Thrift's
compact protocol (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md), the struct
`PageHeader` of parquet.thrift, of which two fields matter, 2: uncompressed_page_size and 3: compressed_page_size.
Everything else is skipped by its type. Headers must lie end to end and fill their column exactly.
"""

from __future__ import annotations

import re

import pyarrow.parquet as pq

from metering.refusal import Refusal

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_MAX_DEPTH = 8
_MAX_PAGES = 4_096
#: A header as pyarrow writes nearly all: fields 1 to 3, of which 2 and 3 are sizes, then field 5 (a page of data: four
#: numbers, perhaps statistics that say nothing) or 7 (a dictionary: two numbers, perhaps a flag). It is all that costs
#: time here, and a regular expression reads it ten times as fast.
_NUMBER = rb"\x15[\x80-\xff]{0,4}[\x00-\x7f]"
_SIZE = rb"\x15([\x80-\xff]?[\x80-\xff]?[\x80-\xff]?[\x00-\x7f])"
_PLAIN = re.compile(
    _NUMBER
    + _SIZE
    + _SIZE
    + rb"(?:\x2c(?:%b){4}(?:\x1c\x00)?|\x4c(?:%b){2}[\x11\x12]?)\x00\x00" % (_NUMBER, _NUMBER),
    re.DOTALL,
)


def unpacked_bytes(body: bytes, footer: pq.FileMetaData) -> int:
    """Bytes of all pages when decompressed, page headers included. Refusal `body_format` if headers make no sense."""
    total = 0
    pages = 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        for column in range(footer.num_columns):
            chunk = group.column(column)
            at = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                at = min(at, chunk.dictionary_page_offset)
            end = at + chunk.total_compressed_size
            if not 0 < at < end <= len(body):
                raise _bad("a column lies outside the body")
            if chunk.num_values != group.num_rows or chunk.file_path:
                raise _bad("a column has another number of values than there are rows")
            while at < end:
                begins, unpacked, packed = _page(body, at, end)
                total += begins - at + unpacked
                at = begins + packed
                pages += 1
                if pages > _MAX_PAGES:
                    raise _bad(f"more than {_MAX_PAGES} pages")
            if at != end:
                raise _bad("a page reaches over the end of its column")
    return total


def _page(body: bytes, at: int, limit: int) -> tuple[int, int, int]:
    """Of the page whose header lies at `at`: where its content begins, its size when decompressed and as it lies there."""
    plain = _PLAIN.match(body, at, limit)
    if plain is None or (plain[1][0] | plain[2][0]) & 1:  # the last bit is the sign
        header = _Header(body, at, limit)
        return header.end, header.unpacked, header.compressed
    unpacked, packed = _small(plain[1]), _small(plain[2])
    return plain.end(), unpacked, packed


def _small(number: bytes) -> int:
    """A size in a plain header."""
    value = 0
    for place, byte in enumerate(number):
        value |= (byte & 0x7F) << 7 * place
    return value >> 1


class _Header:
    """One page header: where it lies and the two sizes that it names."""

    def __init__(self, body: bytes, start: int, limit: int) -> None:
        self._body = body
        self._limit = limit
        self.start = start
        self.end = start
        sizes = self._struct(0)
        self.unpacked = sizes.get(2, -1)
        self.compressed = sizes.get(3, -1)
        if not (0 <= self.unpacked < 2**31 and 0 <= self.compressed < 2**31):
            raise _bad("a page header does not say how large its page is")

    def _byte(self) -> int:
        if self.end >= self._limit:
            raise _bad("a page header is cut off")
        self.end += 1
        return self._body[self.end - 1]

    def _varint(self) -> int:
        # Without `_byte`: most of a header is numbers, and a batch has some forty headers.
        body, at = self._body, self.end
        value = 0
        for shift in range(0, 70, 7):
            if at >= self._limit:
                raise _bad("a page header is cut off")
            byte = body[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                self.end = at
                return value
        raise _bad("a number in a page header does not end")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _struct(self, depth: int) -> dict[int, int]:
        """Read one struct; returns its 32-bit integers by field number."""
        integers: dict[int, int] = {}
        number = 0
        while True:
            head = self._byte()
            if head == 0:
                return integers
            kind = head & 0x0F
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            if kind == _I32:
                if number in integers:
                    raise _bad("a page header says something twice")
                integers[number] = self._zigzag()
            else:
                self._skip(kind, depth, in_field=True)

    def _skip(self, kind: int, depth: int, *, in_field: bool) -> None:
        if depth > _MAX_DEPTH:
            raise _bad("a page header is nested too deeply")
        if kind in (_TRUE, _FALSE):
            self.end += 0 if in_field else 1
        elif kind == _BYTE:
            self.end += 1
        elif kind in (_I16, _I32, _I64):
            self._varint()
        elif kind == _DOUBLE:
            self.end += 8
        elif kind == _BINARY:
            length = self._varint()
            self.end += length
        elif kind == _STRUCT:
            self._struct(depth + 1)
        else:  # a page header holds no list, set or map
            raise _bad("a page header holds what none holds")
        if self.end > self._limit:
            raise _bad("a page header is cut off")


def _bad(what: str) -> Refusal:
    return Refusal("body_format", what)
