"""The logs that an archive holds, by their newest checkpoints (blocking)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from adapters.log_archive import archived_note
from adapters.log_sequencer import log_key_path, log_verifier
from adapters.postgres.database import INSTALLATION
from billing.log import operator_of
from billing.objects import Objects
from metering.checkpoint import Checkpoint, read_checkpoint, split_checkpoint
from metering.identity import LaneKey
from metering.refusal import Refusal


@dataclass(frozen=True, slots=True)
class ArchivedLog:
    """The newest checkpoint of an operator's archived log."""

    operator: str
    checkpoint: Checkpoint
    note: bytes
    proved: bool


def archived_operators(objects: Objects) -> set[str]:
    """Whose logs the archive holds, the installation's among them; lists the whole archive."""
    folders = {path.partition("/")[0] for path in objects.list("") if "/_log/" in path}
    return {operator_of(f"{folder}.tallygrid/log") for folder in folders}


def archived_logs(objects: Objects, keys: Path, operators: Iterable[str]) -> list[ArchivedLog]:
    """The newest checkpoints of these operators, of those that have one; the installation's first, which the others
    refer to. Refusals: bad_checkpoint, and log_key where the key that is here did not sign one."""
    found = []
    for operator in sorted(set(operators), key=lambda name: (name != INSTALLATION, name)):
        note = archived_note(objects, operator)
        if note is None:
            continue
        key_path = log_key_path(keys, operator)
        if key_path.exists():
            try:
                verifier = log_verifier(LaneKey.load_or_create(key_path), operator)
                found.append(ArchivedLog(operator, read_checkpoint(note, verifier), note, True))
            except Refusal as refused:
                raise Refusal(
                    "log_key",
                    f"the archived checkpoint of {operator} is not one that the key here signed: {refused.what}",
                    where=str(key_path),
                    remedy="restore key and archive of one installation",
                ) from None
        else:
            found.append(ArchivedLog(operator, split_checkpoint(note)[0], note, False))
    return found
