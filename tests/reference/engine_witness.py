"""A real vLLM with its witness, and a load that hangs up on it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine_exchange import Answer, Request, exchange
from engine_recorder import HOST, engine, vllm_folder

from metering.engine_lines import EngineLine, Freed, Late, Opened, request_id
from metering.engine_tail import EngineLines

WITNESS = Path(__file__).parents[2] / "adapters" / "vllm"
SYNC = ("--scheduler-cls", "tallygrid_vllm.WitnessScheduler", "--no-async-scheduling")
ASYNC = ("--scheduler-cls", "tallygrid_vllm.AsyncWitnessScheduler", "--async-scheduling")

_WORDS = [
    "the",
    "bill",
    "of",
    "a",
    "node",
    "is",
    "what",
    "its",
    "engine",
    "made",
    "and",
    "nobody",
    "else",
    "can",
    "say",
]


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


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the load: its id, how many engine requests it makes, and when its client hangs up (None: never)."""

    id: str
    request: Request
    choices: int
    hang_up_s: float | None


@dataclass(frozen=True, slots=True)
class Heard:
    """What its client got: None where it had hung up."""

    asked: Asked
    answer: Answer | None


def mixed_load(seed: int, requests: int = 240) -> list[Asked]:
    """Chat and completions, streams and not, n = 2, batched prompts, stop strings, errors; a quarter hang up."""
    chance = random.Random(seed)
    return [_asked(chance, number) for number in range(requests)]


def _asked(chance: random.Random, number: int) -> Asked:
    tokens = chance.choice([1, 3, 8, 20, 60])
    body: dict[str, object] = {"model": "tiny", "max_tokens": tokens, "ignore_eos": True, "seed": number}
    choices = 1
    stream = chance.random() < 0.5
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if chance.random() < 0.15:
        body |= {"stop": ["e", " the"]}
    if number % 2:
        path = "/v1/chat/completions"
        body["messages"] = [{"role": "user", "content": _prose(chance)}]
        if chance.random() < 0.3:
            choices = body["n"] = 2
    else:
        path = "/v1/completions"
        choices = chance.choice([1, 1, 2, 4])
        prompts = [_prose(chance) for _ in range(choices)]
        body["prompt"] = prompts if choices > 1 else prompts[0]
    hang_up_s = chance.uniform(0, 0.02 * tokens + 0.1) if number % 4 == 3 or number % 8 == 2 else None
    if chance.random() < 0.06:
        body, choices = chance.choice([{**body, "model": "none"}, {**body, "max_tokens": -1}]), 0
    minted = uuid.UUID(int=chance.getrandbits(128)).hex
    headers = (("Content-Type", "application/json"), ("X-Request-Id", minted))
    return Asked(minted, Request("POST", path, headers, json.dumps(body)), choices, hang_up_s)


def _prose(chance: random.Random) -> str:
    """A few words, or a few hundred that often begin alike: some prompts are found in the cache."""
    if chance.random() < 0.2:
        return " ".join(_WORDS * 12) + " " + chance.choice(_WORDS)
    return " ".join(chance.choices(_WORDS, k=chance.randint(1, 40)))


async def put(port: int, load: Iterable[Asked], at_once: int = 24) -> list[Heard]:
    """Sends the load, `at_once` requests at any time, each on a connection of its own."""
    gate = asyncio.Semaphore(at_once)

    async def one(asked: Asked) -> Heard:
        async with gate:
            try:
                async with asyncio.timeout(asked.hang_up_s):
                    return Heard(asked, await exchange(HOST, port, asked.request))
            except TimeoutError:
                if asked.hang_up_s is None:
                    raise
                return Heard(asked, None)

    return list(await asyncio.gather(*(one(asked) for asked in load)))


def completion_tokens(answer: Answer) -> int:
    """The usage that an answer states, in its body or in its last chunk but `[DONE]`."""
    body = answer.body
    if body.startswith("data: "):
        body = next(part[6:] for part in reversed(body.split("\n\n")) if '"usage":{' in part)
    return int(json.loads(body)["usage"]["completion_tokens"])


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
