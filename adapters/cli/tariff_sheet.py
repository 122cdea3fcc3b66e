"""`tally tariff sheet`: a tariff's public price sheet as a file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from adapters import rendering
from adapters.cli.files import check_writable, writing
from adapters.cli.framework import Context, Result, command
from adapters.cli.options import OperatorOption
from adapters.data_folder import now
from adapters.prices import SheetAsked, tariff_sheet
from reports.languages import SHEET_LANGUAGES


def register(group: typer.Typer) -> None:
    """Adds `sheet` to the commands of `tally tariff`."""

    @command(
        group,
        "sheet",
        path="tariff sheet",
        example="tally tariff sheet vilnius --language en --out prices.html",
    )
    async def sheet(
        context: Context,
        tariff: Annotated[str, typer.Argument(metavar="ID", help="A tariff.")],
        out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it.")],
        region: Annotated[
            str | None, typer.Option(metavar="R", help="One region. Default: a section for each.")
        ] = None,
        language: Annotated[
            str | None,
            typer.Option(metavar="L", help=f"{', '.join(SHEET_LANGUAGES)}. Default: the operator's."),
        ] = None,
        at: Annotated[
            str | None, typer.Option(metavar="DATE", help="The version of which day. Default: today.")
        ] = None,
        format: Annotated[
            str | None, typer.Option(metavar="F", help="html or pdf. Default: as FILE ends, else html.")
        ] = None,
        operator: OperatorOption = None,
    ) -> Result:
        """Write a tariff's public price sheet: what everybody pays.

        By region, model and window; what is agreed in contracts is not in it. A later version is named on stderr.
        """
        check_writable(out)
        chosen = format or ("pdf" if out.suffix.lower() == ".pdf" else "html")
        asked = SheetAsked(tariff, region, language, at, chosen)
        async with context.database() as database:
            content, told = await tariff_sheet(database, operator, asked, now())
        with writing(out):
            await asyncio.to_thread(out.write_bytes, content)
        following = told["next"]
        if following is not None:
            day = following["valid_from"]
            context.say(
                f"note: a later version, {following['tariff_version']}, holds from {day}: --at {day} writes its prices"
            )
        sha256 = rendering.digest(content)
        return Result({**told, "path": str(out), "sha256": sha256}, f"{out}  {sha256}")
