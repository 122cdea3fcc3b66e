"""Signing beside intake goes on whatever happens: while it stands still, what is accepted stands in no log."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest

from adapters.cli import signing
from adapters.objects import FolderObjects
from adapters.postgres.database import Database

pytestmark = pytest.mark.anyio


async def test_a_fault_that_nobody_foresaw_is_told_once_and_the_next_second_signs_again(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    async def sign_logs(*_: object, **__: object) -> dict[str, Exception]:
        tries.append(len(tries))
        if len(tries) < 3:
            raise RuntimeError("a bug")
        return {}

    monkeypatch.setattr(signing, "sign_logs", sign_logs)
    monkeypatch.setattr(signing, "_EVERY_S", 0.02)
    caplog.set_level(logging.INFO, "adapters.cli.signing")
    async with signing.signing(tmp_path, database, FolderObjects(tmp_path / "archive")):
        until = time.monotonic() + 10
        while len(tries) < 6:
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
    said = [line.getMessage() for line in caplog.records]
    assert said.count("a bug of ours, RuntimeError: it is tried again") == 1
    assert said[-1] == "the logs are signed again"
