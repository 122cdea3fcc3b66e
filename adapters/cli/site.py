"""`tally apply`, `check`, `get`: site files in, site files out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from adapters.cli.framework import Context, Result, command, counted
from adapters.data_folder import now
from adapters.postgres.site import site_reader, site_store
from adapters.site_files.apply import Applied, apply_site, check_site, summary
from adapters.site_files.reading import read_files
from adapters.site_files.writing import get_documents, get_superseded, superseded_to_yaml, to_yaml
from metering.refusal import Fault, Refusal

PathsArgument = Annotated[
    list[str], typer.Argument(metavar="PATH…", help="Files, folders (their *.yaml), or - for standard input.")
]


def register(app: typer.Typer) -> None:
    @command(app, "apply", path="apply", example="tally apply examples/vilnius")
    async def apply(context: Context, paths: PathsArgument) -> Result:
        """Declare what site files say: operators, nodes, customers, tariffs, contracts, parties, shares.

        All of it or none; applying the same again changes nothing.
        """
        files = read_files(paths)
        with _warnings_of_what_is_refused(context):
            async with context.database() as database, site_store(database) as store:
                applied = await apply_site(store, files, now())
        _warn(context, applied.warnings)
        for each in applied.re_rates:
            again = f"tally period close {each.period} --operator {each.operator}"
            context.say(f"note: this changes what {each.period} comes to, which was closed: {again}")
        return Result(applied.to_json(), _said(applied))

    @command(app, "check", path="check", example="tally check examples/vilnius")
    async def check(context: Context, paths: PathsArgument) -> Result:
        """Only validate site files, beside what is applied already; changes nothing.

        Warnings name what is legal and odd: docs/tariff-check.md lists them.
        """
        files = read_files(paths)
        with _warnings_of_what_is_refused(context):
            async with context.database() as database, site_reader(database) as store:
                would = summary(await check_site(store, files, now()))
        _warn(context, would.warnings)
        for each in would.re_rates:
            context.say(
                f"note: applied, this would change what {each.period} of {each.operator} comes to, which was closed"
            )
        odd = f", {counted(len(would.warnings), 'warning')}" if would.warnings else ""
        return Result(would.to_json(), [*_said(would), f"no fault found{odd}; nothing was changed"])

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
        superseded: Annotated[
            bool,
            typer.Option("--superseded", help="Former versions, whose place others took; when, and why."),
        ] = False,
    ) -> Result:
        """Print what is declared, as YAML that `tally apply` takes."""
        async with context.database() as database, site_reader(database) as store:
            if superseded:
                former = await get_superseded(store, kind, id)
                return Result({"superseded": former}, superseded_to_yaml(former).rstrip("\n"))
            documents = await get_documents(store, kind, id)
        return Result({"documents": documents}, to_yaml(documents).rstrip("\n"))


def _warn(context: Context, warnings: Sequence[Fault]) -> None:
    """What is legal and odd, for the person who watches; scripts find it in the document."""
    for warning in warnings:
        context.say(f"warning: {warning}")


@contextmanager
def _warnings_of_what_is_refused(context: Context) -> Iterator[None]:
    """Files that are refused for some lines may be odd in others: both are mended in one go."""
    try:
        yield
    except Refusal as refused:
        warnings = refused.extra.get("warnings", [])
        assert isinstance(warnings, list)
        _warn(context, [Fault(**each) for each in warnings])
        raise


def _said(applied: Applied) -> list[str]:
    """A line for each version, as kubectl prints them."""
    states = {"created": applied.created, "changed": applied.changed, "unchanged": applied.unchanged}
    return [f"{version} {state}" for state, versions in states.items() for version in versions]
