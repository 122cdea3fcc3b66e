"""What every `tally` command shares: `--data`, `--json`, exit codes, and how results and failures are printed.

A command is a function that takes a `Context` first and returns a `Result`; `command()` registers it and adds the two
shared options, so that no command can forget them. Exit codes (docs/commands.md): 0 done, 1 refused, 2 usage, 3 a check
found a difference, 4 something that Tallygrid depends on is down, 70 a bug of ours, 130 interrupted.

With `--json` stdout holds exactly one JSON document, also on failure; everything else goes to stderr.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from adapters.cli.interrupted import InterruptedInWordsError, remedy_of
from adapters.cli.tables import printable as printable
from adapters.cli.tables import table as table
from adapters.cli.tables import width
from metering.refusal import Fault, Refusal, Unavailable

if TYPE_CHECKING:
    from adapters.postgres.database import Database

REFUSED, USAGE, DIFFERENCE, DOWN, BUG, INTERRUPTED = 1, 2, 3, 4, 70, 130

# The examples shown in each command's help, by command path: a test runs every one of them.
EXAMPLES: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Result:
    """What a command made: the JSON document, the same for people, and the exit code (0, or 3 for a difference).

    A server has no document: the line that it printed when it was ready is the one on stdout.
    """

    document: Mapping[str, object] | None
    text: str | Table | Sequence[str | Table] = ""
    exit_code: int = 0


@dataclass(slots=True)
class Context:
    """Where a command works: the data folder, whether it speaks JSON, and which command it is (`period close`)."""

    data: Path
    json: bool
    path: str = ""
    stderr: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        # Imported here: a help text, a usage error and `--version` shall not wait for SQLAlchemy.
        from adapters.cli.guard import guard
        from adapters.cli.no_database import has_cluster, ledger_elsewhere
        from adapters.postgres.open import open_database

        elsewhere = ledger_elsewhere(self.path, self.data, os.environ)
        if elsewhere is not None and not has_cluster(self.data):
            raise elsewhere
        async with open_database(self.data, os.environ) as database:
            if elsewhere is not None and not await database.operators():
                raise elsewhere
            warning = await guard(self.path, self.data, database)
            if warning is not None:
                self.say(f"warning: {warning}")
            yield database
            if database.read_only is None:
                await self.sign(database)

    async def sign(self, database: Database) -> None:
        """Signs the logs whose keys are here over what is committed; a failure is said, and fails no command."""
        from adapters.cli.signing import sign_logs, unsigned_text

        try:
            texts = unsigned_text(await sign_logs(self.data, database))
        except (Refusal, Unavailable) as problem:
            texts = [f"the logs are not signed: {problem.what}"]
        for text in texts:
            self.say(f"warning: {text}")

    def say(self, text: str) -> None:
        """A line for the person who watches; never on stdout."""
        self.stderr.print(text, markup=False, soft_wrap=True)


def instant_text(moment: datetime) -> str:
    """An instant as JSON and tables write it: RFC 3339 in UTC, `2026-10-05T08:00:00Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 batch`, `1,234 batches`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def default_data() -> Path:
    """`TALLY_DATA`, else `${XDG_DATA_HOME:-~/.local/share}/tallygrid`."""
    named = os.environ.get("TALLY_DATA")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "tallygrid"


DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="The data folder: embedded PostgreSQL, spool, archive, keys. Default: $TALLY_DATA, "
        "else ~/.local/share/tallygrid.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout.")]

Handler = Callable[..., Result | Awaitable[Result]]


def command(
    app: typer.Typer,
    name: str | None,
    *,
    path: str,
    example: str,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Callable[[Handler], Handler]:
    """Registers a command as `path` (for instance `period close`), with an example that its help shows and a test runs.

    Without a `name` it is what the group `app` itself does where no command of it is named. `loop_factory` makes the event
    loop that it runs on, where asyncio's own will not do.
    """
    EXAMPLES[path] = example

    def register(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def run(
            *args: Any, data: Path | None, json: bool, within: typer.Context | None = None, **kwargs: Any
        ) -> None:
            if within is not None and within.invoked_subcommand is not None:
                return
            _check_texts(kwargs)
            context = Context(data=(data or default_data()).absolute(), json=json, path=path)
            made = handler(context, *args, **kwargs)
            if inspect.isawaitable(made):
                with asyncio.Runner(loop_factory=loop_factory) as runner:
                    result = runner.run(_awaited(made))
            else:
                result = made
            assert isinstance(result, Result)
            _print(result, json)
            raise typer.Exit(result.exit_code)

        own = list(inspect.signature(handler, eval_str=True).parameters.values())[1:]
        keyword = inspect.Parameter.KEYWORD_ONLY
        shared = [
            inspect.Parameter("data", keyword, default=None, annotation=DataOption),
            inspect.Parameter("json", keyword, default=False, annotation=JsonOption),
        ]
        if name is None:
            shared.append(inspect.Parameter("within", keyword, annotation=typer.Context))
        run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]  # how typer reads options
        run.__annotations__ = {p.name: p.annotation for p in (*own, *shared)}
        del run.__wrapped__  # else typer reads the handler's own signature
        epilog = f"Example:  {example}"
        if name is None:
            app.callback(invoke_without_command=True, epilog=epilog)(run)
        else:
            # A short help of one's own is wrapped in lists of commands; one that typer makes of the help is cut off.
            app.command(name, epilog=epilog, short_help=_first_sentence(handler.__doc__))(run)
        return handler

    return register


def _first_sentence(help_: str | None) -> str:
    """What lists of commands say of one: `Write a report: by day, or by model.`"""
    paragraph = inspect.cleandoc(help_ or "").partition("\n\n")[0]
    sentence, end, _ = " ".join(paragraph.split()).partition(". ")
    return sentence + end.strip()


def _check_texts(given: Mapping[str, Any]) -> None:
    """Refuses what no command can keep: a reason that says nothing (`no_reason`), bytes that are no text (`bad_text`)."""
    reason = given.get("reason")
    if reason is not None and not reason.strip():
        raise Refusal(
            "no_reason", "a reason that says nothing", where="--reason", remedy="say why: it is kept for good"
        )
    for name, value in given.items():
        try:
            if isinstance(value, str):
                value.encode()
        except UnicodeEncodeError:
            what = f"{printable(value)} is not UTF-8"
            raise Refusal("bad_text", what, where=name, remedy="write it in UTF-8") from None


async def _awaited(made: Awaitable[Result]) -> Result:
    return await made


def _print(result: Result, as_json: bool) -> None:
    if as_json:
        if result.document is not None:
            sys.stdout.write(json.dumps(result.document, ensure_ascii=False) + "\n")
        return
    parts = [result.text] if isinstance(result.text, str | Table) else list(result.text)
    if parts == [""]:
        return
    for part in parts:
        if isinstance(part, str):
            sys.stdout.write(part + "\n")
        else:
            Console(highlight=False, width=width(part)).print(part)
    sys.stdout.flush()


def run(app: typer.Typer, argv: Sequence[str]) -> int:
    """Runs `tally` with these arguments and returns its exit code; every failure is printed, none as a traceback."""
    as_json = "--json" in argv
    try:
        outcome = app(args=list(argv), prog_name="tally", standalone_mode=False)
        code = outcome if isinstance(outcome, int) else 0
        return (
            _interrupted(as_json, argv) if code == INTERRUPTED else code
        )  # typer makes an exit code of Ctrl-C
    except typer.Exit as left:
        return left.exit_code
    except Refusal as refusal:
        return _fail(
            as_json,
            REFUSED,
            refusal.code,
            refusal.what,
            refusal.where,
            refusal.remedy,
            refusal.faults,
            refusal.extra,
        )
    except Unavailable as down:
        return _fail(as_json, DOWN, down.code, down.what, down.where, down.remedy)
    except typer.TyperException as usage:
        context = getattr(usage, "ctx", None)
        where = context.command_path if context is not None else "tally"
        what = usage.format_message() or "no command"
        return _fail(as_json, USAGE, "usage", what, where, f"see `{where} --help`")
    except (typer.Abort, KeyboardInterrupt, asyncio.CancelledError):
        return _interrupted(as_json, argv)
    except InterruptedInWordsError as stopped:
        what = f"stopped by the keyboard; {stopped.what}"
        return _fail(as_json, INTERRUPTED, "interrupted", what, stopped.where, stopped.remedy)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - the reader of our output has gone; python flushes at exit
        return 0
    except Exception as bug:
        if os.environ.get("TALLY_TRACEBACK"):
            traceback.print_exc()
        what = f"{type(bug).__name__}: {bug}"
        return _fail(
            as_json, BUG, "bug", what, "", "this is a bug in Tallygrid; TALLY_TRACEBACK=1 shows where"
        )


def _interrupted(as_json: bool, argv: Sequence[str]) -> int:
    return _fail(as_json, INTERRUPTED, "interrupted", "stopped by the keyboard", "", remedy_of(argv))


def _fail(
    as_json: bool,
    exit_code: int,
    code: str,
    what: str,
    where: str,
    remedy: str,
    faults: Sequence[Fault] = (),
    extra: Mapping[str, object] | None = None,
) -> int:
    if as_json:
        listed = [{"what": f.what, "where": f.where, "remedy": f.remedy} for f in faults]
        error = {
            "code": code,
            "what": what,
            "where": where,
            "remedy": remedy,
            "faults": listed,
            **(extra or {}),
        }
        sys.stdout.write(json.dumps({"error": error}, ensure_ascii=False) + "\n")
        return exit_code
    lines = [f"error: {what}" + (f" [{where}]" if where else "")]
    lines += [f"  {fault}" for fault in faults]
    if remedy:
        lines.append(f"  {remedy}")
    sys.stderr.write("\n".join(lines) + "\n")
    return exit_code
