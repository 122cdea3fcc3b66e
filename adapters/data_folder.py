"""Where each part of a data folder lies.

DATA/postgres…      the embedded PostgreSQL (adapters/postgres/embedded.py)
DATA/spool/         write-ahead files and sealed batches, a folder a lane
DATA/archive/       every accepted batch, unchanged, and the operators' logs; elsewhere with TALLY_ARCHIVE
DATA/held/          what could not be accepted, byte for byte; elsewhere with TALLY_HELD
DATA/keys/          lane keys, the sidecar's snapshot of API keys
DATA/scratch/       what an import sorts; nothing there outlives a command
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from metering.durable import make_folder
from metering.refusal import Refusal


@dataclass(frozen=True, slots=True)
class DataFolder:
    """The places inside a data folder."""

    root: Path

    def make(self) -> None:
        """Makes it where it is missing, closed to others, as the embedded database does. Refusals: bad_data_folder."""
        try:
            if not self.root.is_dir():
                make_folder(self.root.parent)
                self.root.mkdir(mode=0o700, exist_ok=True)
            if not os.access(self.root, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as problem:
            raise Refusal(
                "bad_data_folder",
                f"{self.root} cannot be used: {problem.strerror}",
                where=str(self.root),
                remedy="name another with --data or TALLY_DATA",
            ) from None

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    @property
    def held(self) -> Path:
        return self.root / "held"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    def lane_key(self, node: str, lane: str) -> Path:
        """A folder a node: names hold dots, so `a` with `b.c` and `a.b` with `c` would share a file."""
        return self.keys / "lanes" / node / f"{lane}.key"

    def node_key(self, node: str) -> Path:
        """What the node signs its enrolment requests with."""
        return self.keys / "node" / f"{node}.key"

    def node_answer(self, node: str) -> Path:
        """The answer to the node's request, where it has no database at hand: who enrolled it."""
        return self.keys / "node" / f"{node}.enrolled"

    def intake_key(self, operator: str) -> Path:
        """What intake signs its acknowledgements to this operator's nodes with."""
        return self.intake_keys / f"{operator}.key"

    @property
    def intake_keys(self) -> Path:
        """OPERATOR.key where intake runs, OPERATOR.pub where its acknowledgements are read."""
        return self.keys / "intake"

    @property
    def node_secret(self) -> Path:
        """What this machine's sidecars sign the ids of responses with."""
        return self.keys / "node-secret"

    def key_snapshot(self, operator: str) -> Path:
        return self.keys / f"snapshot-{operator}.json"


def now() -> datetime:
    """The instant of a command."""
    return datetime.now(UTC)
