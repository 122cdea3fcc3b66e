"""wrk: who asks.

It keeps its connections busy, or pauses a random while (a given mean) before each request, which makes a rate; Debian's
`hey` can hold a rate too, but its workers' clocks tick together, and what it then measures is the queue of its own
bursts. wrk's own clock ticks in milliseconds, so requests still come a few at a time (5 at 5,000/s), and a latency holds
the wait for those before it. wrk counts from the first byte written to the last byte read, and reads whole answers,
chunked ones too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

from bench.results import Skipped

PACKAGES = {"nginx": "nginx-light", "wrk": "wrk"}
BODY = '{"model":"qwen3-32b","max_tokens":32,"messages":[{"role":"user","content":"What is a token, in one sentence?"}]%s}'

_SCRIPT = """
wrk.method, wrk.path = "POST", "/v1/chat/completions"
wrk.body = os.getenv("BENCH_BODY")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_SECRET")
local pause = tonumber(os.getenv("BENCH_PAUSE_MS"))
if pause > 0 then function delay() return math.random(0, 2 * pause) end end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("BENCH %d %d %d %d %d\\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw; latencies in milliseconds."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def need_tools() -> None:
    """nginx and wrk, installed from Debian where they are missing and we may. Raises Skipped."""
    missing = [package for program, package in PACKAGES.items() if not found(program)]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", "-qq", *command], stdout=subprocess.DEVNULL, check=False)
    still = [package for program, package in PACKAGES.items() if not found(program)]
    if still:
        raise Skipped(f"it needs {' and '.join(still)}: apt-get install {' '.join(still)}")


def found(program: str) -> str | None:
    """Where a program is, also where a plain user's PATH does not lead."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")


def wrk(port: int, *, stream: bool, secret: str, seconds: int, connections: int, pause_ms: int = 0) -> Load:
    """Asks the server at `port` for so long. RuntimeError if anything but answers of status 2xx came back."""
    environment = {
        **os.environ,
        "BENCH_BODY": BODY % (',"stream":true' if stream else ""),
        "BENCH_SECRET": secret,
        "BENCH_PAUSE_MS": str(pause_ms),
    }
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT)
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", script.name]
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{port}"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds + 30,
            check=True,
        )
    line = next(line for line in done.stdout.splitlines() if line.startswith("BENCH "))
    requests, micros, errors, p50, p99 = (int(word) for word in line.split()[1:])
    if errors or not requests:
        raise RuntimeError(f"{errors} of {requests} requests failed")
    return Load(requests, micros / 1e6, p50 / 1000, p99 / 1000)
