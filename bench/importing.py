"""`tally import` of 1.38 million requests: seconds, rows a second, memory, and where the time goes.

Demanded: at most 60 s and 1 GB. Stages: *start* until the database is open, *read* (decompress, decode, check), *sort*
(order, digest, what is known already, subjects), *seal*, with intake taking batches at the same time, and *accept*,
what intake still has to take after the last seal. The memory is that of the command's process, without PostgreSQL's.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from bench.command import installation
from bench.results import Measured
from bench.traces import servegen

QUICK_ROWS = 20_000


def measure(quick: bool) -> Measured:
    found = Measured()
    with tempfile.TemporaryDirectory() as scratch, installation() as here:
        trace = servegen(Path(scratch), QUICK_ROWS if quick else None)
        stages = Path(scratch) / "stages.json"
        ran = here.tally(
            *("import", str(trace.path), "--node", "vilnius-1", *trace.options),
            program=("-m", "bench.import_stages", str(stages)),
        )
        assert ran.document["events"] == trace.rows
        times = json.loads(stages.read_text())
    found.add("rows", trace.rows)
    found.add("batches", int(ran.document["batches"]))
    found.add("seconds", ran.seconds, "s", "" if quick else "≤ 60")
    found.add("rows a second", round(trace.rows / ran.seconds), "/s")
    found.add("most memory", ran.peak_mib, "MiB", "< 954 (1 GB)")
    read, sealed = times["reading"][1], times["sealing"]
    found.add("stage start", times["opened"], "s")
    found.add("stage read", read - times["opened"], "s")
    found.add("stage sort", sealed[0] - read, "s")
    found.add("stage seal", sealed[1] - sealed[0], "s")
    found.add("stage accept", ran.seconds - sealed[1], "s")
    if not trace.real:
        found.notes.append("drawn rows: the real trace is not at hand, or --quick")
    return found
