"""The witness over a scheduler that is not vLLM's: what it must survive, and what the real one rarely does.

A stand-in for the few vLLM modules is put where Python looks for them; what the real ones do is
test_engine_witness.py's.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tallygrid_vllm.versions import is_known

from metering.engine_lines import AfterEnd, EngineLine, Faults, Freed, Late, SteppedAside
from metering.engine_tail import EngineLines


class Status(Enum):
    FINISHED_STOPPED = 1
    FINISHED_ABORTED = 2


class Scheduler:
    """vLLM's, as far as the witness leans on it."""

    def __init__(self, vllm_config: Any) -> None:
        self.vllm_config = vllm_config
        self.requests: dict[str, Any] = {}
        self.holds_blocks = False

    def add_request(self, request: Any) -> None:
        self.requests[request.request_id] = request

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> str:
        return "outputs"

    def _update_request_as_session(self, session: Any, update: Any) -> None:
        session.num_output_tokens = 0

    def _free_request(self, request: Any, delay_free_blocks: bool = False) -> tuple[None, None]:
        if not self.holds_blocks:
            del self.requests[request.request_id]
        return None, None

    def shutdown(self) -> None:
        pass


class OutputProcessor:
    def __init__(self, *known: str) -> None:
        self.request_states = dict.fromkeys(known)

    def process_outputs(self, engine_core_outputs: Any, engine_core_timestamp: float | None = None) -> int:
        return len(engine_core_outputs)


class AsyncLLM:
    def __init__(self, vllm_config: Any, known: list[str]) -> None:
        self.output_processor = sys.modules["vllm.v1.engine.output_processor"].OutputProcessor(*known)


CONFIG = SimpleNamespace(
    model_config=SimpleNamespace(served_model_name=["tiny", "alias"]),
    parallel_config=SimpleNamespace(data_parallel_index=3),
)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of the witness beside a vLLM of some version, its lines going to `tmp_path`."""
    monkeypatch.setenv("TALLY_ENGINE_LINES", str(tmp_path))
    loaded: list[str] = []

    def put_in_place(name: str, version: str = "0.32.0") -> ModuleType:
        names = ("vllm", "vllm.v1", "vllm.v1.core", "vllm.v1.core.sched", "vllm.v1.engine")
        for package in names:
            monkeypatch.setitem(sys.modules, package, ModuleType(package))
        vllm: Any = sys.modules["vllm"]
        vllm.__version__ = version
        for module, what in (
            ("vllm.v1.core.sched.scheduler", {"Scheduler": Scheduler}),
            (
                "vllm.v1.core.sched.async_scheduler",
                {"AsyncScheduler": type("AsyncScheduler", (Scheduler,), {})},
            ),
            (
                "vllm.v1.engine.output_processor",
                {"OutputProcessor": type("Processor", (OutputProcessor,), {})},
            ),
            ("vllm.v1.engine.async_llm", {"AsyncLLM": type("Client", (AsyncLLM,), {})}),
        ):
            made = ModuleType(module)
            vars(made).update(what)
            monkeypatch.setitem(sys.modules, module, made)
        loaded.append(f"tallygrid_vllm.{name}")
        return importlib.import_module(loaded[-1])

    yield put_in_place
    for name in loaded:
        sys.modules.pop(name, None)


def request(name: str, **changed: Any) -> Any:
    prefill = SimpleNamespace(num_prompt_tokens=31, num_cached_tokens=16)
    shape = {
        "request_id": name,
        "prefill_stats": prefill,
        "num_prompt_tokens": 31,
        "num_output_tokens": 12,
        "lora_request": None,
        "status": Status.FINISHED_STOPPED,
    }
    return SimpleNamespace(**{**shape, **changed})


def lines(folder: Path) -> list[EngineLine]:
    reader = EngineLines(folder)
    found = [each.line for each in reader.read()]
    assert reader.take_faults() == []
    return found


def freed(folder: Path) -> list[Freed]:
    return [each.said for each in lines(folder) if isinstance(each.said, Freed)]


def test_cached_tokens_are_those_of_the_prefill_which_the_first_output_took_along(
    load: Any, tmp_path: Path
) -> None:
    scheduler = load("scheduler").WitnessScheduler(CONFIG)
    served = request("chatcmpl-x-1a2b3c4d", lora_request=SimpleNamespace(lora_name="adapter"))
    scheduler.add_request(served)
    served.prefill_stats = None  # taken with the first output
    assert scheduler._free_request(served) == (None, None)
    scheduler.shutdown()
    [line] = freed(tmp_path)
    assert line == Freed(
        3, "tiny", "adapter", "chatcmpl-x-1a2b3c4d", "chatcmpl-x", "stopped", 31, 16, 12, sampled=True
    )


def test_a_request_that_ended_in_the_queue_sampled_nothing(load: Any, tmp_path: Path) -> None:
    scheduler = load("scheduler").AsyncWitnessScheduler(CONFIG)
    waiting = request("a", num_output_tokens=0, status=Status.FINISHED_ABORTED)
    waiting.prefill_stats.num_cached_tokens = 0
    scheduler.add_request(waiting)
    scheduler._free_request(waiting, delay_free_blocks=True)
    scheduler.shutdown()
    [line] = freed(tmp_path)
    assert (line.status, line.sampled, line.prompt_tokens, line.output_tokens) == ("aborted", False, 31, 0)


def test_the_turns_of_a_session_add_up(load: Any, tmp_path: Path) -> None:
    scheduler = load("scheduler").WitnessScheduler(CONFIG)
    session = request("a")
    scheduler.add_request(session)
    session.prefill_stats = None
    scheduler._update_request_as_session(session, None)
    session.num_output_tokens, session.num_prompt_tokens = 5, 60
    scheduler._free_request(session)
    scheduler.shutdown()
    [line] = freed(tmp_path)
    assert (line.prompt_tokens, line.output_tokens) == (
        31,
        17,
    )  # the counters contain the first turn's prompt


def test_what_a_step_sampled_for_requests_that_are_no_more_is_written(load: Any, tmp_path: Path) -> None:
    scheduler = load("scheduler").WitnessScheduler(CONFIG)
    alive, gone, held, unsampled = (request(name) for name in ("alive", "gone", "held", "unsampled"))
    for each in (alive, gone, held, unsampled):
        scheduler.add_request(each)
    scheduler._free_request(gone)
    scheduler._free_request(unsampled)
    scheduler.holds_blocks = True  # a connector still sends its blocks
    scheduler._free_request(held)
    step = SimpleNamespace(num_scheduled_tokens={"alive": 1, "gone": 1, "held": 2, "unsampled": 9})
    output = SimpleNamespace(
        sampled_token_ids=[[1], [2], [3, 4], []],
        req_id_to_index={"alive": 0, "gone": 1, "held": 2, "unsampled": 3},
    )
    assert scheduler.update_from_output(step, output) == "outputs"
    scheduler.shutdown()
    after = [each.said for each in lines(tmp_path) if isinstance(each.said, AfterEnd)]
    assert {each.id: each.output_tokens for each in after} == {"gone": 1, "held": 2}


def test_a_failure_of_the_witness_never_reaches_the_scheduler(load: Any, tmp_path: Path) -> None:
    scheduler = load("scheduler").WitnessScheduler(CONFIG)
    odd = SimpleNamespace(request_id="odd")  # without anything that the witness reads
    scheduler.add_request(odd)
    scheduler.update_from_output(
        SimpleNamespace(num_scheduled_tokens={"x": 1}), SimpleNamespace(sampled_token_ids=[[1]])
    )
    assert scheduler._free_request(odd) == (None, None)
    scheduler.shutdown()
    faults = [each.said for each in lines(tmp_path) if isinstance(each.said, Faults)]
    assert faults[-1].count == 3


def test_a_request_costs_the_engine_microseconds(load: Any) -> None:
    """15 µs a request and 6 µs a step of 256 requests on a core of its own; a request takes an engine milliseconds."""
    scheduler = load("scheduler").WitnessScheduler(CONFIG)
    requests = [request(f"chatcmpl-{number:032x}-1a2b3c4d") for number in range(2256)]
    for each in requests:
        scheduler.add_request(each)
    step = SimpleNamespace(num_scheduled_tokens={each.request_id: 1 for each in requests[-256:]})
    begun = time.process_time()
    for each in requests[:2000]:
        scheduler._free_request(each)
        scheduler.update_from_output(step, SimpleNamespace(sampled_token_ids=[]))
    assert (time.process_time() - begun) / 2000 < 200e-6
    scheduler.shutdown()


def test_a_witness_that_cannot_begin_leaves_the_scheduler_as_it_is(load: Any, tmp_path: Path) -> None:
    scheduler = load("scheduler").WitnessScheduler(SimpleNamespace())
    served = request("a")
    scheduler.add_request(served)
    assert scheduler._free_request(served) == (None, None)
    scheduler.shutdown()
    assert lines(tmp_path) == []


@pytest.mark.parametrize("name", ["WitnessScheduler", "AsyncWitnessScheduler"])
def test_on_another_version_it_says_so_and_overrides_nothing(load: Any, tmp_path: Path, name: str) -> None:
    module = load("scheduler", version="0.34.0")
    scheduler = getattr(module, name)(CONFIG)
    assert type(scheduler)._free_request is Scheduler._free_request
    assert type(scheduler).update_from_output is Scheduler.update_from_output
    [aside] = [each.said for each in lines(tmp_path) if isinstance(each.said, SteppedAside)]
    assert aside == SteppedAside("0.34.0", "vLLM 0.34.0 is not one that tallygrid-vllm knows (0.32 to 0.33)")


def test_on_a_known_version_that_was_changed_it_steps_aside_too(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scheduler, "_free_request", lambda self, req: (None, None))
    load("scheduler").WitnessScheduler(CONFIG)
    [aside] = [each.said for each in lines(tmp_path) if isinstance(each.said, SteppedAside)]
    assert aside.why == "AsyncScheduler._free_request of vLLM 0.32.0 takes ('req',), not ('request',)"


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("0.32.0", True),
        ("0.32.1rc1+cpu", True),
        ("0.33.0.dev7+g1234", True),
        ("0.31.9", False),
        ("0.34.0", False),
        ("1.32.0", False),
        ("dev", False),
        ("", False),
    ],
)
def test_versions_are_known_by_major_and_minor(version: str, known: bool) -> None:
    assert is_known(version) is known


def late_output(name: str, tokens: int, prompt: int | None = None) -> Any:
    prefill = None if prompt is None else SimpleNamespace(num_prompt_tokens=prompt)
    return SimpleNamespace(request_id=name, new_token_ids=[0] * tokens, prefill_stats=prefill)


def test_outputs_of_requests_that_the_front_end_let_go_are_late(load: Any, tmp_path: Path) -> None:
    front_end = load("front_end")
    front_end.install()
    front_end.install()  # plugins may be loaded more than once
    client = sys.modules["vllm.v1.engine.async_llm"].AsyncLLM(CONFIG, ["alive"])
    processor = client.output_processor
    outputs = [
        late_output("alive", 1),
        late_output("gone", 2),
        late_output("new", 1, 31),
        late_output("over", 0),
    ]
    assert processor.process_outputs(outputs, engine_core_timestamp=1.0) == 4
    assert processor.process_outputs([SimpleNamespace()]) == 1  # what it cannot read it leaves to vLLM
    late = [each.said for each in lines(tmp_path) if isinstance(each.said, Late)]
    assert late == [Late("tiny", "gone", "gone", 0, 2), Late("tiny", "new", "new", 31, 1)]


def test_a_front_end_whose_client_made_no_processor_goes_on_and_its_late_lines_name_no_model(
    load: Any, tmp_path: Path
) -> None:
    load("front_end").install()
    processor = sys.modules["vllm.v1.engine.output_processor"].OutputProcessor()
    processor.process_outputs([late_output("gone", 2)])
    [late] = [each.said for each in lines(tmp_path) if isinstance(each.said, Late)]
    assert late == Late(None, "gone", "gone", 0, 2)


def test_on_another_version_the_front_end_is_left_as_it_is(load: Any, tmp_path: Path) -> None:
    load("front_end", version="0.34.0").install()
    assert (
        sys.modules["vllm.v1.engine.output_processor"].OutputProcessor.process_outputs
        is OutputProcessor.process_outputs
    )
    assert sys.modules["vllm.v1.engine.async_llm"].AsyncLLM.__init__ is AsyncLLM.__init__
    [aside] = [each.said for each in lines(tmp_path) if isinstance(each.said, SteppedAside)]
    assert aside.vllm == "0.34.0"


def test_without_a_folder_the_plugin_touches_nothing(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TALLY_ENGINE_LINES")
    load("front_end").install()
    assert (
        sys.modules["vllm.v1.engine.output_processor"].OutputProcessor.process_outputs
        is OutputProcessor.process_outputs
    )
