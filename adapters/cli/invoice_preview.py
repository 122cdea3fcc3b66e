"""`tally invoice preview`: what a customer would be asked for if the month were closed now; nothing is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any

import typer

from adapters.cli.document_text import document_table
from adapters.cli.framework import Context, Result, command
from adapters.cli.options import OperatorOption, read_period
from adapters.cli.wiring import take_what_waits
from adapters.data_folder import DataFolder, now
from adapters.previewing import invoice_preview

_WHOLE_MONTH = ("fee", "floor")


def register(group: typer.Typer) -> None:
    """Adds `preview` to the commands of `tally invoice`."""

    @command(group, "preview", path="invoice preview", example="tally invoice preview --customer acme")
    async def preview(
        context: Context,
        customer: Annotated[str, typer.Option("--customer", metavar="C", help="Whose bill.")],
        period: Annotated[
            str | None,
            typer.Option(
                "--period", metavar="P", help="A calendar month: 2026-10. Default: the running one."
            ),
        ] = None,
        until: Annotated[
            str | None,
            typer.Option(
                "--until", metavar="T", help="Only usage of the whole hours up to this time or day."
            ),
        ] = None,
        operator: OperatorOption = None,
    ) -> Result:
        """A month's bill so far, less what issued documents asked for. Nothing is kept."""
        month = read_period(period)
        async with context.database() as database:
            await take_what_waits(DataFolder(context.data), database)
            document = await invoice_preview(
                database, operator=operator, customer=customer, period=month, until=until, now=now()
            )
        return Result(document, preview_text(document))


def preview_text(document: Mapping[str, Any]) -> list[Any]:
    """The preview for a person: which month, the document as a table, and what its figures leave open."""
    kind = "a credit note" if document["sign"] < 0 else "an invoice"
    head = f"preview: {kind} for {document['customer_name']} · {document['period']}"
    said: list[Any] = [head]
    if document["until"] is not None:
        said.append(f"usage of whole hours, before {document['until']}")
    nothing = not document["lines"]
    said.append("nothing to ask for" if nothing else document_table(document))
    return [*said, *_notes(document)]


def _notes(document: Mapping[str, Any]) -> Iterator[str]:
    currency = document["currency"]
    if document["lines"] and not Decimal(document["net"]):
        yield f"these lines come to 0 {currency}: a close would make no document of them"
    if document["supplements"] or document["corrects"]:
        yield (
            f"the month's bill so far is {document['bill_net']} {currency} net, of which {document['issued_net']} is on"
            " issued documents"
        )
    parts = [part["part"] for part in document["charges"]] + [line["meter"] for line in document["lines"]]
    if any(part in _WHOLE_MONTH for part in parts):
        yield "fees, commitments and minimums are those of the whole month"
    for each in document["unpriced"]:
        yield (
            f"no price: {each['tokens']:,} of {each['meter']} of {each['model']} in region {each['region']}, from"
            f" {each['first_hour']}: {each['why']}"
        )
    if document["unpriced"]:
        yield "what has no price is not in these figures, and a close would be refused"
    for each in document["warnings"]:
        yield f"warning: {each['what']} ({each['remedy']})"
