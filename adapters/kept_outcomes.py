"""What holds now, kept beside the usage that it was rated from: a second what-if rates only what is asked about.

    cache/what-if/<operator's digest>-2026-10-<key>/<digest>.outcome       an Arrow file, billing.what_if_table

The folder's key stands for the usage (`adapters.usage_cache`), the file's name for all else that the outcome is a function
of: every site document of the operator as it is stored, the holidays of the period, and the code that rates (SHA-256
over all of it). So a file answers for exactly these, or is never asked for; the folder goes with its usage, and an
outcome under other facts when the next one is kept. A file is written beside its name first, so it is there as a whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pyarrow as pa

import billing
import metering
from billing.facts import Facts
from billing.holiday import holiday_texts
from billing.what_if import PeriodOutcome
from billing.what_if_table import outcome_from, outcome_table
from metering.durable import create_once

_SUFFIX = ".outcome"


def documents_digest(facts: Facts) -> str | None:
    """Of what all facts but holidays were read from; None of facts that were read from nothing."""
    if not facts.documents:
        return None
    stated = [
        [each.kind, each.id, each.operator, str(each.valid_from), each.body]
        for each in sorted(facts.documents, key=lambda each: (each.kind, each.id, str(each.valid_from)))
    ]
    return hashlib.sha256(json.dumps([_code_digest(), stated], sort_keys=True).encode()).hexdigest()


def outcome_path(folder: Path, documents: str, facts: Facts) -> Path:
    """Where the outcome under `facts`, with the period's holidays, is kept; `documents`: their `documents_digest`."""
    stated = json.dumps([documents, holiday_texts(facts)], sort_keys=True)
    return folder / (hashlib.sha256(stated.encode()).hexdigest()[:32] + _SUFFIX)


def kept_outcome(path: Path) -> PeriodOutcome | None:
    """The outcome that is kept there; None where there is none, or no whole one."""
    try:
        with pa.memory_map(str(path)) as source:
            return outcome_from(pa.ipc.open_file(source).read_all())
    except (OSError, pa.ArrowInvalid):
        return None


def keep_outcome(path: Path, outcome: PeriodOutcome) -> None:
    """Keeps it, and drops those under other facts. Where that cannot be written, the next question rates again."""
    table = outcome_table(outcome).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
    with contextlib.suppress(OSError):
        others = [each for each in path.parent.glob("*" + _SUFFIX) if each != path]
        path.unlink(missing_ok=True)  # one that could not be read
        create_once(path, sink.getvalue().to_pybytes())
        for other in others:
            other.unlink(missing_ok=True)


@cache
def _code_digest() -> str:
    """Of the modules that rate, as they lie on the disk: an outcome of other code is none of this one's."""
    digest = hashlib.sha256(pa.__version__.encode())
    for path in _modules([*billing.__path__, *metering.__path__]):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _modules(folders: Iterable[str]) -> list[Path]:
    return [path for folder in folders for path in sorted(Path(folder).glob("*.py"))]
