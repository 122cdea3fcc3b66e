"""What a line of a document is for, in neutral words: those of its `description` (EN 16931 BT-153).

qwen3-32b · output tokens · night · tier 2        a window, a tier
qwen3-32b · input tokens · spot, step 1           a window that follows a price series
qwen3-32b · input tokens · included               free units
output tokens · packages                          started packages of a price row
Reserved capacity                                 a contract's fee, as the contract names it
"""

from __future__ import annotations

from billing.line import BASE_WINDOW, FREE, PACKAGE_UNIT, UNBILLED, Line

_METER_WORDS = {
    "input": "input tokens",
    "cached_input": "cached input tokens",
    "output": "output tokens",
    "reasoning": "reasoning tokens",
    "requests": "requests",
    "audio_seconds": "audio seconds",
}


def describe(line: Line) -> str:
    """The words for a line of a bill, most general first."""
    if line.item is not None:
        return line.item
    words = [line.model] if line.model else []
    words.append(_METER_WORDS.get(line.meter, line.meter))
    if line.unit == PACKAGE_UNIT:
        words.append("packages")
    if line.window != BASE_WINDOW:
        name, _, step = line.window.partition(":")
        words.append(f"{name}, step {step}" if step else name)
    if line.tier == UNBILLED:
        words.append("not billed")
    elif line.tier == FREE:
        words.append("included")
    elif line.tier is not None:
        words.append(f"tier {line.tier}")
    return " · ".join(words)
