"""A lane's folder in the spool: its lock, its head, and how a batch becomes visible there.

    SPOOL/<operator>/<node>/<lane>/
        unmetered                   what was served without being written down (unmetered_reserve.py)
        lock                        held (flock) by the one writer
        head                        the newest seal of the lane, a copy of its note; outlives the batch itself
        ordinal                     no batch has had a higher ordinal than this number; outlives all batches too
        making.parquet, making.seal a batch that is not visible yet
        sealed/<ordinal>-<epoch>-<number>.parquet and .seal
                                    visible batches; the ordinal (12 digits) rises along the chain, so that names
                                    in their order are the chain in its order. A reader goes by the .seal. It rises
                                    over restarts, also where nothing lies here any more: a shipper that lives on
                                    takes a lower one for sent. Not each number is used
        sealed/….done               a batch that intake has, about to be deleted (spool.py)

Publishing a batch, with everything on disk before the next line begins:

    1. making.parquet, making.seal   written, their folder fsynced: nobody looks here
    2. head                          replaced by the new seal
    3. making.* renamed to sealed/   body first, seal last

Killed before 2, the batch was never there: its events are still in the write-ahead file (or the import's file) and
are sealed again, and nobody has seen the first try. Killed after 2, the next writer finds that `making.seal` is what
`head` says and does line 3. The head is on disk before a reader can take the batch and delete it, so a lane never
forgets a seal that somebody has seen: that would be a fork of its own making.

A disk that refuses within 2 or 3 is asked again at the next seal (`settle`). If 2 did not replace the head (no room
for the new one), the batch was never there, as above. If the head was replaced and its folder's fsync failed, nobody
knows what a power cut would leave: 2 is done again, whole. If 2 was done and 3 failed, 3 is done again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from metering.batch import SealedBatch
from metering.durable import fsync_folder, make_folder, replace_file, write_file
from metering.node_word import NodeWord
from metering.refusal import Refusal, Unavailable
from metering.seal import GENESIS, NAME, Seal, peek_seal, seal_hash
from metering.steps import step

SEAL_SUFFIX = ".seal"
BODY_SUFFIX = ".parquet"
DONE_SUFFIX = ".done"

#: So many ordinals are set aside at once in `ordinal`; a restart goes on behind them. 10^12 of them last for 10^8 starts.
_ORDINALS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Head:
    """The newest seal of a lane and its hash."""

    seal: Seal
    hash: str


def lane_path(spool: Path, operator: str, node: str, lane: str) -> Path:
    """Where a lane lies in the spool folder."""
    return spool / operator / node / lane


def check_lane_name(lane: str) -> None:
    """Refusal `bad_lane` for a name that no seal can carry, or that is an import's: nothing of it could be sealed."""
    if not NAME.fullmatch(lane) or lane.startswith("import-"):
        raise Refusal(
            "bad_lane",
            f"no name for a sidecar's lane: {lane[:80]!r}",
            where="--lane",
            remedy="lower-case letters, digits, dots, dashes and underscores, at most 63, for instance sidecar-1",
        )


@contextmanager
def disk_failures(path: Path) -> Iterator[None]:
    """An OSError within becomes Unavailable `spool_failed`: the spool's disk is a dependency that failed."""
    try:
        yield
    except OSError as error:
        raise _failure(path, str(error)) from error


class LaneFolder:
    """The folder of a lane while its one writer holds it."""

    def __init__(self, spool: Path, operator: str, node: str, lane: str, lock: int) -> None:
        self.spool = spool
        self.operator, self.node, self.lane = operator, node, lane
        self.path = lane_path(spool, operator, node, lane)
        self.sealed = self.path / "sealed"
        self.word = NodeWord(self.path)
        self._lock = lock
        self.head: Head | None = None
        self._ordinal = self._most_ordinal = 0
        # A batch that publishing left half done, and whether the head that names it is on disk.
        self._half: tuple[SealedBatch, bool] | None = None

    @classmethod
    def open(cls, spool: Path, operator: str, node: str, lane: str) -> LaneFolder:
        """Take the lane; Refusal `lane_in_use` if another writer has it. Ends what a killed writer had begun."""
        path = lane_path(spool, operator, node, lane)
        make_folder(path / "sealed")
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Refusal(
                "lane_in_use",
                f"another writer has the lane {lane} of {operator}/{node}",
                where=str(path),
                remedy="stop it, or give this one a lane of its own",
            ) from None
        folder = cls(spool, operator, node, lane, lock)
        try:
            folder._recover()
        except BaseException:
            folder.close()
            raise
        return folder

    @property
    def previous(self) -> str:
        """What the next seal names as the one before."""
        return self.head.hash if self.head else GENESIS

    def publish(self, batch: SealedBatch) -> None:
        """Make a batch the lane's newest and let it be seen; see the module's text for the order.

        Unavailable `spool_failed` if the disk refuses; the caller then calls `settle` before it makes another batch.
        """
        assert batch.seal.previous == self.previous
        if self._half:
            raise _failure(self.path, "an earlier batch was left half published")
        with disk_failures(self.path):
            if batch.body:
                write_file(self.path / "making.parquet", batch.body)
            write_file(self.path / "making.seal", batch.note)
            fsync_folder(self.path)
            step("making")
            self._half = (batch, False)
            replace_file(self.path / "head", batch.note)
            self._half = (batch, True)
            step("head")
            self._reveal(batch.seal)
        self.head = Head(batch.seal, batch.hash)
        self._half = None
        step("sealed")

    def settle(self) -> SealedBatch | None:
        """End what a failed `publish` left; the batch that is the lane's newest after all, or None.

        None: nothing was left, or the batch was never there. Unavailable `spool_failed` if the disk still refuses.
        """
        if self._half is None:
            return None
        batch, is_named = self._half
        with disk_failures(self.path):
            if not is_named:
                if self._head_on_disk() == self.head:
                    self._half = None
                    return None
                replace_file(self.path / "head", batch.note)
                self._half = (batch, True)
            self.head = Head(batch.seal, batch.hash)
            self._finish_making()
            fsync_folder(self.sealed)
        self._half = None
        return batch

    def close(self) -> None:
        """Let go of the lane."""
        self.word.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _reveal(self, seal: Seal) -> None:
        self._ordinal += 1
        if self._ordinal > self._most_ordinal:
            most = self._ordinal + _ORDINALS_AT_ONCE
            replace_file(self.path / "ordinal", b"%d\n" % most)
            self._most_ordinal = most
        body = self.sealed / f"{self._ordinal:012d}-{seal.epoch}-{seal.number}{BODY_SUFFIX}"
        if seal.events:
            (self.path / "making.parquet").replace(body)
        (self.path / "making.seal").replace(body.with_suffix(SEAL_SUFFIX))
        fsync_folder(self.sealed)

    def _recover(self) -> None:
        ordinals = (path.name[:12] for path in self.sealed.iterdir())
        here = max((int(ordinal) for ordinal in ordinals if ordinal.isdigit()), default=0)
        self._ordinal = self._most_ordinal = max(here, self._ordinal_on_disk())
        self.head = self._head_on_disk()
        self._finish_making()
        self._sweep()

    def _ordinal_on_disk(self) -> int:
        path = self.path / "ordinal"
        if not path.exists():
            return 0
        text = path.read_text(encoding="ascii", errors="replace").strip()
        if not text.isdigit():
            raise Refusal("lane_state", f"no number: {text[:80]!r}", where=str(path))
        return int(text)

    def _head_on_disk(self) -> Head | None:
        head = self.path / "head"
        if not head.exists():
            return None
        note = head.read_bytes()
        seal = peek_seal(note)
        if (seal.operator, seal.node, seal.lane) != (self.operator, self.node, self.lane):
            raise Refusal("lane_state", f"the head is that of {seal.signer}", where=str(head))
        return Head(seal, seal_hash(note))

    def _finish_making(self) -> None:
        making = self.path / "making.seal"
        if self.head and making.exists() and seal_hash(making.read_bytes()) == self.head.hash:
            seal = self.head.seal
            for body in self.sealed.glob(f"*-{seal.epoch}-{seal.number}{BODY_SUFFIX}"):
                body.replace(self.path / "making.parquet")  # the kill came between the two renames
            self._reveal(seal)
        for name in ("making.seal", "making.parquet", "head.new", "ordinal.new"):
            with suppress(OSError):  # nobody reads it, and the next batch is written over it
                (self.path / name).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Delete bodies whose seal is gone: the last trace of batches that intake has."""
        for body in self.sealed.glob(f"*{BODY_SUFFIX}"):
            if not body.with_suffix(SEAL_SUFFIX).exists():
                with suppress(OSError):  # a reader may be deleting it too, or nobody can now
                    body.unlink(missing_ok=True)


def _failure(path: Path, what: str) -> Unavailable:
    return Unavailable(
        "spool_failed",
        f"the spool cannot be written: {what}",
        where=str(path),
        remedy="free space on the spool's disk; if it goes on, start the writer again",
    )
