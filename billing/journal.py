"""The journal: double entry in whole minor units. Debit is positive, credit negative; an entry sums to zero.

Entries are only ever added; a mistake is taken back by an entry that `reverses` it. That an entry balances
per currency is asserted where it is made, and enforced again by the database (a deferred trigger), because
a journal that does not balance can't be told apart from one that was tampered with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from billing.period import Period

ACCOUNTS = ("receivable", "revenue", "vat", "share_expense", "payable")
"""`receivable` is per customer, `payable` per party (the subject of the posting); the others have no
subject.
"""


@dataclass(frozen=True, slots=True)
class Posting:
    """One side of an entry: `amount` in minor units of `currency`, debit positive, credit negative."""

    account: str
    subject: str | None
    currency: str
    amount: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What one business fact did to the accounts. `document` or `settlement` is the id of what was posted."""

    posted_at: datetime
    period: Period
    kind: str
    postings: tuple[Posting, ...]
    document: str | None = None
    settlement: str | None = None
    reverses: int | None = None

    def __post_init__(self) -> None:
        assert self.posted_at.tzinfo is not None, "instants are aware"
        assert not imbalances(self.postings), (
            f"the entry for {self.document or self.settlement} does not balance"
        )
        assert all(posting.account in ACCOUNTS for posting in self.postings)


def imbalances(postings: Iterable[Posting]) -> dict[str, int]:
    """Per currency, debits minus credits, where that is not zero."""
    sums: Counter[str] = Counter()
    for posting in postings:
        sums[posting.currency] += posting.amount
    return {currency: amount for currency, amount in sums.items() if amount}


class Balance(NamedTuple):
    """One account's sums in one currency, minor units; `balance` = debit − credit."""

    account: str
    currency: str
    debit: int
    credit: int

    @property
    def balance(self) -> int:
        return self.debit - self.credit
