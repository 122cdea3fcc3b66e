"""The engine's witness: a scheduler and a plugin for vLLM that write down what the engine generated.

HTTP does not see what an engine generates for clients that hang up. The scheduler does, so

    TALLY_ENGINE_LINES=FOLDER vllm serve MODEL --scheduler-cls tallygrid_vllm.AsyncWitnessScheduler

writes one line for every request that the engine frees (lines.py specifies them). Use `WitnessScheduler` where vLLM
runs without async scheduling (`--no-async-scheduling`, CPU). The plugin beside it (front_end.py) is found by its entry
point and counts what reaches the front end too late to be in vLLM's own counters, so that both sums close exactly.

Importing this package imports nothing of vLLM: vLLM loads plugins in processes that need little of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tallygrid_vllm.scheduler import AsyncWitnessScheduler, WitnessScheduler

__version__ = "0.1.0"
__all__ = ["AsyncWitnessScheduler", "WitnessScheduler"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from tallygrid_vllm import scheduler

        return getattr(scheduler, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
