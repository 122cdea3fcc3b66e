"""A real vLLM with its witness, and what its lines say."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine_recorder import engine, vllm_folder

from metering.engine_lines import EngineLine, Freed, Late, Opened, request_id
from metering.engine_tail import EngineLines

WITNESS = Path(__file__).parents[2] / "adapters" / "vllm"
SYNC = ("--scheduler-cls", "tallygrid_vllm.WitnessScheduler", "--no-async-scheduling")
ASYNC = ("--scheduler-cls", "tallygrid_vllm.AsyncWitnessScheduler", "--async-scheduling")


def install_witness(folder: Path) -> Path:
    """Builds the distribution and installs it, entry point included, into a folder for PYTHONPATH."""
    source = folder / "source"
    shutil.copytree(WITNESS, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    site = folder / "site"
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(site)]
    subprocess.run([vllm_folder() / "bin" / "pip", "install", *options, str(source)], check=True)
    return site


@contextmanager
def witnessed(site: Path | None, lines: Path | None, options: tuple[str, ...]) -> Iterator[int]:
    """The port of a real vLLM that finds the witness in `site` and writes its lines to `lines`."""
    given = {"PYTHONPATH": str(site or ""), "TALLY_ENGINE_LINES": str(lines or "")}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        with engine(options) as port:
            yield port
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def all_lines(folder: Path) -> list[EngineLine]:
    """Every line that is there; a fault in them is a failure."""
    reader = EngineLines(folder)
    found = [each.line for each in reader.read()]
    assert reader.take_faults() == []
    return found


def core_pid(lines: Iterable[EngineLine]) -> int:
    """The process of the engine's core, as its stream says."""
    return next(
        each.said.pid for each in lines if isinstance(each.said, Opened) and each.said.role == "scheduler"
    )


def is_over(pid: int) -> bool:
    """Whether a process has ended, also where nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def parent_pid(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def processor_s(port: int) -> float:
    """Processor seconds that the server on a port has used, all its processes together."""
    wanted = f"\0--port\0{port}\0".encode()
    group, used = set[str](), dict[str, float]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if wanted in stat.with_name("cmdline").read_bytes():
                group.add(fields[2])
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks = int(fields[11]) + int(fields[12])
        used[fields[2]] = used.get(fields[2], 0) + ticks / os.sysconf("SC_CLK_TCK")
    return sum(used[each] for each in group)


def delivered(lines: Iterable[EngineLine]) -> dict[str, tuple[int, int]]:
    """By request id: how many engine requests it made, and the output tokens that reached the front end in time."""
    found: dict[str, tuple[int, int]] = {}
    for line in lines:
        if isinstance(line.said, Freed | Late) and (minted := request_id(line.said.external)):
            freed, output = found.get(minted.hex(), (0, 0))
            if isinstance(line.said, Freed):
                found[minted.hex()] = (freed + 1, output + line.said.output_tokens)
            else:
                found[minted.hex()] = (freed, output - line.said.output_tokens)
    return found
