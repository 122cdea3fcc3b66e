"""A preview: what a customer would be asked for if a period were closed now, beyond the documents issued so far.

The bill is made as a close makes it (`rate`, `make_bill`, the difference to what is issued), over the usage that
there is yet. Fees, commitments and minimums are those of the whole month, and what no price covers is named
instead of refused. Nothing of a preview is stored: it has no number, and its id leads to no document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from billing.adjustment import Adjustment
from billing.bill import Bill, difference, make_bill
from billing.document import ISSUED, Document, to_json
from billing.draft import draw
from billing.facts import Facts
from billing.money import format_minor
from billing.past_end import PastEnd, past_end, past_end_json
from billing.period import Period
from billing.rating import rate
from billing.site import in_force
from billing.unpriced import Unpriced, unpriced_json

PREVIEW = "preview"
"""The `state` of a document that is shown and never kept."""


@dataclass(frozen=True, slots=True)
class Preview:
    """`document`: the next one as it would be drafted, without lines where nothing is to be asked for. `bill`: all that
    the customer owes for the period by what is known now; issued documents asked for a part of it. `past_end`: what of
    the usage came after its node or the customer had ended.
    """

    document: Document
    bill: Bill
    unpriced: tuple[Unpriced, ...]
    past_end: tuple[PastEnd, ...] = ()

    @property
    def issued_net(self) -> int:
        """What issued documents asked for before, in minor units."""
        return self.bill.net - self.document.sign * self.document.net


def preview(
    usage: pa.Table,
    facts: Facts,
    period: Period,
    customer: str,
    adjustments: Sequence[Adjustment],
    documents: Sequence[Document],
) -> Preview:
    """The preview of one declared customer. `usage` and `adjustments` may hold other customers' too, `documents` are
    all of that customer and period, oldest first; drafts among them count for nothing. `facts` hold the holidays of
    the period.

    Refuses `quantity_overflow`, `tax_case_not_supported` and `amount_too_large`, as a close does.
    """
    own_usage = of_customer(usage, customer)
    rated = rate(own_usage, facts, period)
    operator = in_force(facts.operator, period.last_day) or facts.operator[-1]
    versions = facts.customers[customer]
    buyer = in_force(versions, period.last_day) or versions[-1]
    own = [adjustment for adjustment in adjustments if adjustment.customer == customer]
    bill = make_bill(customer, period, operator.currency, rated.lines.get(customer, ()), facts, own)
    issued = [document for document in documents if document.state == ISSUED]
    document = draw(difference(bill, issued), period, issued, operator, buyer)
    return Preview(
        replace(document, id=f"{customer}.{period}.{PREVIEW}", state=PREVIEW),
        bill,
        rated.unpriced,
        past_end(own_usage, facts, period),
    )


def of_customer(usage: pa.Table, customer: str) -> pa.Table:
    """The rows of hourly usage that are one customer's."""
    return usage.filter(pc.equal(usage["customer"].cast(pa.string()), customer))


def preview_json(shown: Preview) -> dict[str, Any]:
    """D of docs/commands.md with its lines, and beside it `bill_net`, `issued_net`, `unpriced` and `warnings`."""
    currency = shown.bill.currency
    return {
        **to_json(shown.document),
        "bill_net": format_minor(shown.bill.net, currency),
        "issued_net": format_minor(shown.issued_net, currency),
        "unpriced": [unpriced_json(each) for each in shown.unpriced],
        "warnings": past_end_json(shown.past_end),
    }
