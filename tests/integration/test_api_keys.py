"""API keys: one secret, one door; found by its hash; gone from the sidecar's book when revoked or expired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import select

from adapters.postgres.database import INSTALLATION, Database
from adapters.postgres.keys import (
    create_customer_key,
    create_role_key,
    find_key,
    key_book,
    list_keys,
    revoke_key,
)
from adapters.postgres.schema import operator as operators
from adapters.postgres.schema import subject
from adapters.postgres.subjects import ensure_subjects, find_subjects
from metering.identity import hash_secret, new_id, new_secret
from metering.refusal import Refusal

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 10, 20, 12, 0, 0, 1, tzinfo=UTC)


@pytest.fixture
async def ledger(database: Database) -> Database:
    """Operators a with customer acme, and b."""
    for name in ("a", "b"):
        async with database.app(name) as connection:
            await connection.execute(operators.insert().values(operator=name))
    async with database.app("a") as connection:
        await ensure_subjects(connection, "a", "customer", ["acme"])
    return database


async def make(
    ledger: Database, *, project: str | None = None, expires_at: datetime | None = None
) -> tuple[UUID, bytes]:
    """A key of acme: its id and the hash of its secret."""
    key, digest = UUID(bytes=new_id()), hash_secret(new_secret())
    async with ledger.app("a") as connection:
        await create_customer_key(
            connection,
            "a",
            key=key,
            secret_sha256=digest,
            customer="acme",
            project=project,
            now=NOW,
            expires_at=expires_at,
        )
    return key, digest


async def test_the_sidecars_book_has_keys_that_hold_by_the_hash_of_their_secret(ledger: Database) -> None:
    plain, plain_digest = await make(ledger)
    until = NOW + timedelta(hours=1)
    timed, timed_digest = await make(ledger, project="search", expires_at=until)
    await make(ledger, expires_at=NOW)
    revoked, _ = await make(ledger)
    async with ledger.app("a") as connection:
        await revoke_key(connection, "a", revoked, NOW)
        book = await key_book(connection, "a", NOW)
        customer = (await find_subjects(connection, "a", "customer", ["acme"]))["acme"]
        project = (await find_subjects(connection, "a", "project", ["search"], customer))["search"]
    assert set(book) == {plain_digest, timed_digest}
    assert (book[plain_digest].id, book[plain_digest].project) == (plain.bytes, None)
    entry = book[timed_digest]
    assert (entry.id, entry.customer, entry.project) == (timed.bytes, customer.bytes, project.bytes)
    assert entry.expires_us == 1_792_501_200_000_001
    async with ledger.app("b") as connection:
        assert await key_book(connection, "b", NOW) == {}


async def test_a_key_is_listed_by_the_names_that_users_wrote(ledger: Database) -> None:
    key, _ = await make(ledger, project="search")
    async with ledger.app("a") as connection:
        (listed,) = await list_keys(connection, "a")
    assert (listed.id, listed.customer, listed.project, listed.role) == (key, "acme", "search", None)
    assert listed.holds(NOW)


async def test_usage_can_be_told_by_key(ledger: Database) -> None:
    key, _ = await make(ledger)
    async with ledger.app("a") as connection:
        slug = await connection.execute(select(subject.c.slug).where(subject.c.id == key))
    assert slug.scalar_one() == str(key)


async def test_a_project_is_made_once_for_all_of_its_keys(ledger: Database) -> None:
    await make(ledger, project="search")
    await make(ledger, project="search")
    async with ledger.app("a") as connection:
        found = await connection.execute(select(subject.c.slug).where(subject.c.kind == "project"))
    assert found.scalars().all() == ["search"]


async def test_a_revoked_key_keeps_the_instant_at_which_it_ended(ledger: Database) -> None:
    key, digest = await make(ledger)
    async with ledger.app("a") as connection:
        await revoke_key(connection, "a", key, NOW)
        again = await revoke_key(connection, "a", key, NOW + timedelta(days=1))
        found = await find_key(connection, digest)
    assert again.revoked_at == NOW
    assert not again.holds(NOW)
    assert found is not None
    assert not found.holds(NOW)


async def test_a_roles_key_is_found_by_its_secret_before_its_operator_is_known(ledger: Database) -> None:
    everywhere, finance = hash_secret(new_secret()), hash_secret(new_secret())
    for name, role, digest in ((INSTALLATION, "auditor", everywhere), ("b", "finance", finance)):
        async with ledger.app(name) as connection:
            await create_role_key(
                connection,
                name,
                key=UUID(bytes=new_id()),
                secret_sha256=digest,
                role=role,
                now=NOW,
                expires_at=None,
            )
    async with ledger.app("") as connection:
        found = await find_key(connection, finance)
        auditor = await find_key(connection, everywhere)
        assert await find_key(connection, hash_secret("tg_guess")) is None
    assert found is not None
    assert auditor is not None
    assert (found.operator, found.role, found.customer) == ("b", "finance", None)
    assert (auditor.operator, auditor.role) == (INSTALLATION, "auditor")


async def test_what_is_not_there_is_refused_by_name(ledger: Database) -> None:
    key, _ = await make(ledger)
    async with ledger.app("b") as connection:
        with pytest.raises(Refusal) as refused:
            await revoke_key(connection, "b", key, NOW)  # it is another operator's
        assert refused.value.code == "unknown_key"
        with pytest.raises(Refusal) as refused:
            await create_customer_key(
                connection,
                "b",
                key=key,
                secret_sha256=bytes(32),
                customer="acme",
                project=None,
                now=NOW,
                expires_at=None,
            )
        assert refused.value.code == "unknown_customer"
        with pytest.raises(Refusal) as refused:
            await ensure_subjects(connection, "b", "customer", ["acme", "new"])
        assert refused.value.code == "customer_taken"
