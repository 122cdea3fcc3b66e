"""`tally apply`, `check`, `get`: site files in, site files out."""

from __future__ import annotations

from typing import Annotated

import typer

from adapters.cli.framework import Context, Result, command
from adapters.data_folder import now
from adapters.postgres.site import site_reader, site_store
from adapters.site_files.apply import apply_site, check_site, summary
from adapters.site_files.reading import SiteFiles, read_files
from adapters.site_files.writing import get_documents, to_yaml

PathsArgument = Annotated[
    list[str], typer.Argument(metavar="PATH…", help="Files, folders (their *.yaml), or - for standard input.")
]


def register(app: typer.Typer) -> None:
    @command(app, "apply", path="apply", example="tally apply examples/vilnius")
    async def apply(context: Context, paths: PathsArgument) -> Result:
        """Declare what site files say: operators, nodes, customers, tariffs, contracts, parties, shares.

        All of it or none; applying the same again changes nothing.
        """
        files = _read(context, paths)
        async with context.database() as database, site_store(database) as store:
            applied = await apply_site(store, files, now())
        return Result(applied.to_json(), _said(applied.to_json()))

    @command(app, "check", path="check", example="tally check examples/vilnius")
    async def check(context: Context, paths: PathsArgument) -> Result:
        """Only validate site files, beside what is applied already; changes nothing."""
        files = _read(context, paths)
        async with context.database() as database, site_reader(database) as store:
            placed = await check_site(store, files, now())
        document = summary(placed).to_json()
        return Result(document, [*_said(document), "no fault found; nothing was changed"])

    @command(app, "get", path="get", example="tally get tariff vilnius")
    async def get(
        context: Context,
        kind: Annotated[
            str | None,
            typer.Argument(
                metavar="KIND",
                help="operator, node, customer, tariff, contract, party or share. Default: all.",
            ),
        ] = None,
        id: Annotated[
            str | None, typer.Argument(metavar="ID", help="One of them. Default: all of the kind.")
        ] = None,
    ) -> Result:
        """Print what is declared, as YAML that `tally apply` takes."""
        async with context.database() as database, site_reader(database) as store:
            documents = await get_documents(store, kind, id)
        return Result({"documents": documents}, to_yaml(documents).rstrip("\n"))


def _read(context: Context, paths: list[str]) -> SiteFiles:
    files = read_files(paths)
    for warning in files.warnings:
        context.say(f"warning: {warning}")
    return files


def _said(document: dict[str, list[str]]) -> list[str]:
    """A line for each version, as kubectl prints them."""
    return [
        f"{version} {state}" for state in ("created", "changed", "unchanged") for version in document[state]
    ]
