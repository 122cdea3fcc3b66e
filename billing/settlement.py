"""Settlement (arithmetic rule 11): what each party is due of an operator's net revenue of one usage period.

The base is the cumulative net of the period's issued documents. It is split by the share version of the
period's last hour, by largest remainder in minor units (ties: the party named first, the operator last),
the sign put back afterwards. What is due now is that split less what earlier settlements of the period paid
out, so settling again after a supplementary invoice or a credit note settles the difference, and parts
always sum to the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from billing.document import ISSUED, Document
from billing.money import format_minor, format_price, parse_amount, split
from billing.period import Period
from billing.site import Share


@dataclass(frozen=True, slots=True)
class PartyShare:
    """One party's part of the base: cumulative `amount`, what was settled before, and the difference now
    `due`.
    """

    party: str
    percent: Decimal
    amount: int
    previously_settled: int

    @property
    def due(self) -> int:
        return self.amount - self.previously_settled


@dataclass(frozen=True, slots=True)
class Settlement:
    """The nth settlement of an operator's period; the last share is the operator's own rest. Amounts in
    minor units.

    A party whose share ended keeps a row at 0 %, so that what it was paid before is taken back, not
    forgotten.
    """

    id: str
    operator: str
    period: Period
    number: int
    currency: str
    base: int
    shares: tuple[PartyShare, ...]
    share_version: str | None
    state: str = "made"
    documents: tuple[Mapping[str, Any], ...] = ()

    @property
    def previously_settled(self) -> int:
        return sum(share.previously_settled for share in self.shares)

    @property
    def due(self) -> int:
        return sum(share.due for share in self.shares)


def settlement_base(documents: Iterable[Document]) -> int:
    """Σ sign × net over issued documents: the revenue that is shared."""
    return sum(document.sign * document.net for document in documents if document.state == ISSUED)


def settle(
    operator: str,
    period: Period,
    currency: str,
    base: int,
    share: Share | None,
    earlier: Sequence[Settlement],
) -> Settlement | None:
    """The settlement that brings every party to its part of `base`; None when nobody is due anything.

    `share` is the version in force in the period's last hour (None: the operator keeps all of it),
    `earlier` the period's settlements so far, oldest first.
    """
    settled: Counter[str] = Counter()
    settled_rest = 0
    for settlement in earlier:
        # The last is the operator's rest by its place: by its name it could be taken for a party's.
        *of_parties, of_operator = settlement.shares
        for part in of_parties:
            settled[part.party] += part.due
        settled_rest += of_operator.due
    named = [(part.party, part.percent) for part in share.parties] if share else []
    listed = {party for party, _ in named}
    gone = [(party, Decimal(0)) for party in settled if party not in listed]
    parties = [*named, *gone]
    rest = Decimal(100) - sum((percent for _, percent in parties), Decimal(0))
    *amounts, kept = split(base, [*(percent for _, percent in parties), rest])
    shares = (
        *(
            PartyShare(party, percent, amount, settled[party])
            for (party, percent), amount in zip(parties, amounts, strict=True)
        ),
        PartyShare(operator, rest, kept, settled_rest),
    )
    assert sum(part.amount for part in shares) == base, "parts sum to the whole"
    if all(part.due == 0 for part in shares):
        return None
    number = 1 + max((settlement.number for settlement in earlier), default=0)
    return Settlement(
        id=f"{operator}.{period}.{number}",
        operator=operator,
        period=period,
        number=number,
        currency=currency,
        base=base,
        shares=shares,
        share_version=share.version if share else None,
    )


def settlement_json(settlement: Settlement) -> dict[str, Any]:
    """The document of `tally settlement show`."""
    currency = settlement.currency
    return {
        "id": settlement.id,
        "operator": settlement.operator,
        "period": str(settlement.period),
        "number": settlement.number,
        "currency": currency,
        "base": format_minor(settlement.base, currency),
        "shares": [
            {
                "party": share.party,
                "percent": format_price(share.percent),
                "amount": format_minor(share.amount, currency),
                "previously_settled": format_minor(share.previously_settled, currency),
                "due": format_minor(share.due, currency),
            }
            for share in settlement.shares
        ],
        "previously_settled": format_minor(settlement.previously_settled, currency),
        "due": format_minor(settlement.due, currency),
        "documents": [dict(document) for document in settlement.documents],
        "share_version": settlement.share_version,
        "state": settlement.state,
    }


def settlement_from_json(content: Mapping[str, Any]) -> Settlement:
    """The settlement that `settlement_json` wrote."""
    currency = content["currency"]
    return Settlement(
        id=content["id"],
        operator=content["operator"],
        period=Period.parse(content["period"]),
        number=content["number"],
        currency=currency,
        base=parse_amount(content["base"], currency),
        shares=tuple(
            PartyShare(
                party=share["party"],
                percent=Decimal(share["percent"]),
                amount=parse_amount(share["amount"], currency),
                previously_settled=parse_amount(share["previously_settled"], currency),
            )
            for share in content["shares"]
        ),
        share_version=content["share_version"],
        state=content["state"],
        documents=tuple(content["documents"]),
    )
