"""`tally intake`, noting what each of its stages costs: `python -m bench.intake_stages STAGES.json intake …`.

The command runs as it is; its functions are wrapped by ones that add up the CPU time of the thread which runs them, and
the stages that overlap take from one another: a stage's time is its own, without what it calls of the others. Into
STAGES.json go, after each transaction, CPU seconds by stage, and `all` of the process since its first batch.
"""

from __future__ import annotations

import functools
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

# stage: (module, name) of what belongs to it
STAGES: dict[str, list[tuple[str, str]]] = {
    "fetch from Kafka": [("adapters.kafka.source", "KafkaSource._poll")],
    "signature and seal": [("billing.inspection", "read_seal"), ("billing.inspection", "peek_seal")],
    "body digest": [("metering.body", "sha256")],
    "decode": [("metering.body", "_decode")],
    "checks of events": [
        ("metering.body", "_sequence_fault"),
        ("metering.body", "_time_fault"),
        ("metering.body", "_events_fault"),
    ],
    "control totals": [("metering.body", "_totals_fault")],
    "Merkle root": [("billing.inspection", "check_root")],
    "cells of batches": [("billing.inspection", "batch_usage")],
    "cells of the poll": [("billing.intake", "merged"), ("billing.intake", "mark_late")],
    "chains": [("billing.intake", "follow"), ("billing.intake", "settle")],
    "archive": [("adapters.archive", "BatchObjects.put")],
    "encode for COPY": [
        ("adapters.postgres.partial_sums", "packed"),
        ("adapters.postgres.copying", "_packed"),
    ],
}


class Clock:
    """Own CPU seconds of each stage, over all threads."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.started: float | None = None
        self._inner: dict[int, list[float]] = defaultdict(list)

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def timed(*arguments: Any, **named: Any) -> Any:
            if self.started is None and stage == "signature and seal":
                self.started = time.process_time()
            inner = self._inner[threading.get_ident()]
            inner.append(0.0)
            began = time.thread_time()
            try:
                return work(*arguments, **named)
            finally:
                spent = time.thread_time() - began
                self.spent[stage] += spent - inner.pop()
                if inner:
                    inner[-1] += spent

        return timed


@contextmanager
def keep_time(path: Path) -> Iterator[None]:
    """Within the block, intake's stages are timed; they are written to `path` after each transaction."""
    clock = Clock()
    # pyarrow imports it with its first array: a third of a second of the start, and of no stage.
    import_module("pandas")
    with ExitStack() as stack:
        for stage, places in STAGES.items():
            for module, name in places:
                owner: Any = import_module(module)
                *above, last = name.split(".")
                for part in above:
                    owner = getattr(owner, part)
                stack.enter_context(patch.object(owner, last, clock.timed(stage, getattr(owner, last))))
        intake = import_module("billing.intake")
        said = intake.step

        def step(name: str) -> None:
            said(name)
            if name == "committed":
                beside = path.with_suffix(".new")
                whole = time.process_time() - (clock.started or 0.0)
                beside.write_text(json.dumps({**clock.spent, "all": whole}))
                beside.replace(path)

        stack.enter_context(patch.object(intake, "step", step))
        yield


if __name__ == "__main__":
    from adapters.cli.main import main

    with keep_time(Path(sys.argv.pop(1))):
        main()
