"""A world with a real vLLM in it: its witness, a real `tally sidecar` before it, clients, and an auditor of three books.

    with base_folder(urls) as base, witnessed(site, lines, options) as engine:
        with real_world(base, engine, lines) as world:
            heard = world.send(generating_load(seed=1, requests=300))
            shown = counters(world)
            world.stop()
            findings = audit(heard, engine_lines(lines), world.events())
            world.reconciled()

The books: what clients heard and counted themselves, the lines of the engine's witness, and the sealed events. The fourth,
the engine's counters, is held against all of it by `tally reconcile`, and by `check_sums` with other arithmetic.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from capture_world import NODE, Base
from command import Json, Tally
from engine_load import Asked, Heard, put
from engine_recorder import settled
from engine_witness import all_lines
from kill_auditor import Event, Findings, archived_events
from kill_commands import Commands, Running

from metering.engine_lines import Freed, Late
from metering.engine_state import STATE_FILE

#: The sidecar waits 5 s for lines, and looks at idle counters each second; a busy machine takes longer.
SETTLE_S = 60.0
_MINTED = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_PROMPT, _GENERATED = "vllm:prompt_tokens_total", "vllm:generation_tokens_total"


@dataclass(frozen=True, slots=True)
class Lines:
    """What the engine's witness wrote: its `request` lines by minted id, and all that came late."""

    freed: Mapping[str, Sequence[Freed]]
    late: Sequence[Late]


@dataclass
class World:
    """`engine` is the port of vLLM, or of what stands before it; `lines` the folder that the sidecar reads."""

    tally: Tally
    keys: Mapping[str, str]
    commands: Commands
    engine: int
    lines: Path
    sidecar: Running | None = None
    port: int = 0

    def start(self, kill_at: str | None = None) -> bool:
        """Starts the sidecar, again where its clients look for it; false if it died before it listened."""
        self.sidecar = self.commands.start(*self.arguments(), kill_at=kill_at)
        if not self.sidecar.ready():
            return False
        self.port = urlsplit(self.sidecar.said["sidecar"]).port or 0
        return True

    def arguments(self) -> tuple[str, ...]:
        """The sidecar's command line."""
        engine = ("--engine", f"http://127.0.0.1:{self.engine}", "--engine-lines", str(self.lines))
        return ("sidecar", *engine, "--node", NODE, "--listen", f"127.0.0.1:{self.port}")

    def headers(self) -> tuple[tuple[str, str], ...]:
        """A customer's key."""
        return (("Authorization", f"Bearer {next(iter(self.keys.values()))}"),)

    def send(self, load: Iterable[Asked]) -> list[Heard]:
        """What the clients heard of this load."""
        return asyncio.run(put(self.port, load, headers=self.headers()))

    def stop(self) -> None:
        assert self.sidecar is not None
        assert self.sidecar.stop() == 0, self.sidecar.trouble()

    def events(self) -> list[Event]:
        """All events that lie sealed in the spool; none once the ledger has taken them."""
        return [each for lane in archived_events(self.tally.data / "spool").values() for each in lane]

    def reconciled(self, exit_code: int = 0) -> Json:
        """What `tally reconcile` says, and that it ended so."""
        ran = self.tally.run("reconcile", "--json")
        assert ran.exit_code == exit_code, ran
        return ran.document


@contextmanager
def real_world(base: Base, engine: int, lines: Path, *, kill_at: str | None = None) -> Iterator[World]:
    """A sidecar before the engine at this port, killed at a step if one is named. What it started ends with the block."""
    commands = Commands(base.tally)
    world = World(base.tally, base.keys, commands, engine, lines)
    try:
        assert world.start(kill_at), world.sidecar and world.sidecar.trouble()
        yield world
    finally:
        commands.end()


def counters(world: World) -> tuple[int, int]:
    """(prompt, generated) tokens that the engine's counters show, once it is idle and the sidecar's span has ended."""
    shown = asyncio.run(settled(world.engine))
    give_up = time.monotonic() + SETTLE_S
    while not _is_quiet(world.tally.data):
        assert time.monotonic() < give_up, "the engine is quiet, and no span ends"
        time.sleep(0.2)
    assert asyncio.run(settled(world.engine)) == shown
    return shown.get(_PROMPT, 0), shown.get(_GENERATED, 0)


def _is_quiet(data: Path) -> bool:
    """Whether nothing waits for the end of a span: what the sidecar keeps of the one that runs is empty."""
    [state] = (data / "spool").rglob(STATE_FILE)
    kept = json.loads(state.read_bytes())
    return not (kept["held"] or kept["spans"]["sums"]["models"])


def engine_lines(folder: Path) -> Lines:
    """The witness's lines as they lie there."""
    freed: dict[str, list[Freed]] = defaultdict(list)
    late = []
    for line in all_lines(folder):
        if isinstance(line.said, Freed):
            found = _MINTED.search(line.said.external)
            freed[found[0] if found else line.said.external].append(line.said)
        elif isinstance(line.said, Late):
            late.append(line.said)
    return Lines(freed, late)


def audit(heard: Sequence[Heard], lines: Lines, events: Sequence[Event], *, killed: bool = False) -> Findings:
    """Lays the clients', the witness's and our book side by side. `killed`: something died under the load."""
    findings = Findings()
    usage = [event for event in events if event["kind"] == "usage"]
    counts = Counter(event["request"].hex() for event in usage)
    by_id = {event["request"].hex(): event for event in usage}
    findings.double += [f"{name} has {count} events" for name, count in counts.items() if count > 1]
    findings.lost += [f"the engine worked for {name}: no event" for name in lines.freed.keys() - by_id.keys()]
    _check_generated(lines, events, findings, killed=killed)
    for each in heard:
        if each.asked.endpoint and each.id is not None:
            _check_heard(each, by_id.get(each.id), findings)
    metered = [each for each in heard if each.asked.endpoint]
    unheard = sum(not each.pieces for each in metered)
    if not len(metered) - unheard <= len(by_id) <= len(metered):
        findings.wrong.append(
            f"{len(by_id)} events of {len(metered)} requests, {unheard} of them heard nothing"
        )
    return findings


def _check_generated(lines: Lines, events: Sequence[Event], findings: Findings, *, killed: bool) -> None:
    """Usage and amendment of a request together say what its lines say."""
    said: dict[str, list[int | None]] = defaultdict(list)
    for event in events:
        said[(event["names"] or event["request"]).hex()].append(event["generated_tokens"])
    for name, figures in said.items():
        made = sum(line.output_tokens for line in lines.freed.get(name, ()))
        known = [figure for figure in figures if figure is not None]
        if known or not killed:
            findings.expect(sum(known), made, f"generated tokens of {name}")


def _check_heard(each: Heard, event: Event | None, findings: Findings) -> None:
    if event is None:
        findings.lost.append(f"the client was answered {each.id}: no event")
        return
    what = f"{each.asked.endpoint} {each.id}"
    # vLLM ends a stream that it breaks off with an error in it.
    is_whole = each.answer is not None and each.answer.status == 200 and '"error":' not in each.answer.body
    if each.asked.endpoint == "background":
        findings.expect(event["endpoint"], "responses", f"endpoint of {what}")
        return
    findings.expect(event["endpoint"], each.asked.endpoint, f"endpoint of {what}")
    if is_whole:
        findings.expect(event["outcome"], "finished", f"outcome of {what}")
        findings.expect(event["completion_tokens"], each.tokens, f"delivered tokens of {what}")
    elif event["completion_tokens"] < each.tokens and event["reason"] != "sidecar_killed":
        findings.wrong.append(
            f"{what}: {each.tokens} tokens reached the client, {event['completion_tokens']} are told"
        )


def check_sums(events: Sequence[Event], lines: Lines, shown: tuple[int, int], findings: Findings) -> None:
    """Events and measured causes are the engine's counters, to the token."""
    prompt = sum(event["prompt_tokens"] for event in events)
    generated = sum(event["generated_tokens"] or 0 for event in events)
    sampled = sum(line.prompt_tokens for of in lines.freed.values() for line in of if line.sampled)
    late = (sum(each.prompt_tokens for each in lines.late), sum(each.output_tokens for each in lines.late))
    findings.expect(generated - late[1], shown[1], "generated tokens of the engine's counters")
    findings.expect(sampled - late[0], shown[0], "prompt tokens of the engine's counters, by its lines")
    if prompt > sampled:
        findings.wrong.append(f"events say {prompt} prompt tokens, the engine computed {sampled}")


def row_of(document: Json) -> Any:
    """The served model's row of a reconciliation in which every token was compared.

    A background response whose client left before the engine had it is asked for so long that its event, of no tokens,
    comes after the last quiet point.
    """
    unchecked = [(each["prompt_tokens"], each["generated_tokens"]) for each in document["unchecked"]]
    assert set(unchecked) <= {(0, 0)}, document
    [row] = [row for row in document["nodes"] if row["model"] == "tiny"]
    return row
