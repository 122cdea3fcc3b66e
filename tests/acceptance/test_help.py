"""Every command explains itself, its example runs as it stands, and with `--json` it prints exactly one JSON document."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import typer.main
from command import ROOT, Tally, over, simulated_engine, write_rows

from adapters.cli.framework import EXAMPLES
from adapters.cli.main import app
from adapters.cli.subjects import SUBJECTS, import_all
from adapters.postgres.database import DatabaseUrls

import_all()

# The examples as a story: each in an order in which the ones before it made what it needs.
STORY = (
    *("database prepare", "apply", "check", "get", "tariff schema", "tariff show", "tariff sheet"),
    *("import file", "usage", "streams"),
    *("period close", "period list", "period show", "reconcile"),
    *("invoice list", "invoice show", "invoice explain", "invoice preview", "tariff simulate"),
    *(
        "invoice issue",
        "invoice render",
        "invoice credit",
        "settlement run",
        "settlement list",
        "settlement show",
    ),
    *(
        "ledger trial-balance",
        "report usage",
        "key create",
        "key import",
        "key list",
        "key revoke",
        "doctor",
        "import void",
    ),
)
SERVERS = ("sidecar", "intake", "api", "up")
NODE = (
    "node enrol",
    "node accept",
    "node list",
    "node rotate",
    "node revoke",
    "node reseal",
    "node retire",
)
# test_demo.py, test_backup.py, test_kafka_commands.py, test_node_commands.py, test_archive_commands.py,
# test_log_command.py run theirs
ELSEWHERE = (
    "demo",
    "backup",
    "restore",
    "shipper",
    "kafka prepare",
    "intake repair",
    *NODE,
    *(path for path in EXAMPLES if path.startswith(("archive ", "log "))),
)
PLACEHOLDER_KEY = "8d7f9c2e-0000-4000-8000-000000000000"


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(path, command) of every command there is."""
    group = group or typer.main.get_command(app)
    for name, each in group.commands.items():
        if getattr(each, "invoke_without_command", False):  # a command that has others below it
            yield " ".join((*path, name)), each
        if hasattr(each, "commands"):
            yield from commands(each, (*path, name))
        else:
            yield " ".join((*path, name)), each


COMMANDS = dict(commands())


@pytest.fixture(scope="module")
def sandbox(fresh_urls: Callable[[], DatabaseUrls], tmp_path_factory: pytest.TempPathFactory) -> Tally:
    """An empty data folder, in a folder with the example's files and a file of usage, as the examples name them."""
    folder = tmp_path_factory.mktemp("sandbox")
    (folder / "examples").symlink_to(ROOT / "examples")
    row = {"time": "2026-10-12T09:30:00Z", "customer": "acme", "model": "qwen3-32b"}
    usage = [{**row, "prompt_tokens": 10_000_000 + n, "completion_tokens": 2_000_000} for n in range(10)]
    write_rows(folder / "usage.csv", usage)
    (folder / "keys.csv").write_text("customer,secret\nacme,sk-one-that-acme-has\n")
    tally = over(fresh_urls(), folder / "data")
    tally.folder = folder
    return tally


def test_every_commands_example_is_run_here_or_in_a_test_of_its_own() -> None:
    assert set(EXAMPLES) == set(COMMANDS)
    assert {*STORY, *SERVERS, *ELSEWHERE} == set(EXAMPLES)


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_help_says_what_for_with_which_defaults_and_gives_an_example(path: str, tmp_path: Path) -> None:
    command = COMMANDS[path]
    ran = Tally(tmp_path).run(*path.split(), "--help")
    said = " ".join(ran.stdout.split())

    assert ran.exit_code == 0, ran
    assert said.startswith(f"Usage: tally {path} "), ran
    assert " ".join(command.help.split()) in said
    assert f"Example: {EXAMPLES[path]}" in said
    assert EXAMPLES[path].startswith("tally ")
    for option in command.params:
        shown = option.opts[0] if option.opts[0].startswith("-") else option.metavar
        assert shown in said, option
        assert option.help or option.opts[0] == "--help", f"{path} {shown} says nothing"
        if isinstance(option.default, str | int | float) and not isinstance(option.default, bool):
            assert f"[default: {option.default}" in said or "Default: " in option.help, shown


def test_tally_alone_lists_every_command_in_the_words_of_its_own_help(tmp_path: Path) -> None:
    ran = Tally(tmp_path).run("--help")
    said = " ".join(ran.stdout.split())

    root = typer.main.get_command(app)
    for name, line in (pair for names in SUBJECTS.values() for pair in names.items()):
        own = " ".join(root.commands[name].help.split())  # type: ignore[attr-defined]  # tally is a group
        assert f" {name} {line}" in said
        assert own.startswith(line.rstrip(".")), name


@pytest.mark.parametrize("group", sorted({path.split()[0] for path in COMMANDS if " " in path}))
def test_a_group_alone_lists_its_commands(group: str, tmp_path: Path) -> None:
    ran = Tally(tmp_path).run(group, "--help")

    assert ran.exit_code == 0
    said = " ".join(ran.stdout.split())
    below = typer.main.get_command(app).commands[group].commands  # type: ignore[attr-defined]  # a group
    for path in COMMANDS:
        if path.startswith(f"{group} "):
            name = path.split()[1]  # of a group within the group, which lists its commands itself
            line = " ".join(below[name].help.split("\n\n")[0].split()).split(". ")[0]
            assert f" {name} {line}" in said, path
    assert not any(line.endswith("...") for line in ran.stdout.splitlines()[1:]), "no summary is cut off"
    assert max(map(len, ran.stdout.splitlines())) <= 80


def test_the_examples_run_in_order_as_they_stand_and_again_with_json(sandbox: Tally) -> None:
    ids = {"ID": "", PLACEHOLDER_KEY: ""}
    for path in STORY:
        line = [ids.get(word) or word for word in shlex.split(EXAMPLES[path])[1:]]

        plain = sandbox.run(*line)
        assert plain.exit_code == 0, plain
        assert plain.stdout.strip(), f"says nothing: {plain}"
        assert plain.stdout.startswith("{") is (path == "tariff schema"), (
            plain
        )  # which is JSON for people too
        document = sandbox(*line)

        if path == "import file":
            ids["ID"] = document["id"]
        if path == "key create":
            ids[PLACEHOLDER_KEY] = document["id"]
    assert (sandbox.folder / "usage.pdf").read_bytes().startswith(b"%PDF-")
    assert (sandbox.folder / "invoices.zip").stat().st_size > 1_000


@pytest.mark.parametrize("path", SERVERS)
def test_a_servers_example_serves_and_stops_cleanly(sandbox: Tally, path: str) -> None:
    sandbox("apply", "examples/vilnius")
    line = shlex.split(EXAMPLES[path])[1:]
    with ExitStack() as stack:
        if "--engine" in line:
            engine = stack.enter_context(simulated_engine())["engine"]
            line[line.index("--engine") + 1] = engine
        if "--listen" in line:
            line[line.index("--listen") + 1] = "127.0.0.1:0"
        if path == "up":
            line += ["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]

        told = stack.enter_context(sandbox.serving(*line, "--json"))

        served = {"up": {"sidecar", "api"}}.get(path, {path})
        assert served <= set(told)
