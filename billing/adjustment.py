"""An adjustment: money given or taken back outside usage (`invoice credit`), part of the bill from then on.

Because it belongs to the bill, and the bill is what successive documents sum to, a goodwill credit is
credited once: no later close bills it again (arithmetic rules 8 and 10).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from billing.period import Period

PART = "adjustment:"


@dataclass(frozen=True, slots=True)
class Adjustment:
    """`net` in minor units, negative for a credit; `by` is who made it, `document` the id of the one it is
    about.
    """

    id: str
    customer: str
    period: Period
    net: int
    reason: str
    by: str
    at: datetime
    document: str | None = None

    @property
    def part(self) -> str:
        """The key under which documents carry it."""
        return PART + self.id
