"""Usage = rated = invoiced, in tokens by meter: the second half of reconciliation. Pure.

What was rated at a period's last close is compared with what its usage rates to now, by the facts in force now. Where
batches brought usage of the period since (it still ran, they were late, a file was imported or taken back) and what
changed is no more than they brought, it is not billed yet: the next close does. Any other change is a difference: a
tariff was superseded, or somebody changed usage or the close behind our back. What stands on issued documents is shown
beside it: drafts, and differences too small to be sent, are rated and not invoiced yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from billing.document import ISSUED, Document
from billing.line import PACKAGE_UNIT, TOKEN_METERS, Line, LineKey
from billing.period import Period

_OF_PROMPTS, _OF_COMPLETIONS = TOKEN_METERS[:2], TOKEN_METERS[2:]


@dataclass(frozen=True, slots=True)
class Arrived:
    """Tokens that batches brought since a close: (taken back, at most 0; added), of prompts and of completions."""

    prompt: tuple[int, int] = (0, 0)
    completion: tuple[int, int] = (0, 0)

    def explains(self, changes: Mapping[str, tuple[int, int]]) -> bool:
        """Whether changes of meters, (before, now), are no more than what arrived."""
        for (taken, added), meters in ((self.prompt, _OF_PROMPTS), (self.completion, _OF_COMPLETIONS)):
            moved = [now - before for meter, (before, now) in changes.items() if meter in meters]
            if not all(taken <= tokens <= added for tokens in (*moved, sum(moved))):
                return False
        return True


@dataclass(frozen=True, slots=True)
class RatedPeriod:
    """One operator's period: tokens by meter at the last close (None: never closed), as rated now, and invoiced."""

    operator: str
    period: Period
    closed_at: datetime | None
    at_close: Mapping[str, int] | None
    now: Mapping[str, int]
    invoiced: Mapping[str, int]
    arrived: Arrived = Arrived()

    @property
    def rated(self) -> Mapping[str, int]:
        """What the ledger says was rated; before the first close, what would be."""
        return self.now if self.at_close is None else self.at_close

    @property
    def differences(self) -> dict[str, tuple[int, int]]:
        """Meters of a closed period that changed without usage that explains it: (rated at the close, now)."""
        return {} if self.arrived.explains(self._changes) else self._changes

    @property
    def not_billed_yet(self) -> dict[str, tuple[int, int]]:
        """Meters of a closed period that changed by usage that came since: (rated at the close, now)."""
        return self._changes if self.arrived.explains(self._changes) else {}

    @property
    def _changes(self) -> dict[str, tuple[int, int]]:
        if self.at_close is None:
            return {}
        return {
            meter: (self.at_close.get(meter, 0), self.now.get(meter, 0))
            for meter in TOKEN_METERS
            if self.at_close.get(meter, 0) != self.now.get(meter, 0)
        }


def invoiced_tokens(
    documents: Iterable[Document], rated: Mapping[str, Sequence[Line]] | None = None
) -> dict[str, int]:
    """Tokens by meter that the issued ones ask for: credit notes take back what they name.

    `rated`: the lines of each customer as of the last close. A package asks for all tokens that it holds, also for those
    that came after it was asked for, which no line names.
    """
    tokens = dict.fromkeys(TOKEN_METERS, 0)
    packages: Counter[tuple[str, LineKey]] = Counter()
    named: Counter[tuple[str, LineKey]] = Counter()
    for document in documents:
        if document.state != ISSUED:
            continue
        for line in (entry.line for entry in document.lines):
            if line.meter in tokens:
                tokens[line.meter] += document.sign * line.tokens
            if line.unit == PACKAGE_UNIT:
                packages[document.customer, line.key] += document.sign * line.quantity
                named[document.customer, line.key] += document.sign * line.tokens
    for customer in {customer for customer, _ in packages}:
        for line in (rated or {}).get(customer, ()):
            key = (customer, line.key)
            if line.meter in tokens and line.unit == PACKAGE_UNIT and packages[key] == line.quantity:
                tokens[line.meter] += line.tokens - named[key]
    return tokens


def summed(each: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Tokens by meter over several periods."""
    total: Counter[str] = Counter()
    for tokens in each:
        total.update(tokens)
    return {meter: total[meter] for meter in TOKEN_METERS if meter in total}
