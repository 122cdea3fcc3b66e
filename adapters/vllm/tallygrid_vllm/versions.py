"""Which vLLM this witness knows, and what it leans on: the one place to change for a new version.

vLLM calls its scheduler interface non-public. So the witness works only where it knows the version and where the
methods that it overrides still take what they took; anywhere else it says so and steps aside.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

#: First and last (major, minor) that the witness was tested with or read against.
OLDEST = (0, 32)
NEWEST = (0, 33)

#: What the overridden methods are called with, `self` left out; later parameters may follow.
SCHEDULER_METHODS: Mapping[str, tuple[str, ...]] = {
    "add_request": ("request",),
    "update_from_output": ("scheduler_output", "model_runner_output"),
    "_update_request_as_session": ("session",),
    "_free_request": ("request",),
    "shutdown": (),
}
CLIENT_METHODS: Mapping[str, tuple[str, ...]] = {"__init__": ("vllm_config",)}
FRONT_END_METHODS: Mapping[str, tuple[str, ...]] = {"process_outputs": ("engine_core_outputs",)}


def is_known(version: str) -> bool:
    """Whether a version such as `0.32.0`, `0.32.1rc1+cpu` or `0.33.0.dev7` lies in the range."""
    try:
        major, minor = version.split(".")[:2]
        return OLDEST <= (int(major), int(minor)) <= NEWEST
    except ValueError:
        return False


def objection(version: str, parent: type, methods: Mapping[str, tuple[str, ...]]) -> str | None:
    """Why the witness must step aside on this engine; None if it need not."""
    if not is_known(version):
        known = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
        return f"vLLM {version} is not one that tallygrid-vllm knows ({known})"
    for name, expected in methods.items():
        method = getattr(parent, name, None)
        if not callable(method):
            return f"vLLM {version} has no {parent.__name__}.{name}"
        taken = tuple(inspect.signature(method).parameters)[1 : 1 + len(expected)]
        if taken != expected:
            return f"{parent.__name__}.{name} of vLLM {version} takes {taken}, not {expected}"
    return None
