"""Where the columns of a Parquet file lie, read from its footer by ourselves.

pyarrow reads a footer well, but asked for one column of it (`metadata.row_group(0).column(0)`) it builds that column's
statistics too, and a footer that lies about their sizes then ends the whole process: the C++ exception is not
translated (pyarrow 25; seen with `size_statistics` of another length). One signed, broken body would so kill intake
again and again. So the few numbers that are needed are read here, from parquet.thrift's FileMetaData, RowGroup,
ColumnChunk and ColumnMetaData, and nothing else of pyarrow's is asked about columns.

    4 bytes PAR1 │ pages … │ footer │ 4 bytes: its length, little-endian │ PAR1
"""

from __future__ import annotations

from dataclasses import dataclass

from metering.refusal import Refusal
from metering.thrift import BINARY, I64, LIST, STRUCT, Reader

_MAGIC = b"PAR1"
_MOST_COLUMNS = 1_000


@dataclass(frozen=True, slots=True)
class ColumnPlace:
    """Of one column of one row group: where its pages begin, how many bytes they take, and how many values it has."""

    begin: int
    length: int
    values: int
    elsewhere: bool


@dataclass(frozen=True, slots=True)
class Group:
    """A row group."""

    rows: int
    columns: tuple[ColumnPlace, ...]


def row_groups(body: bytes) -> list[Group]:
    """The row groups of a Parquet file, as its footer says. Refusal `body_format` where it makes no sense."""
    length = int.from_bytes(body[-8:-4], "little")
    begin = len(body) - 8 - length
    if body[-4:] != _MAGIC or begin < len(_MAGIC):
        raise Refusal("body_format", "the body has no footer")
    reader = Reader(body, begin, len(body) - 8, "the footer")
    groups: list[Group] = []
    reader.struct(taken={(4, LIST): lambda: groups.extend(_groups(reader))})
    return groups


def _groups(reader: Reader) -> list[Group]:
    return [_group(reader) for _ in range(_structs(reader))]


def _structs(reader: Reader) -> int:
    """How many structs follow."""
    count, kind = reader.items()
    if (count and kind != STRUCT) or count > _MOST_COLUMNS:
        raise reader.bad("lists something else than row groups and columns")
    return count


def _group(reader: Reader) -> Group:
    columns: list[ColumnPlace] = []
    said = reader.struct(
        1, {(1, LIST): lambda: columns.extend([_column(reader) for _ in range(_structs(reader))])}
    )
    return Group(said.get((3, I64), -1), tuple(columns))


def _column(reader: Reader) -> ColumnPlace:
    found: list[dict[tuple[int, int], int]] = []
    named: list[int] = []

    def path() -> None:
        named.append(reader.varint())
        reader.at += named[-1]

    reader.struct(2, {(3, STRUCT): lambda: found.append(reader.struct(3)), (1, BINARY): path})
    if not found:
        raise reader.bad("has a column without its figures")
    said = found[0]
    try:
        data, length, values = said[9, I64], said[7, I64], said[5, I64]
    except KeyError:
        raise reader.bad("does not say where a column lies") from None
    dictionary = said.get((11, I64), 0)
    return ColumnPlace(min(data, dictionary) if dictionary > 0 else data, length, values, bool(named))
