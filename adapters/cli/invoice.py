"""`tally invoice list|show|explain|issue|credit|render`; `preview` is `invoice_preview`."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer

from adapters import answers, rendering
from adapters.cli import invoice_preview
from adapters.cli.document_text import document_text
from adapters.cli.files import writing
from adapters.cli.framework import Context, Result, command, table
from adapters.cli.options import CustomerOption, OperatorOption, PeriodOption, about, read_period
from adapters.cli.progress import progress_bar
from adapters.cli.wiring import make_books
from adapters.data_folder import DataFolder, now
from adapters.explaining import explained
from billing.correct import credit_invoice
from billing.document import Document, to_json
from billing.issue import issue_documents, issue_period
from billing.money import parse_amount
from metering.refusal import Refusal
from reports.explain_text import explain_text

SHOWN = (
    "number",
    "id",
    "kind",
    "state",
    "customer",
    "period",
    "net",
    "tax",
    "gross",
    "currency",
    "issue_date",
    "due_date",
)
FIGURES = ("net", "tax", "gross")
ReferenceArgument = Annotated[str, typer.Argument(metavar="ID", help="An id or a number.")]
IssueOption = Annotated[bool, typer.Option("--issue", help="Issue it at once.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Invoices and credit notes.")
    app.add_typer(group, name="invoice")

    @command(group, "list", path="invoice list", example="tally invoice list --period 2026-10")
    async def list_(
        context: Context,
        period: PeriodOption = None,
        customer: CustomerOption = None,
        operator: OperatorOption = None,
        state: Annotated[str | None, typer.Option(metavar="S", help="draft or issued.")] = None,
    ) -> Result:
        """List documents, oldest first."""
        async with context.database() as database:
            found = await answers.invoices(
                database, operator=operator, period=read_period(period), customer=customer, state=state
            )
        return _listed([answers.short(document) for document in found])

    @command(group, "show", path="invoice show", example="tally invoice show acme.2026-10.1")
    async def show(context: Context, reference: ReferenceArgument, operator: OperatorOption = None) -> Result:
        """One document with its lines."""
        async with context.database() as database:
            document = to_json(await answers.find_document(database, reference, operator))
        return Result(document, document_text(document))

    invoice_preview.register(group)

    @command(group, "explain", path="invoice explain", example="tally invoice explain acme.2026-10.1")
    async def explain_(
        context: Context,
        reference: ReferenceArgument,
        line: Annotated[str | None, typer.Option("--line", metavar="N", help="Only this line.")] = None,
        operator: OperatorOption = None,
    ) -> Result:
        """Each step from tokens to cents, and which file, version and row a price came from."""
        async with context.database() as database:
            document, explanation = await explained(database, reference, operator, line)
        return Result(explanation, explain_text(document, explanation["lines"]))

    @command(group, "issue", path="invoice issue", example="tally invoice issue --period 2026-10")
    async def issue(
        context: Context,
        references: Annotated[list[str] | None, typer.Argument(metavar="ID…", help="Drafts.")] = None,
        period: PeriodOption = None,
        operator: OperatorOption = None,
    ) -> Result:
        """Issue drafts: each gets its number and its journal entry, and never changes again. Twice is once."""
        if bool(references) == (period is not None):
            raise Refusal(
                "which_documents", "name drafts, or a period", where="ID…, --period", remedy="one of the two"
            )
        month = read_period(period)
        issued: list[Document] = []
        async with context.database() as database:
            books = make_books(DataFolder(context.data), database)
            if month is not None:
                for owner in await answers.named_operators(database, operator):
                    issued += await issue_period(books, owner, month, now())
            else:
                owners: dict[str, list[str]] = {}
                for reference in references or []:
                    found = await answers.find_document(database, reference, operator)
                    owners.setdefault(found.operator, []).append(found.id)
                for owner, ids in owners.items():
                    issued += await issue_documents(books, owner, ids, now())
        return _listed([answers.short(document) for document in issued])

    @command(
        group,
        "credit",
        path="invoice credit",
        example='tally invoice credit acme.2026-10.1 --net 1.00 --reason "goodwill for an outage"',
    )
    async def credit(
        context: Context,
        reference: ReferenceArgument,
        reason: Annotated[str, typer.Option(help="Why; printed on the credit note.")],
        net: Annotated[str | None, typer.Option(metavar="N", help="How much, before VAT.")] = None,
        full: Annotated[bool, typer.Option("--full", help="All of it.")] = False,
        reissue: Annotated[
            bool, typer.Option("--reissue", help="With --full: the next close bills it again, corrected.")
        ] = False,
        issue: IssueOption = False,
        operator: OperatorOption = None,
    ) -> Result:
        """Credit an issued invoice: record the adjustment and draft its credit note at once."""
        if (net is None) != full or (reissue and not full):
            raise Refusal(
                "how_much",
                "say how much to credit",
                where="--net, --full",
                remedy="--net N, or --full [--reissue]",
            )
        async with context.database() as database:
            found = await answers.find_document(database, reference, operator)
            with about("--net"):
                minor = None if net is None else parse_amount(net, found.currency)
            note = await credit_invoice(
                make_books(DataFolder(context.data), database),
                found.operator,
                found.id,
                now(),
                net=minor,
                reissue=reissue,
                reason=reason,
                by="cli",
                issue=issue,
            )
        document = to_json(note)
        return Result(document, document_text(document))

    @command(
        group,
        "render",
        path="invoice render",
        example="tally invoice render --period 2026-10 --all --out invoices.zip",
    )
    async def render(
        context: Context,
        reference: Annotated[str | None, typer.Argument(metavar="ID", help="An id or a number.")] = None,
        out: Annotated[Path | None, typer.Option(metavar="FILE|DIR|ZIP", help="Where to write.")] = None,
        format: Annotated[str, typer.Option(metavar="F", help="pdf.")] = "pdf",
        period: PeriodOption = None,
        all_: Annotated[bool, typer.Option("--all", help="Every document of the period.")] = False,
        operator: OperatorOption = None,
    ) -> Result:
        """Write documents as files: one, or all of a period into a folder or a .zip."""
        if out is None:
            raise Refusal(
                "no_out",
                "say where to write",
                where="--out",
                remedy="--out FILE, or with --all a folder or .zip",
            )
        if (reference is not None) == (all_ and period is not None):
            raise Refusal(
                "which_documents", "name a document, or --period P --all", where="ID, --period, --all"
            )
        async with context.database() as database:
            if reference is not None:
                document = await answers.find_document(database, reference, operator)
                found = [await answers.with_facts(database, document)]
            else:
                found = await answers.found_documents(database, operator=operator, period=read_period(period))
        written: list[dict[str, str]] = []
        with progress_bar(context.stderr) as told:
            for number, each in enumerate(found, start=1):
                written.append(_write(each, format, out, alone=reference is not None, first=number == 1))
                told("rendering", number, len(found))
        return Result({"files": written}, [f"{file['path']}  {file['sha256']}" for file in written])


def _write(found: answers.Found, format: str, out: Path, *, alone: bool, first: bool) -> dict[str, str]:
    content = rendering.render(found, format)
    name = rendering.file_name(found.document, format)
    with writing(out):
        if alone:
            out.write_bytes(content)
            path = str(out)
        elif out.suffix == ".zip":
            # The first one makes the file anew: an older .zip of that name is not added to.
            with zipfile.ZipFile(out, "w" if first else "a", zipfile.ZIP_DEFLATED) as packed:
                packed.writestr(name, content)
            path = f"{out}/{name}"
        else:
            out.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)
            path = str(out / name)
    return {"id": found.document.id, "path": path, "format": format, "sha256": rendering.digest(content)}


def _listed(rows: list[dict[str, Any]]) -> Result:
    shown = table(None, SHOWN, [[row[column] for column in SHOWN] for row in rows], right=FIGURES)
    return Result({"invoices": rows}, shown)
