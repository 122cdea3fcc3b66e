"""What `tally node` does at the ledger: a node's public keys in the database, the answer to its request, the list."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from adapters import answers
from adapters.cli.files import writing
from adapters.cli.framework import Result, instant_text
from adapters.data_folder import DataFolder, now
from adapters.importing.ledger import operator_of_node
from adapters.postgres import keys as api_keys
from adapters.postgres import nodes
from adapters.postgres.database import Database
from adapters.postgres.decisions import lane_now
from adapters.postgres.streams import read_streams
from billing.inspection import LaneName
from metering.enrolment import Answer, Request, sign_answer
from metering.identity import LaneKey
from metering.keybook import snapshot_text
from metering.note import verifier_key
from metering.refusal import Refusal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def enrol_keys(
    database: Database, asked: Request, *, replaces: bool
) -> tuple[dict[str, Any], list[str]]:
    """Both sides' end of it: the public keys in the database."""
    at, made_at = now(), _EPOCH + timedelta(microseconds=asked.made_at_us)
    async with database.app(asked.operator) as connection:
        await nodes.enrol_node(connection, asked.operator, asked.node, asked.key, at, replaces=replaces)
        ranks = await nodes.enrol_lanes(connection, asked.operator, asked.node, asked.lanes, made_at, at)
    fingerprint = verifier_key(asked.signer, asked.key)
    document = {
        "operator": asked.operator,
        "node": asked.node,
        "key": fingerprint,
        "lanes": [{"lane": name, "rank": rank} for name, rank in ranks],
    }
    said = [f"{asked.node} of {asked.operator} is enrolled with the key {fingerprint}"]
    said += [f"lane {name}: its key number {rank + 1}" for name, rank in ranks]
    return document, said


async def take_request(
    folder: DataFolder, database: Database, asked: Request, out: Path, *, new_node_key: bool
) -> Result:
    owner, _ = await operator_of_node(database, asked.node)
    if owner != asked.operator:
        raise Refusal(
            "unknown_node",
            f"{asked.operator} has no node {asked.node}",
            where="REQUEST",
            remedy=f"declare it in a site file, or make the request with --operator {owner}",
        )
    document, said = await enrol_keys(database, asked, replaces=new_node_key)
    intake = LaneKey.load_or_create(folder.intake_key(owner))
    async with database.app(owner) as connection:
        served = snapshot_text(await api_keys.key_book(connection, owner, now()))
    answer = Answer(owner, asked.node, asked.key, _us(now()), LaneKey.public_bytes(intake), served)
    with writing(out):
        await asyncio.to_thread(out.write_bytes, sign_answer(answer, intake))
    said.append(f"next: carry {out} to the node, and `tally node accept {out.name}` there")
    return Result({**document, "answer": str(out)}, said)


async def list_lanes(database: Database, operator: str | None) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    machines: list[dict[str, Any]] = []
    for owner in await answers.named_operators(database, operator):
        states: Any = (await read_streams(database, now(), owner))["lanes"]
        async with database.app(owner) as connection:
            known, own = await nodes.keys_of(connection), await nodes.node_keys(connection)
            for state in states:
                name = LaneName(state["operator"], state["node"], state["lane"])
                head = (await lane_now(connection, name)).head
                rows.append(
                    {
                        **name._asdict(),
                        "kind": state["kind"],
                        "state": state["state"],
                        "complete_to": state["complete_to"],
                        "last_seal": None if head is None else f"{state['epoch']}-{state['number']}-{head}",
                        "keys": [_key_json(key) for key in known.get(name, [])],
                    }
                )
        machines += [
            {"operator": owner, "node": node, "key": verifier_key(f"{owner}/{node}", key)}
            for node, key in own.items()
        ]
    return {"nodes": machines, "lanes": rows}


def _key_json(key: dict[str, Any]) -> dict[str, Any]:
    place = None if key["last_good_epoch"] is None else f"{key['last_good_epoch']}-{key['last_good_number']}-"
    return {
        "hash": key["key_hash"],
        "public_key": bytes(key["public_key"]).hex(),
        "enrolled_at": instant_text(key["enrolled_at"]),
        "revoked_at": None if key["revoked_at"] is None else instant_text(key["revoked_at"]),
        "last_good": key["last_good_hash"] if place is None else f"{place}{key['last_good_hash']}",
    }


def _us(instant: datetime) -> int:
    return int(instant.timestamp()) * 1_000_000 + instant.microsecond
