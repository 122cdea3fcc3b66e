"""What a demo proves at its end: usage made again from the archive alone, and its first invoice in the signed log."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from adapters.cli.framework import Context
from adapters.cli.wiring import archive_objects
from adapters.data_folder import DataFolder
from adapters.log_proving import Wanted, log_key, prove
from adapters.postgres.database import Database
from adapters.rebuilding import Asked, rebuilt
from billing.log_proof import check_proof


async def proved(context: Context, database: Database, operator: str, document: str | None) -> dict[str, Any]:
    """`batches` and `cells` that were made again, how many are `different`; the `log` with the invoice `document` in it,
    checked as a stranger would; `ok` if all of it holds."""
    folder = DataFolder(context.data)
    objects = archive_objects(folder)
    await context.sign(database)
    with tempfile.TemporaryDirectory() as scratch:
        made = await rebuilt(database, objects, operator, Asked(root=True), Path(scratch))
    log = None
    if document is not None:
        key = log_key(folder.keys, operator)
        proof = await prove(database, objects, operator, Wanted(document=document), key=key, seen=None)
        checked = check_proof(proof, pin=key)
        log = {
            "size": checked.checkpoint.size,
            "index": checked.index,
            "document": document,
            "ok": checked.proves,
        }
    return {
        "ok": made["ok"] and (log is None or log["ok"]),
        "batches": made["batches"],
        "cells": made["cells"],
        "different": made["different"],
        "log": log,
    }
