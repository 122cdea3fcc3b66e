"""Usage that no price covers: it stops the close, and is named so that a price can be given (arithmetic rule 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from billing.period import Period
from metering.refusal import Fault, Refusal


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Usage that no price covers; it stops the close. `tokens` is the quantity (seconds of audio_seconds).

    `where` and `remedy`: as `billing.unpriced_reason` says them of the first hour.
    """

    model: str
    meter: str
    region: str
    tokens: int
    first_hour: datetime
    why: str
    where: str = field(default="", compare=False)
    remedy: str = field(default="", compare=False)


def unpriced_refusal(operator: str, period: Period, unpriced: Sequence[Unpriced]) -> Refusal:
    """The refusal (`unpriced`) of a close, with each as a fault and in the error's `unpriced`."""
    return Refusal(
        "unpriced",
        f"{operator}: usage in {period} that no price covers",
        where=operator,
        remedy="each of the faults says what would give it a price; apply that, then close again",
        faults=[
            Fault(
                f"{each.tokens} of {each.meter} for model {each.model!r} from {_instant(each.first_hour)}"
                f" in region {each.region!r}: {each.why}",
                each.where or operator,
                each.remedy,
            )
            for each in unpriced
        ],
        extra={"unpriced": [unpriced_json(each) for each in unpriced]},
    )


def unpriced_json(each: Unpriced) -> dict[str, str | int]:
    """One of them in the JSON of docs/commands.md."""
    return {
        "model": each.model,
        "meter": each.meter,
        "region": each.region,
        "tokens": each.tokens,
        "first_hour": _instant(each.first_hour),
        "why": each.why,
    }


def _instant(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")
