"""A part of a bill outside its usage lines: a discount, a floor's shortfall, an adjustment, a rounding."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class BillPart:
    """Money of a bill outside its lines, in minor units: positive a charge, negative an allowance.

    `key` names it, so that the next document can be computed from the issued ones:

        segment:vilnius@2026-10-01|acme@2026-10-01    rule 7's groups; nothing after | where there is no contract
        discount:vilnius|acme
        floor
        adjustment:2026-10.1
        rounding

    `about` is the id of the document that it was made for, if it was. A discount says of what it is which share:
    `amount` = −round(`base` × `percent` ÷ 100), both None for the other parts.
    """

    key: str
    reason: str
    amount: int
    about: str | None = None
    base: int | None = None
    percent: Decimal | None = None
