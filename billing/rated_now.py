"""Usage = rated = invoiced, in tokens by meter: the second half of reconciliation. Pure.

What was rated at a period's last close is compared with what its usage rates to now, by the facts in force now. They
differ where usage was accepted since (late batches, amendments, imports), where a tariff was superseded, or where
somebody changed usage or the close behind our back; closing again settles all but the last. What stands on issued
documents is shown beside it: drafts, and differences too small to be sent, are rated and not invoiced yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from billing.document import ISSUED, Document
from billing.period import Period

TOKEN_METERS = ("input", "cached_input", "output", "reasoning")


@dataclass(frozen=True, slots=True)
class RatedPeriod:
    """One operator's period: tokens by meter at the last close (None: never closed), as rated now, and invoiced."""

    operator: str
    period: Period
    closed_at: datetime | None
    at_close: Mapping[str, int] | None
    now: Mapping[str, int]
    invoiced: Mapping[str, int]

    @property
    def rated(self) -> Mapping[str, int]:
        """What the ledger says was rated; before the first close, what would be."""
        return self.now if self.at_close is None else self.at_close

    @property
    def differences(self) -> dict[str, tuple[int, int]]:
        """Meters of a closed period whose usage now rates to something else: (rated at the close, now)."""
        if self.at_close is None:
            return {}
        return {
            meter: (self.at_close.get(meter, 0), self.now.get(meter, 0))
            for meter in TOKEN_METERS
            if self.at_close.get(meter, 0) != self.now.get(meter, 0)
        }


def invoiced_tokens(documents: Iterable[Document]) -> dict[str, int]:
    """Tokens by meter on the issued ones: credit notes take back what they name."""
    tokens = dict.fromkeys(TOKEN_METERS, 0)
    for document in documents:
        if document.state != ISSUED:
            continue
        for entry in document.lines:
            if entry.line.meter in tokens:
                tokens[entry.line.meter] += document.sign * entry.line.tokens
    return tokens


def summed(each: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Tokens by meter over several periods."""
    total: Counter[str] = Counter()
    for tokens in each:
        total.update(tokens)
    return {meter: total[meter] for meter in TOKEN_METERS if meter in total}
