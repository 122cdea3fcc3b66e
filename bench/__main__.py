"""`python -m bench [--quick] [NAME…]`: exit 0 if every bench ran or said why it could not."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

from bench import results

# name: module, in the order in which they run
BENCHES = {
    "import": "importing",
    "close": "closing",
    "rating": "rating",
    "invoice-pdf": "invoice_pdf",
    "capture": "capture",
    "steps": "capture_steps",
    "usage-question": "usage_question",
    "reading": "reading",
    "what-if": "what_if",
    "quiet-day": "quiet_day",
    "intake": "intake",
    "billion": "billion",
}
LONG = {"billion", "quiet-day"}  # only by name


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(BENCHES)}; all but {', '.join(sorted(LONG))} if left out",
    )
    parser.add_argument("--quick", action="store_true", help="small: shows that it works, measures little")
    parser.add_argument("--results", type=Path, default=results.FOLDER, help="where the JSON files go")
    asked = parser.parse_args()
    unknown = set(asked.names) - set(BENCHES)
    if unknown:
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    # As Ctrl-C does: whatever was started is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in asked.names or [each for each in BENCHES if each not in LONG]:
        before, began = results.machine(), time.perf_counter()
        try:
            measured = import_module(f"bench.{BENCHES[name]}").measure(asked.quick)
        except results.Skipped as reason:
            print(f"{name}: skipped, {reason}\n")
            continue
        seconds = time.perf_counter() - began
        results.show(name, measured)
        path = results.write(
            name, measured, quick=asked.quick, seconds=seconds, before=before, folder=asked.results
        )
        print(
            f"  {seconds:.0f} s, load average before {before['load_average']}, written: {path.name}\n",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
