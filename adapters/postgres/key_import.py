"""Keys that were made elsewhere, taken into the ledger: all of them or none, and each once however often it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.key_file import GivenKey, KeyFile
from adapters.postgres.database import Database, see
from adapters.postgres.keys import ApiKey, create_customer_key, find_key, list_keys
from metering.identity import new_id
from metering.refusal import Fault


@dataclass(frozen=True, slots=True)
class ImportedKey:
    """A key of the file as it stands in the ledger now; `created`: by this import."""

    given: GivenKey
    id: UUID
    created: bool


async def import_keys(
    database: Database, file: KeyFile, owners: Mapping[str, str], now: datetime
) -> list[ImportedKey]:
    """Make the keys of the file that are not there yet. `owners`: operator of each customer that is known.

    One transaction over all operators, one import at a time. A secret that is known already for the same customer,
    project and expiry is left as it is. Refusal `bad_key_file` for whatever is wrong with its lines, an unknown customer, a
    secret that is another key's or a revoked one's: all of it at once.
    """
    given = [key for key in file.keys if key.customer in owners]
    faults: list[Fault] = [
        file.fault(key, "customer", "there is no such customer")
        for key in file.keys
        if key.customer not in owners
    ]
    imported: list[ImportedKey] = []
    operators = sorted({owners[key.customer] for key in given})
    if not operators:
        file.refuse(faults)
        return imported
    async with database.exclusively("import of keys"), database.app(operators[0]) as connection:
        for operator in operators:
            await see(connection, operator)
            known = {each.id: each for each in await list_keys(connection, operator)}
            for key in (key for key in given if owners[key.customer] == operator):
                found = await find_key(connection, key.secret_sha256)
                if found is None:
                    imported.append(await _create(connection, operator, key, now))
                    continue
                wrong = _not_the_same(known.get(found.id), key)
                if wrong:
                    faults.append(file.fault(key, "secret", wrong))
                imported.append(ImportedKey(key, found.id, created=False))
        file.refuse(faults)  # which rolls back
    return sorted(imported, key=lambda each: each.given.line)


async def _create(connection: AsyncConnection, operator: str, key: GivenKey, now: datetime) -> ImportedKey:
    id = UUID(bytes=new_id())
    await create_customer_key(
        connection,
        operator,
        key=id,
        secret_sha256=key.secret_sha256,
        customer=key.customer,
        project=key.project,
        now=now,
        expires_at=key.expires_at,
    )
    return ImportedKey(key, id, created=True)


def _not_the_same(known: ApiKey | None, key: GivenKey) -> str | None:
    """Why the key with that secret is not the one of this line; None if it is."""
    if known is None or (known.customer, known.project) != (key.customer, key.project):
        return "opens another key's door already"
    if known.revoked_at is not None:
        return "was revoked"
    if known.expires_at != key.expires_at:
        return "is known with another time of expiry"
    return None
