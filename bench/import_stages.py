"""`tally import …`, noting when each of its stages begins: `python -m bench.import_stages STAGES.json import FILE …`.

The command runs as it is; only the progress bar, which is told of every step anyway, is one that keeps the time. Into
STAGES.json go the seconds since the process began: {"opened": …, "reading": [first, last], "sealing": [first, last]}.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

BEGAN = time.perf_counter()

from adapters.cli import importing  # noqa: E402 - the time that imports take is part of the command's
from adapters.cli.main import main  # noqa: E402


@contextmanager
def keep_time(path: Path) -> Iterator[None]:
    """Within the block, an import writes its stages to `path`."""

    @contextmanager
    def progress_bar(_: object) -> Iterator[Callable[[str, int, int], None]]:
        stages: dict[str, list[float]] = {}

        def told(stage: str, _done: int, _total: int) -> None:
            now = time.perf_counter() - BEGAN
            stages.setdefault(stage, [now, now])[1] = now

        opened = time.perf_counter() - BEGAN
        yield told
        path.write_text(json.dumps({"opened": opened, **stages}))

    with patch.object(importing, "progress_bar", progress_bar):
        yield


if __name__ == "__main__":
    with keep_time(Path(sys.argv.pop(1))):
        main()
