"""An import, or its taking back, that has begun and not ended: part of a file counts as usage. Pure.

Until the same command is given again, or the import is taken back, no month that it touches closes, and no report of one
is whole. A file's name is never kept: the import is told by its id, which its command printed, and by the file's digest.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UnfinishedImport:
    """`rows` of the file are to be usage, `accepted` of them came so far, and `taken_back` of those left again.
    `file_sha256` is of the raw file, hex.
    """

    operator: str
    node: str
    id: str
    file_sha256: str
    is_voiding: bool
    rows: int
    accepted: int
    taken_back: int = 0

    @property
    def lanes(self) -> tuple[str, ...]:
        """The lanes that are to go on: the import's, or that and its void's."""
        return (self.id, self.id.replace("import-", "void-", 1)) if self.is_voiding else (self.id,)

    @property
    def what(self) -> str:
        """`import-30595fc101760851 is not finished: 130,000 of its 1,380,000 rows count as usage`."""
        counted = self.accepted - self.taken_back
        if self.is_voiding:
            return (
                f"{self.id} is not wholly taken back: {counted:,} of the {self.accepted:,} rows that were accepted still"
                " count as usage"
            )
        return f"{self.id} is not finished: {counted:,} of its {self.rows:,} rows count as usage"

    @property
    def remedy(self) -> str:
        """What ends it."""
        void = f"`tally import void {self.id} --reason …`"
        if self.is_voiding:
            return f"{void} again goes on with it"
        return f"the same `tally import` command goes on where it stands; {void} takes it back"


def unfinished_warning(each: UnfinishedImport) -> dict[str, object]:
    """What whoever reads usage is warned of, in the shape of a close's warnings."""
    return {
        "what": f"not whole: {each.what}",
        "where": each.id,
        "remedy": each.remedy,
        "requests": each.accepted - each.taken_back,
    }


def unfinished_json(each: UnfinishedImport) -> dict[str, object]:
    """Its row in JSON; `counted` is what of it counts as usage now."""
    return {
        "operator": each.operator,
        "node": each.node,
        "id": each.id,
        "state": "voiding" if each.is_voiding else "running",
        "file_sha256": each.file_sha256,
        "rows": each.rows,
        "counted": each.accepted - each.taken_back,
        "what": each.what,
        "remedy": each.remedy,
    }
