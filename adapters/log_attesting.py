"""Having others vouch for checkpoints: witnesses cosign them, an authority stamps their time, where the operator names any.

What they answered is kept beside the log, under the size that it speaks of:

    _log/cosigned/000000000011-<first 16 digits of its SHA-256>.note     the checkpoint with all cosignatures got
    _log/timestamp/000000000011-<…>.tsr                                  the authority's answer for the log's own note

Nobody's silence stops anything here: what failed is told, and asked again with a later checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from adapters.log_archive import archived_log, archived_note
from adapters.timestamp import ROOTS, URL, Authority, read_authority, stamp, stamped_at
from adapters.witness import WITNESSES, AskedWitness, ask, read_witnesses
from billing.log import log_folder
from billing.objects import Objects
from metering.checkpoint import Checkpoint, checkpoint_text, split_checkpoint
from metering.cosignature import cosignatures
from metering.merkle import consistency_ranges
from metering.refusal import Refusal, Unavailable

_NAME = re.compile(r"[0-9]{12}-[0-9a-f]{16}\.[a-z]+")
_LOOKED_AT = (
    20  # kept notes among which a witness is looked for: one that is in none of them was away for hours
)


@dataclass(frozen=True, slots=True)
class Attesters:
    """Whom the operator named."""

    witnesses: tuple[AskedWitness, ...] = ()
    authority: Authority | None = None

    def __bool__(self) -> bool:
        return bool(self.witnesses) or self.authority is not None


def read_attesters(environ: Mapping[str, str]) -> Attesters:
    """Those of TALLY_WITNESSES and TALLY_TIMESTAMP_URL; none by default. Refusals: bad_witnesses, bad_key,
    bad_timestamp_settings, bad_address."""
    witnesses, url = environ.get(WITNESSES), environ.get(URL)
    return Attesters(
        tuple(read_witnesses(Path(witnesses))) if witnesses else (),
        read_authority(url, environ.get(ROOTS)) if url else None,
    )


def attest(objects: Objects, operator: str, attesters: Attesters) -> list[Refusal | Unavailable]:
    """Has the newest archived checkpoint vouched for, unless it is already; what failed."""
    signed = archived_note(objects, operator)
    if signed is None:
        return []
    checkpoint, _ = split_checkpoint(signed)
    failed: list[Refusal | Unavailable] = []
    if attesters.witnesses and newest_cosigned(objects, operator) < checkpoint.size:
        failed += _have_cosigned(objects, operator, attesters.witnesses, signed, checkpoint)
    if attesters.authority is not None and newest_stamped(objects, operator) < checkpoint.size:
        try:
            _keep(objects, operator, "timestamp", checkpoint.size, stamp(attesters.authority, signed), "tsr")
        except (Refusal, Unavailable) as problem:
            failed.append(problem)
    return failed


def newest_cosigned(objects: Objects, operator: str) -> int:
    """The size of the newest checkpoint that a witness signed; 0 for none."""
    return _newest(objects, operator, "cosigned")


def newest_stamped(objects: Objects, operator: str) -> int:
    """The size of the newest checkpoint with a time stamp; 0 for none."""
    return _newest(objects, operator, "timestamp")


def last_vouched(objects: Objects, operator: str, attesters: Attesters) -> dict[str, datetime | None]:
    """When each that is named vouched last, by its own clock, as what is kept says: witnesses by name, the authority by
    address. None for never, or for another's word."""
    last: dict[str, datetime | None] = {asked.witness.name: None for asked in attesters.witnesses}
    known = [asked.witness for asked in attesters.witnesses]
    paths = _kept(objects, operator, "cosigned") if known else []
    for path in reversed(paths[-_LOOKED_AT:]):
        kept = objects.get(path)
        if kept is None:
            continue
        checkpoint, signatures = split_checkpoint(kept)
        for found in cosignatures(checkpoint_text(checkpoint), signatures, known):
            if last[found.witness.name] is None:
                last[found.witness.name] = datetime.fromtimestamp(found.time_s, UTC)
    if attesters.authority is not None:
        last[attesters.authority.url] = _last_stamped(objects, operator)
    return last


def _last_stamped(objects: Objects, operator: str) -> datetime | None:
    kept = _kept(objects, operator, "timestamp")
    reply = objects.get(kept[-1]) if kept else None
    return None if reply is None else stamped_at(reply)


def _have_cosigned(
    objects: Objects,
    operator: str,
    witnesses: tuple[AskedWitness, ...],
    signed: bytes,
    checkpoint: Checkpoint,
) -> list[Refusal | Unavailable]:
    tiles = archived_log(objects, operator, checkpoint.size)
    known = newest_cosigned(objects, operator)
    failed: list[Refusal | Unavailable] = []
    lines: list[bytes] = []
    for asked in witnesses:
        try:
            lines.append(
                ask(
                    asked,
                    signed,
                    checkpoint,
                    known,
                    lambda size: [
                        tiles.range_hash(*part) for part in consistency_ranges(size, checkpoint.size)
                    ],
                )
            )
        except (Refusal, Unavailable) as problem:
            failed.append(problem)
    if lines:
        _keep(objects, operator, "cosigned", checkpoint.size, signed + b"".join(lines), "note")
    return failed


def _keep(objects: Objects, operator: str, kind: str, size: int, content: bytes, suffix: str) -> None:
    name = f"{size:012d}-{sha256(content).hexdigest()[:16]}.{suffix}"
    objects.put([(f"{log_folder(operator)}{kind}/{name}", content)])


def _newest(objects: Objects, operator: str, kind: str) -> int:
    kept = _kept(objects, operator, kind)
    return int(kept[-1].rpartition("/")[2].partition("-")[0]) if kept else 0


def _kept(objects: Objects, operator: str, kind: str) -> list[str]:
    """What is kept of this kind, the newest last; what somebody else has put there is passed over."""
    folder = f"{log_folder(operator)}{kind}/"
    return [path for path in objects.list(folder) if _NAME.fullmatch(path.removeprefix(folder))]
