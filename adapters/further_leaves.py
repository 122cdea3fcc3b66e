"""The leaves that an archived log has beyond the database's, read as often as they are needed and never all at once.

There may be a hundred million of them, and the database may have as many: of either only a few thousand, and the right
edge of the tree, are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice

from adapters.archived_contents import ArchivedContents
from adapters.archived_logs import ArchivedLog
from adapters.log_archive import archived_log
from billing.log import LEAF_FORMAT, ChangeLeaf, parse_leaf
from billing.log_growth import GrowingLog
from billing.objects import Objects
from metering.refusal import Fault, Refusal

_LEAVES = 4096  # that are in memory together
_NAMED = 100
_BATCH = f"{LEAF_FORMAT}\nbatch ".encode()


@dataclass(slots=True)
class Lacks:
    """Of which kinds the leaves are that the database lacks."""

    batches: bool = False
    changes: bool = False


class Further:
    """One operator's archived log, up to its newest checkpoint (blocking)."""

    def __init__(self, objects: Objects, log: ArchivedLog) -> None:
        self._objects = objects
        self._log = log
        self._operator = log.operator

    def lacks(self, grown: GrowingLog) -> Lacks:
        """What the archived log has beyond the database's, which is its beginning. Refusals: log_differs,
        damaged_log."""
        checkpoint = self._log.checkpoint
        tiles = archived_log(self._objects, self._operator, checkpoint.size)
        whole, lacks = deepcopy(grown), Lacks()
        for leaves in _some(tiles.leaves(grown.size, checkpoint.size)):
            whole.add(leaves)
            of_batches = sum(data.startswith(_BATCH) for data in leaves)
            lacks.batches = lacks.batches or of_batches > 0
            lacks.changes = lacks.changes or of_batches < len(leaves)
        if whole.root() == checkpoint.root:
            return lacks
        if grown.size and tiles.root(grown.size) != grown.root():
            raise Refusal(
                "log_differs",
                f"the first {grown.size} leaves of {self._operator}'s log in the database are not those of the archive",
                where=self._operator,
                remedy="name the archive that belongs to this database (TALLY_ARCHIVE), or another backup",
            )
        raise Refusal(
            "damaged_log",
            f"the archived leaves of {self._operator} do not have the root that was signed",
            where=self._operator,
            remedy="restore the archive from its backup",
        )

    def leaves(self, first: int) -> Iterator[Sequence[bytes]]:
        """The archived leaves from this one on, some at a time: read again, for there may be more than fit in memory."""
        size = self._log.checkpoint.size
        return _some(archived_log(self._objects, self._operator, size).leaves(first, size))

    def name_missing(self, contents: ArchivedContents, first: int, waiting: Mapping[bytes, int]) -> None:
        """All of them at once, before anything is written."""
        faults, count, index = list[Fault](), 0, first
        for entries in self.leaves(first):
            for data in entries:
                leaf = parse_leaf(data)
                if isinstance(leaf, ChangeLeaf) and data not in waiting and leaf.commitment not in contents:
                    count += 1
                    if len(faults) < _NAMED:
                        said = f"leaf {index}: what changed in {leaf.table} is not in the archive"
                        faults.append(Fault(said, where=leaf.commitment))
                index += 1
        if faults:
            raise Refusal(
                "content_missing",
                f"{count} changes of {self._operator} are in the log, but what changed is not in the archive"
                " (any more): it was erased, or lost",
                where=self._operator,
                remedy="restore the archive from its backup, or take a backup of the database that is newer",
                faults=faults,
            )


def _some(leaves: Iterator[bytes]) -> Iterator[Sequence[bytes]]:
    while some := list(islice(leaves, _LEAVES)):
        yield some
