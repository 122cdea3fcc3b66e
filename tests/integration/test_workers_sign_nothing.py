"""Of `tally intake --workers N` one process signs the logs: the one that started the others."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapters.cli import intake
from adapters.cli.children import Child
from adapters.cli.main import app
from adapters.cli.signing import signing
from adapters.objects import FolderObjects
from adapters.postgres import log
from adapters.postgres.database import Database


async def is_signed(database: Database) -> bool:
    async with database.app("a") as connection:
        return (await log.standing(connection, "a")).is_signed


@pytest.mark.anyio
async def test_a_worker_signs_nothing_and_whoever_started_it_does(database: Database, tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path / "archive")
    async with database.app("a") as connection:
        await connection.exec_driver_sql("INSERT INTO operator VALUES ('a') ON CONFLICT DO NOTHING")
        await connection.exec_driver_sql("INSERT INTO number_series VALUES ('a', 's', 'invoice', 2026, 1)")
    async with signing(tmp_path, database, objects, by_another=True):
        await asyncio.sleep(0.05)
    assert not await is_signed(database)
    assert not (tmp_path / "keys").exists()
    async with signing(tmp_path, database, objects):
        pass
    assert await is_signed(database)


def test_the_workers_of_one_command_are_told_that_another_one_signs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    signers: list[bool] = []
    told: list[str | None] = []

    class Signing:
        def __init__(self, *_: object, by_another: bool = False) -> None:
            signers.append(by_another)

        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *_: object) -> None: ...

    async def started(children: Sequence[Child]) -> None:
        told.extend(os.environ.get("TALLY_WORKER_OF_INTAKE") for _ in children)

    async def watched(*_: object) -> None: ...

    monkeypatch.setenv("TALLY_WORKER_OF_INTAKE", "")
    monkeypatch.setattr(intake, "signing", Signing)
    monkeypatch.setattr(intake, "start_all", started)
    monkeypatch.setattr(intake, "watch", watched)
    done = CliRunner().invoke(app, ["intake", "--workers", "2", "--data", str(tmp_path / "data")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["workers"] == "2"
    assert told == ["1", "1"]
    assert signers == [False]
