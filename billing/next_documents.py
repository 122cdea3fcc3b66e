"""Everybody's next document: a period's bills, each less what was issued, as drafts. Pure.

Whose bills there are: customers with usage and those under contract on a day of the period, as `rate` names them, for
fees and commitments ask for no usage; and those with adjustments or documents. Who is under contract, used nothing and
owes nothing has no bill, not one of zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from billing.adjustment import Adjustment
from billing.bill import make_bill
from billing.document import Document
from billing.draft import Waiting, next_document, under_an_id_of_its_own
from billing.facts import Facts
from billing.period import Period
from billing.rating import Rated
from billing.site import Customer, Operator, in_force
from metering.refusal import Fault, Refusal


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a close comes to: whose bills were made, the versions of tariffs and contracts that priced their lines,
    drafts, what waits, and whose bill is zero without a document.
    """

    customers: tuple[str, ...]
    tariffs: frozenset[str]
    contracts: frozenset[str]
    drafts: tuple[Document, ...]
    waiting: tuple[Waiting, ...]
    zero: tuple[str, ...]


def next_documents(
    facts: Facts,
    operator: Operator,
    period: Period,
    rated: Rated,
    used: Collection[str],
    adjustments: Sequence[Adjustment],
    documents: Sequence[Document],
    *,
    may_wait: bool,
) -> Outcome:
    """Every customer's next document. `used`: who has usage. Refusals are gathered, so that one close names them all."""
    adjusted: dict[str, list[Adjustment]] = defaultdict(list)
    for adjustment in adjustments:
        adjusted[adjustment.customer].append(adjustment)
    existing: dict[str, list[Document]] = defaultdict(list)
    replaced: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        (replaced if document.number is None else existing)[document.customer].append(document)
    drafts: list[Document] = []
    waiting: list[Waiting] = []
    zero: list[str] = []
    refused: list[Refusal] = []
    tariffs: set[str | None] = set()
    contracts: set[str | None] = set()
    customers = tuple(sorted({*rated.lines, *adjusted, *existing}))
    for slug in customers:
        bill = make_bill(slug, period, operator.currency, rated.lines.get(slug, ()), facts, adjusted[slug])
        tariffs.update(line.tariff_version for line in bill.lines)
        contracts.update(line.contract_version for line in bill.lines)
        try:
            customer = _customer(facts, slug, period)
            following = next_document(bill, existing[slug], operator, customer, may_wait=may_wait)
        except Refusal as refusal:
            refused.append(refusal)
            continue
        match following:
            case Document():
                drafts.append(under_an_id_of_its_own(following, replaced[slug]))
            case Waiting():
                waiting.append(following)
            case None if not existing[slug] and (slug in used or bill.lines or bill.parts):
                zero.append(slug)
    if refused:
        raise _gathered(refused)
    return Outcome(
        customers=customers,
        tariffs=frozenset(version for version in tariffs if version is not None),
        contracts=frozenset(version for version in contracts if version is not None),
        drafts=tuple(drafts),
        waiting=tuple(waiting),
        zero=tuple(zero),
    )


def _customer(facts: Facts, slug: str, period: Period) -> Customer:
    versions = facts.customers.get(slug)
    if not versions:
        raise Refusal("unknown_customer", f"customer {slug} is not declared", where=slug, remedy="apply it")
    return in_force(versions, period.last_day) or versions[-1]


def _gathered(refused: Sequence[Refusal]) -> Refusal:
    first = refused[0]
    more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
    faults = [Fault(each.what, each.where, each.remedy) for each in refused]
    return Refusal(first.code, first.what + more, where=first.where, remedy=first.remedy, faults=faults)
