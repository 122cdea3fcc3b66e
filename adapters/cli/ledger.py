"""`tally settlement …`, `tally ledger trial-balance`: shares of the revenue, and the books."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from adapters import answers
from adapters.cli.framework import DIFFERENCE, Context, Result, command, table
from adapters.cli.options import OperatorOption, PeriodOption, about, read_period, read_time
from adapters.cli.wiring import make_books
from adapters.data_folder import DataFolder, now
from billing.period import Period
from billing.run_settlement import run_settlement
from billing.settlement import settlement_json


def register(app: typer.Typer) -> None:
    settlement = typer.Typer(no_args_is_help=True, help="Revenue shares of partners.")
    app.add_typer(settlement, name="settlement")

    @command(settlement, "run", path="settlement run", example="tally settlement run --period 2026-10")
    async def run(
        context: Context,
        period: Annotated[str, typer.Option("--period", metavar="P", help="A calendar month: 2026-10.")],
        operator: OperatorOption = None,
    ) -> Result:
        """Share the net of the period's issued documents, less what was settled before. Twice is once."""
        with about("--period"):
            month = Period.parse(period)
        made: list[dict[str, Any]] = []
        async with context.database() as database:
            for owner in await answers.named_operators(database, operator):
                found = await run_settlement(
                    make_books(DataFolder(context.data), database), owner, month, now()
                )
                if found is not None:
                    made.append(settlement_json(found))
        said: list[Any] = [line for row in made for line in _said(row)]
        return Result({"settlements": made}, said or [f"nothing is due for {period}"])

    @command(settlement, "list", path="settlement list", example="tally settlement list")
    async def list_(context: Context, period: PeriodOption = None, operator: OperatorOption = None) -> Result:
        """List settlements, oldest first."""
        async with context.database() as database:
            rows = await answers.settlements(database, operator=operator, period=read_period(period))
        columns = ("id", "operator", "period", "currency", "base", "previously_settled", "due", "state")
        shown = table(
            None,
            columns,
            [[row[c] for c in columns] for row in rows],
            right=("base", "previously_settled", "due"),
        )
        return Result({"settlements": rows}, shown)

    @command(
        settlement, "show", path="settlement show", example="tally settlement show telecentras.2026-10.1"
    )
    async def show(
        context: Context,
        id: Annotated[str, typer.Argument(metavar="ID", help="As `tally settlement list` shows it.")],
    ) -> Result:
        """One settlement: who gets what."""
        async with context.database() as database:
            row = await answers.settlement(database, id)
        return Result(row, _said(row))

    ledger = typer.Typer(no_args_is_help=True, help="The double-entry journal.")
    app.add_typer(ledger, name="ledger")

    @command(ledger, "trial-balance", path="ledger trial-balance", example="tally ledger trial-balance")
    async def trial_balance(
        context: Context,
        operator: OperatorOption = None,
        as_of: Annotated[
            str | None,
            typer.Option("--as-of", metavar="T", help="Only what was posted before. Default: now."),
        ] = None,
    ) -> Result:
        """Debits and credits of every account. Exit 3 if they do not balance."""
        async with context.database() as database:
            document = await answers.balances(database, operator, read_time(as_of, "--as-of"))
        columns = ("operator", "account", "currency", "debit", "credit", "balance")
        rows = [[row[c] for c in columns] for row in document["accounts"]]
        said = [
            table(None, columns, rows, right=("debit", "credit", "balance")),
            "balanced" if document["balanced"] else "NOT balanced",
        ]
        return Result(document, said, 0 if document["balanced"] else DIFFERENCE)


def _said(row: dict[str, Any]) -> list[Any]:
    columns = ("party", "percent", "amount", "previously_settled", "due")
    shares = table(
        None,
        columns,
        [[share[c] for c in columns] for share in row["shares"]],
        right=("percent", "amount", "previously_settled", "due"),
    )
    return [f"{row['id']}: {row['base']} {row['currency']} net is shared", shares]
