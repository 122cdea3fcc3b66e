"""`tally tariff show`: the prices that hold at an instant, and where each stands."""

from __future__ import annotations

from typing import Annotated

import typer

from adapters.cli.framework import Context, Result, command
from adapters.cli.options import CustomerOption, OperatorOption
from adapters.cli.tables import printable
from adapters.data_folder import now
from adapters.prices import tariff_show
from billing.prices_asked import Question
from reports.prices import price_text


def register(group: typer.Typer) -> None:
    """Adds `show` to the commands of `tally tariff`."""

    @command(
        group,
        "show",
        path="tariff show",
        example="tally tariff show vilnius --at 2026-10-25T03:30+03:00 --model qwen3-32b",
    )
    async def show(
        context: Context,
        tariff: Annotated[str, typer.Argument(metavar="ID", help="A tariff.")],
        at: Annotated[
            str | None,
            typer.Option(
                metavar="T",
                help="When: a time with its offset, or a day or time of the tariff's zone. Default: now.",
            ),
        ] = None,
        model: Annotated[
            str | None, typer.Option(metavar="M", help="One model. Default: every price row.")
        ] = None,
        region: Annotated[
            str | None, typer.Option(metavar="R", help="One region. Default: those of the nodes.")
        ] = None,
        customer: CustomerOption = None,
        operator: OperatorOption = None,
    ) -> Result:
        """Print the prices that hold at a time, and until when."""
        moment = now().replace(microsecond=0)
        question = Question(tariff, moment, model, region, customer)
        async with context.database() as database:
            document = await tariff_show(database, operator, question, at, moment)
        return Result(document, [printable(line) for line in price_text(document)])
