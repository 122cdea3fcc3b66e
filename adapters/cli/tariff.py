"""`tally tariff …`: the pricing language and what prices come to. All subcommands but `schema` are modules of their own."""

from __future__ import annotations

import json

import typer

from adapters.cli import tariff_sheet, tariff_show, tariff_simulate
from adapters.cli.framework import Context, Result, command
from adapters.site_files.json_schema import site_file_schema


def register(app: typer.Typer) -> None:
    tariff = typer.Typer(no_args_is_help=True, help="Prices: their language, and what they come to.")
    app.add_typer(tariff, name="tariff")

    @command(tariff, "schema", path="tariff schema", example="tally tariff schema")
    def schema(context: Context) -> Result:  # noqa: ARG001 - what every command takes
        """Print the JSON Schema of site files, for editors to check them by."""
        document = site_file_schema()
        return Result(document, json.dumps(document, ensure_ascii=False, indent=2))

    tariff_show.register(tariff)
    tariff_sheet.register(tariff)
    tariff_simulate.register(tariff)
