"""Running a settlement, in one transaction: base and shares read, the difference stored and posted (rule
11).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from billing.period import Period
from billing.ports import Books
from billing.posting import settlement_entry
from billing.settlement import Settlement, settle, settlement_base
from billing.site import in_force_at
from metering.refusal import Refusal


async def run_settlement(books: Books, operator: str, period: Period, now: datetime) -> Settlement | None:
    """Settle what the period's issued documents come to by now, less what was settled; None: nothing is due.

    Refuses `unknown_operator` and `period_not_begun`.
    """
    async with books.write(operator) as book:
        facts = await book.facts()
        if not facts.operator:
            raise Refusal(
                "unknown_operator", f"operator {operator} is not declared", remedy="`tally apply` it first"
            )
        zone = facts.operator[-1].zone
        start, end = period.bounds(zone)
        if now < start:
            raise Refusal("period_not_begun", f"{period} has not begun", remedy="settle it once it is billed")
        settlement = settle(
            operator,
            period,
            facts.operator[-1].currency,
            settlement_base(await book.documents(period=period)),
            in_force_at(facts.shares, end - timedelta(hours=1), zone),
            await book.settlements(period),
        )
        if settlement is not None:
            await book.add_settlement(settlement, now)
            entry = settlement_entry(settlement, now)
            if entry is not None:
                await book.post([entry])
    return settlement
