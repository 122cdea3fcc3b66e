"""Rules of the pricing language between documents: what a tariff or contract needs of its operator and of its own dates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adapters.site_files.reading import SiteDocument
from adapters.site_files.rules import too_fine
from adapters.site_files.versions import Placed
from metering.refusal import Fault


def check_amounts(document: SiteDocument, operator: Mapping[str, str], faults: list[Fault]) -> None:
    """A contract's amounts are in its operator's currency, and no finer."""
    body, currency = document.body, operator.get("currency")
    fees: Sequence[Mapping[str, str]] = body.get("fees", ())
    stated = [("commitment", body.get("commitment"), document.place("commitment"))]
    stated += [
        (f"fees[{at + 1}].amount", fee.get("amount"), document.place("fees", at, "amount"))
        for at, fee in enumerate(fees)
    ]
    for shown, amount, where in stated:
        said = None if amount is None else too_fine(amount, currency)
        if said is not None:
            what, remedy = said
            faults.append(Fault(f"{shown}: {what}", where, remedy))


def check_once_fees(placed: Sequence[Placed], faults: list[Fault]) -> None:
    """A fee that is due once is due in the month in which its version begins, so that version has a day."""
    for each in placed:
        if each.version.valid_from is not None:
            continue
        for at, fee in enumerate(each.version.body.get("fees", ())):
            if fee.get("every") == "once":
                what = f"fees[{at + 1}]: {fee['name']} is due once, when the contract begins, and this one doesn't say when"
                remedy = "add `valid_from: …`, or let the fee be due every month"
                faults.append(Fault(what, each.document.place("fees", at), remedy))
