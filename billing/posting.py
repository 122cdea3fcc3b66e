"""Posting: what an issued document and a settlement do to the accounts.

invoice        receivable(customer) debit gross     revenue credit net, vat credit tax
credit note    the same, signs turned
settlement     share_expense debit                  payable(party) credit, for every party but the operator
"""

from __future__ import annotations

from datetime import datetime

from billing.document import ISSUED, Document
from billing.journal import Entry, Posting
from billing.settlement import Settlement


def document_entry(document: Document, at: datetime) -> Entry:
    """The entry for an issued document; postings of 0 are left out."""
    assert document.state == ISSUED, document.id
    sign, currency = document.sign, document.currency
    postings = (
        Posting("receivable", document.customer, currency, sign * document.gross),
        Posting("revenue", None, currency, -sign * document.net),
        Posting("vat", None, currency, -sign * document.tax),
    )
    return Entry(
        posted_at=at,
        period=document.period,
        kind=document.kind,
        postings=tuple(posting for posting in postings if posting.amount),
        document=document.id,
    )


def settlement_entry(settlement: Settlement, at: datetime) -> Entry | None:
    """The entry for what a settlement makes due to parties; None where only the operator's own rest moved."""
    currency = settlement.currency
    *parties, _rest = settlement.shares
    due = [(share.party, share.due) for share in parties]
    payables = tuple(Posting("payable", party, currency, -amount) for party, amount in due if amount)
    if not payables:
        return None
    expense = sum(amount for _, amount in due)
    postings = (Posting("share_expense", None, currency, expense), *payables) if expense else payables
    return Entry(
        posted_at=at,
        period=settlement.period,
        kind="settlement",
        postings=postings,
        settlement=settlement.id,
    )
