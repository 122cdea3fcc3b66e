"""`tally log …`: the operators' logs: newest checkpoint, proofs, their check offline, and the key that signs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from adapters import answers
from adapters.cli.files import check_writable, writing
from adapters.cli.framework import DIFFERENCE, Context, Result, command
from adapters.cli.options import OperatorOption, about
from adapters.cli.wiring import archive_objects
from adapters.data_folder import DataFolder
from adapters.log_proving import Wanted, log_key, newest, prove
from adapters.postgres.database import INSTALLATION, Database
from billing.log import archive_name
from billing.log_proof import Checked, check_proof, checkpoint_line, read_proof, read_seen
from metering.durable import replace_file
from metering.note import parse_verifier
from metering.refusal import Refusal

_INSTALLATION = archive_name(INSTALLATION)
SeenOption = Annotated[
    str | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="A checkpoint seen earlier: a file with the note, or the line that an invoice shows, in quotes.",
    ),
]
LogOption = Annotated[
    str | None,
    typer.Option(
        "--operator",
        metavar="O",
        help=f"Whose log; {_INSTALLATION} for what belongs to no operator. Default: the only operator's.",
    ),
]


_SHOWN = 100  # characters of a value


def register(app: typer.Typer) -> None:
    log = typer.Typer(no_args_is_help=True, help="The append-only logs: checkpoints, proofs and their check.")
    app.add_typer(log, name="log")

    @command(log, "checkpoint", path="log checkpoint", example="tally log checkpoint")
    async def checkpoint(context: Context, operator: OperatorOption = None) -> Result:
        """The newest signed checkpoint of each log: what to keep, and to compare with later."""
        async with context.database() as database:
            await context.sign(database)
            if operator is None:
                operators = [*await database.operators(), INSTALLATION]
            else:
                operators = [await _named(database, operator)]
            rows = [row for each in operators if (row := await newest(database, each)) is not None]
        said = [row["checkpoint"] + ("(more waits to be signed)\n" if row["waiting"] else "") for row in rows]
        return Result({"checkpoints": rows}, said or ["nothing was ever signed"])

    @command(log, "key", path="log key", example="tally log key")
    async def key(context: Context, operator: LogOption = None) -> Result:
        """The key that checkpoints are checked with. Hand it on by another way than proofs: it is what --pin takes."""
        async with context.database() as database:
            name = await _named(database, operator)
        text = log_key(DataFolder(context.data).keys, name)
        return Result({"operator": archive_name(name), "key": text}, text)

    @command(
        log, "prove", path="log prove", example="tally log prove --document TLC-2026-000001 --out proof.json"
    )
    async def prove_(
        context: Context,
        out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the proof.")],
        batch: Annotated[
            str | None, typer.Option(metavar="HASH", help="An accepted batch, by its seal's hash.")
        ] = None,
        document: Annotated[
            str | None, typer.Option(metavar="NUMBER", help="An issued document, by number or id.")
        ] = None,
        leaf: Annotated[
            int | None,
            typer.Option(
                metavar="N", min=0, max=2**63 - 1, help="The leaf at this place of the log, from 0."
            ),
        ] = None,
        seen: SeenOption = None,
        operator: LogOption = None,
    ) -> Result:
        """Prove that something stands in the log, and that the log still begins with what was seen earlier."""
        if sum(each is not None for each in (batch, document, leaf)) != 1:
            raise Refusal(
                "which_leaf", "name one leaf", where="--batch, --document, --leaf", remedy="one of the three"
            )
        check_writable(out)
        folder = DataFolder(context.data)
        earlier = None if seen is None else read_seen(_text(seen))[0]
        async with context.database() as database:
            await context.sign(database)
            name = await _named(database, operator)
            proof = await prove(
                database,
                archive_objects(folder),
                name,
                Wanted(batch, document, leaf),
                key=log_key(folder.keys, name),
                seen=earlier,
            )
        with writing(out):
            replace_file(out.absolute(), (json.dumps(proof, ensure_ascii=False, indent=1) + "\n").encode())
        checked = check_proof(proof, pin=proof["key"])
        said = [
            f"wrote {out}; who gets it checks it with `tally log check {out.name} --pin KEY`",
            *_said(checked),
        ]
        return Result(_json(checked), said)

    @command(log, "check", path="log check", example="tally log check proof.json --pin log.key")
    def check(
        _context: Context,
        file: Annotated[Path, typer.Argument(metavar="FILE", help="As `tally log prove` wrote it.")],
        pin: Annotated[
            str | None,
            typer.Option(
                metavar="KEY", help="The log's verifier key, or a file with it, got from somebody you trust."
            ),
        ] = None,
        seen: SeenOption = None,
    ) -> Result:
        """Check a proof, offline, with no database. Exit 3 if anything differs, or no key says whose log it is."""
        try:
            proof = read_proof(file.read_bytes())
        except OSError as problem:
            raise Refusal(
                "no_file",
                f"{file} can't be read: {problem.strerror}",
                where="FILE",
                remedy="name what `tally log prove --out FILE` wrote",
            ) from None
        key = None if pin is None else _text(pin).strip()
        if key is not None:
            with about("--pin", "what `tally log key` prints, or a file with it"):
                parse_verifier(key)
        checked = check_proof(proof, pin=key, seen=None if seen is None else _text(seen))
        return Result(_json(checked), _said(checked), 0 if checked.proves else DIFFERENCE)


async def _named(database: Database, operator: str | None) -> str:
    """The operator whose log is meant; the installation by the name of its folder."""
    if operator in (INSTALLATION, _INSTALLATION):
        return INSTALLATION
    names = await answers.named_operators(database, operator)
    if len(names) != 1:
        raise Refusal(
            "which_operator",
            f"there are {len(names)} operators",
            where="--operator",
            remedy=f"name one with --operator, or {_INSTALLATION}",
        )
    return names[0]


def _text(given: str) -> str:
    """What a file of this name holds, or the text itself."""
    try:
        return Path(given).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return given


def _json(checked: Checked) -> dict[str, Any]:
    checkpoint = checked.checkpoint
    return {
        "ok": checked.proves,
        "pinned": checked.pinned,
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "index": checked.index,
        "leaf": checked.leaf.decode(),
        "content": checked.content,
        "batch": checked.batch,
        "seals": checked.seals,
        "failures": list(checked.failures),
    }


def _said(checked: Checked) -> list[str]:
    """The verdict first, then what it is about; the whole content stands in the JSON."""
    if checked.failures:
        verdict = [f"DIFFERS: {failure}" for failure in checked.failures]
    else:
        verdict = ["proved" if checked.pinned else "consistent, origin unproved: no key was pinned"]
    lines = [*verdict, f"leaf {checked.index} of {checkpoint_line(checked.checkpoint)}"]
    lines += [f"  {line}" for line in checked.leaf.decode().splitlines()[1:]]
    if checked.content is not None:
        lines += [f"  {line}" for line in _content_lines(checked.content)]
    if checked.seals:
        lines.append(f"  {checked.seals} seals lead to it, the first is {checked.batch}")
    return lines


def _content_lines(content: str) -> list[str]:
    """What a change says, a value a line; what is long or nested is left to --json."""
    try:
        told = json.loads(content)
        head = f"{told['op']} at {told['at']}"
        row = told["row"].items()
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return [content[:_SHOWN]]
    plain = [(name, value) for name, value in row if value is not None and not isinstance(value, dict | list)]
    return [
        head,
        *(f"{name}: {str(value).splitlines()[0][:_SHOWN] if str(value) else ''}" for name, value in plain),
    ]
