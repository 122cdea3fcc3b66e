"""Which module holds which commands. A module is imported when one of its commands is called, and only then.

A command that draws PDFs brings WeasyPrint, one that serves the API FastAPI, most bring SQLAlchemy and Arrow: together
about two seconds that `tally --help`, `tally usage` or each child of `tally up` would wait for nothing. So the list of
commands is a table here, with the line that `tally --help` shows for each: the first sentence of the command's own
help, which a test compares.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

# module: {command or group: its line}
SUBJECTS: Mapping[str, Mapping[str, str]] = {
    "demo": {
        "demo": "Show the whole road: requests over HTTP, sealed events, invoices, settlement, reports."
    },
    "site": {
        "apply": "Declare what site files say: operators, nodes, customers, tariffs, contracts, parties, shares.",
        "check": "Only validate site files, beside what is applied already; changes nothing.",
        "get": "Print what is declared, as YAML that `tally apply` takes.",
    },
    "tariff": {"tariff": "Prices: their language, and what they come to."},
    "keys": {"key": "API keys of customers and of people's roles."},
    "node": {"node": "Nodes and the keys of their lanes."},
    "importing": {"import": "Usage from elsewhere: `tally import FILE …`, or take an import back."},
    "usage": {
        "usage": "Totals of usage.",
        "streams": "Per node and lane: complete up to when, what is missing, forked, held or unproven.",
    },
    "reconcile": {
        "reconcile": "Compare what the engines counted with what was written down, rated and invoiced.",
    },
    "period": {"period": "Billing periods: close, and what closes came to."},
    "invoice": {"invoice": "Invoices and credit notes."},
    "ledger": {
        "settlement": "Revenue shares of partners.",
        "ledger": "The double-entry journal.",
    },
    "archive": {"archive": "The archive of sealed batches: ask, join, rebuild, expire."},
    "log": {"log": "The append-only logs: checkpoints, proofs and their check."},
    "report": {"report": "Reports as files."},
    "up": {"up": "Run sidecar, intake and API for one machine."},
    "servers": {
        "sidecar": "Stand between clients and a vLLM engine: check keys, count every request, seal the counts.",
    },
    "intake": {
        "intake": "Take sealed batches into the ledger, exactly once, until it is stopped.",
    },
    "shipping": {
        "shipper": "Send what the spool holds to Kafka, and delete what intake has accepted, until it is stopped.",
    },
    "kafka": {"kafka": "Kafka between sites and intake."},
    "api_server": {"api": "Serve usage, invoices, settlements and reports over HTTP, to keys with a role."},
    "backup": {
        "backup": "Write the whole database, as it is at one moment, and what is held into one file.",
        "restore": "Make the database of a backup, and bring it forward from the archive: same numbers, same totals.",
    },
    "doctor": {
        "doctor": "Say what is configured, reachable, behind or unsafe.",
        "database": "The database.",
    },
}


class OnDemand(MutableMapping[str, Any]):
    """The commands by name; looking one up imports its module. `loaded` are those of the modules imported so far."""

    def __init__(self) -> None:
        self._modules = {name: module for module, names in SUBJECTS.items() for name in names}
        self.loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self.loaded:
            subject = typer.Typer(rich_markup_mode=None)
            import_module(f"adapters.cli.{self._modules[name]}").register(subject)
            self.loaded.update(get_group(subject).commands)
        return self.loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        raise AssertionError(f"{name} is not registered here but listed in SUBJECTS")

    def __delitem__(self, name: str) -> None:
        raise AssertionError(f"{name} stays")

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


class SubjectGroup(TyperGroup):
    """`tally` itself: lists its commands without importing any."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = OnDemand()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # What imports make stays to the end: looking for garbage among it took a quarter of a short command's time.
        gc.disable()
        try:
            return super().get_command(ctx, cmd_name)
        finally:
            gc.freeze()
            gc.enable()

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the library's signature
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the library's signature
        with formatter.section("Commands"):
            formatter.write_dl([line for names in SUBJECTS.values() for line in names.items()])


def import_all() -> None:
    """Imports every subject's module, for those who fork or want every command's example."""
    commands = OnDemand()
    for name in commands:
        commands[name]
