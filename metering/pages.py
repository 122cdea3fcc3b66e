"""How large the pages of a Parquet file will be when decompressed, learnt without decompressing any.

A footer only claims sizes; what a reader allocates is what each page's own header says, up to 2 GiB a page, and a
zstd frame of a few hundred kilobytes can really fill it. So the page headers of every column are walked (thrift.py): the
struct `PageHeader` of parquet.thrift, of which two fields matter, 2: uncompressed_page_size and 3: compressed_page_size.
Everything else is skipped by its type. Headers must lie end to end and fill their column exactly.
"""

from __future__ import annotations

import re

from metering.footer import row_groups
from metering.refusal import Refusal
from metering.thrift import I32, Reader

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


def unpacked_bytes(body: bytes) -> int:
    """Bytes of all pages when decompressed, page headers included. Refusal `body_format` if headers make no sense."""
    total = 0
    pages = 0
    for group in row_groups(body):
        for column in group.columns:
            at, end = column.begin, column.begin + column.length
            if not 0 < at < end <= len(body):
                raise _bad("a column lies outside the body")
            if column.values != group.rows or column.elsewhere:
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


class _Header(Reader):
    """One page header: where it ends and the two sizes that it names."""

    def __init__(self, body: bytes, start: int, limit: int) -> None:
        super().__init__(body, start, limit, "a page header")
        sizes = self.struct()
        self.end = self.at
        self.unpacked = sizes.get((2, I32), -1)
        self.compressed = sizes.get((3, I32), -1)
        if not (0 <= self.unpacked < 2**31 and 0 <= self.compressed < 2**31):
            raise self.bad("does not say how large its page is")


def _bad(what: str) -> Refusal:
    return Refusal("body_format", what)
