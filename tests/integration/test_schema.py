"""The migrated database, asked through its own catalogue: what it must repeat of the design, table by table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from adapters.postgres.connecting import engine
from adapters.postgres.database import Database
from adapters.postgres.migrate import HEAD, alembic_config
from adapters.postgres.schema import metadata, operator, usage_cell

pytestmark = pytest.mark.anyio

# What each role may do, and nothing else; partitions are not listed, because nobody may touch them directly.
# "UPDATE (x)" is a right on that column alone.
APP = {
    "alembic_version": "SELECT",
    "operator": "SELECT INSERT",
    "site_document": "SELECT INSERT UPDATE",
    "superseded": "SELECT INSERT",
    "subject": "SELECT INSERT UPDATE(slug)",
    "api_key": "SELECT INSERT UPDATE(revoked_at)",
    "lane": "SELECT INSERT(enrolled_at) INSERT(kind) INSERT(lane) INSERT(node) INSERT(operator)",
    "node_key": "SELECT INSERT",
    "lane_key": "SELECT INSERT UPDATE(last_good_epoch) UPDATE(last_good_hash) UPDATE(last_good_number) UPDATE(revoked_at)",
    "decision": "SELECT INSERT",
    "batch": "SELECT",
    "sibling": "SELECT",
    "seal_fact": "SELECT",
    "seal_sum": "SELECT",
    "held": "SELECT",
    "set_aside": "SELECT",
    "import_file": "SELECT INSERT UPDATE(state) UPDATE(void_reason) UPDATE(voided_at)",
    "partial_sum": "SELECT",
    "partial_hour": "SELECT",
    "hourly_usage": "SELECT",
    "usage_cell": "SELECT",
    "kafka_position": "SELECT",
    "root_fault": "SELECT",
    "legal_hold": "SELECT INSERT UPDATE(removed_at) UPDATE(removed_reason)",
    "expiry": "SELECT INSERT",
    "stray_dismissal": "SELECT INSERT",
    "late_bound": "SELECT INSERT",
    "document": "SELECT INSERT UPDATE DELETE",
    "number_series": "SELECT INSERT UPDATE",
    "adjustment": "SELECT INSERT",
    "settlement": "SELECT INSERT",
    "journal_entry": "SELECT INSERT",
    "posting": "SELECT INSERT",
    "period_close": "SELECT INSERT",
    "leaf": "SELECT UPDATE(content) UPDATE(nonce)",
    "leaf_waiting": "SELECT DELETE",
    "log_entry": "SELECT INSERT",
    "log_head": "SELECT INSERT UPDATE",
    "unfinished_restore": "SELECT",
}
INTAKE = {
    "alembic_version": "SELECT",
    "operator": "SELECT",
    "subject": "SELECT(id) SELECT(kind) SELECT(operator)",
    "lane": "SELECT UPDATE(closed) UPDATE(complete_to) UPDATE(ended) UPDATE(epoch) UPDATE(head) UPDATE(key_rank)"
    " UPDATE(last_accepted_at) UPDATE(last_sequence) UPDATE(number) UPDATE(opened)",
    "lane_key": "SELECT",
    "decision": "SELECT",
    "batch": "SELECT INSERT UPDATE(root_checked)",
    "sibling": "SELECT INSERT UPDATE",
    "seal_fact": "SELECT INSERT",
    "seal_sum": "SELECT INSERT",
    "held": "SELECT INSERT DELETE UPDATE(code) UPDATE(due_at) UPDATE(missing) UPDATE(path) UPDATE(what)",
    "set_aside": "SELECT INSERT DELETE UPDATE(batches) UPDATE(seen_at)",
    "partial_sum": "SELECT INSERT DELETE",
    "partial_hour": "SELECT INSERT DELETE",
    "hourly_usage": "SELECT INSERT DELETE",
    "usage_cell": "SELECT",
    "kafka_position": "SELECT INSERT UPDATE",
    "root_fault": "SELECT INSERT DELETE UPDATE(looked_at) UPDATE(what)",
    "late_bound": "SELECT",
}
# Functions that a role other than the owner may call, beyond PostgreSQL's own.
MAKE_LEAVES = {"await_number", "add_batch_leaves", "add_change_leaf"}  # triggers: nobody else may add a leaf
CALLABLE = {
    ("ensure_usage_partitions", "tally_intake"),
    ("operator_zones", "tally_intake"),
    ("find_api_key", "tally_app"),
}


@pytest.fixture
async def catalogue(database: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection as the owner to a database with partitions of two operators."""
    async with database.app("a") as connection:
        await connection.execute(operator.insert().values(operator="a"))
    async with database.app("b") as connection:
        await connection.execute(operator.insert().values(operator="b"))
    async with database.intake() as connection:
        for month in ("2026-09-01", "2026-10-01"):
            for name in ("a", "b"):
                await connection.exec_driver_sql(f"SELECT ensure_usage_partitions('{name}', '{month}')")
    assert database.urls.owner is not None
    owner = await asyncpg.connect(database.urls.owner)
    yield owner
    await owner.close()


async def test_the_models_are_the_migrated_schema(database: Database) -> None:
    def compare(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                "include_object": lambda thing, name, kind, reflected, other: (
                    not (
                        kind == "table"
                        and (name == "alembic_version" or "_usage_" in name or "partial_sum_" in name)
                    )
                ),
            },
        )
        return list(compare_metadata(context, metadata))

    assert database.urls.owner is not None
    owner = engine(database.urls.owner)
    async with owner.connect() as connection:
        differences = await connection.run_sync(compare)
    await owner.dispose()
    # Comments are the database's own, like checks and triggers.
    assert [change for change in differences if change[0] != "remove_table_comment"] == []


async def test_the_view_over_usage_has_the_columns_of_its_model(catalogue: asyncpg.Connection[Any]) -> None:
    rows = await catalogue.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'usage_cell'::regclass AND attnum > 0 ORDER BY attnum"
    )
    assert [row["attname"] for row in rows] == [column.name for column in usage_cell.columns]


def test_the_version_that_is_asked_for_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == HEAD


async def test_every_table_and_every_partition_forces_row_level_security(
    catalogue: asyncpg.Connection[Any],
) -> None:
    rows = await catalogue.fetch("""
        SELECT relname, relrowsecurity AND relforcerowsecurity AS forced, pg_get_userbyid(relowner) AS owner
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
        """)
    names = {row["relname"] for row in rows}
    assert names >= {table.name for table in metadata.sorted_tables}
    assert sum(name.startswith(("partial_sum_", "hourly_usage_")) for name in names) == 2 * 2 * 3
    assert [row["relname"] for row in rows if not row["forced"]] == []
    assert {row["owner"] for row in rows} == {"tally_owner"}


async def test_policies_let_the_application_see_one_operator_and_nobody_else_anything(
    catalogue: asyncpg.Connection[Any],
) -> None:
    own = (
        "(operator = ( SELECT NULLIF(current_setting('tally.operator'::text, true), ''::text) AS \"nullif\"))"
    )
    rows = await catalogue.fetch("SELECT * FROM pg_policies WHERE schemaname = 'public'")
    policies: dict[str, set[tuple[str, str, str | None, str | None]]] = {}
    for row in rows:
        assert row["permissive"] == "PERMISSIVE"
        for role in row["roles"]:
            policies.setdefault(row["tablename"], set()).add(
                (role, row["cmd"], row["qual"], row["with_check"])
            )
    owner = ("tally_owner", "ALL", "true", "true")
    special = {
        "operator": {owner, ("tally_app", "SELECT", "true", None), ("tally_app", "INSERT", None, own)},
        "alembic_version": {
            owner,
            ("tally_app", "SELECT", "true", None),
            ("tally_intake", "SELECT", "true", None),
        },
    }
    for table in policies:
        if table.startswith(("partial_sum_", "hourly_usage_")):
            assert policies[table] == {owner}, table
        else:
            expected = special.get(table, {owner, ("tally_app", "ALL", own, own)})
            assert policies[table] == expected, table


async def test_no_role_has_a_right_too_many(catalogue: asyncpg.Connection[Any]) -> None:
    rows = await catalogue.fetch("""
        SELECT relname AS name, grantee.rolname AS role, acl.privilege_type AS privilege, acl.is_grantable
        FROM pg_class, aclexplode(relacl) AS acl
        LEFT JOIN pg_roles AS grantee ON grantee.oid = acl.grantee
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
        UNION ALL
        SELECT relname, grantee.rolname, acl.privilege_type || '(' || attname || ')', acl.is_grantable
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid, aclexplode(attacl) AS acl
        LEFT JOIN pg_roles AS grantee ON grantee.oid = acl.grantee
        WHERE relnamespace = 'public'::regnamespace
        """)
    granted: dict[tuple[str | None, str], set[str]] = {}
    for row in rows:
        if row["role"] != "tally_owner":
            assert not row["is_grantable"]
            granted.setdefault((row["role"], row["name"]), set()).add(row["privilege"])
    expected = {
        (role, table): set(rights.split())
        for role, tables in (("tally_app", APP), ("tally_intake", INTAKE))
        for table, rights in tables.items()
    }
    assert granted == expected


async def test_only_the_functions_that_are_meant_to_be_called_can_be(
    catalogue: asyncpg.Connection[Any],
) -> None:
    rows = await catalogue.fetch("""
        SELECT p.proname, pg_get_userbyid(p.proowner) AS owner, p.prosecdef, p.proconfig, r.rolname,
               has_function_privilege(r.oid, p.oid, 'EXECUTE') AS may
        FROM pg_proc p, pg_roles r
        WHERE p.pronamespace = 'public'::regnamespace AND r.rolname IN ('tally_app', 'tally_intake')
        """)
    assert {(row["proname"], row["rolname"]) for row in rows if row["may"]} == CALLABLE
    for row in rows:
        assert row["owner"] == "tally_owner"
        if row["prosecdef"]:
            assert row["proname"] in {name for name, _ in CALLABLE} | MAKE_LEAVES
            # With the owner's rights and the caller's search_path, a table of the caller's could stand in for ours.
            assert any(setting.startswith("search_path=pg_catalog") for setting in row["proconfig"])


async def test_views_ask_with_the_callers_rights_and_none_is_materialised(
    catalogue: asyncpg.Connection[Any],
) -> None:
    rows = await catalogue.fetch("""
        SELECT relname, relkind, reloptions FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm')
        """)
    assert [(row["relname"], row["relkind"], row["reloptions"]) for row in rows] == [
        ("usage_cell", b"v", ["security_invoker=true"])
    ]


async def test_the_roles_are_no_more_than_they_should_be(catalogue: asyncpg.Connection[Any]) -> None:
    rows = await catalogue.fetch("""
        SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
               has_schema_privilege(oid, 'public', 'CREATE') AS creates,
               (SELECT count(*) FROM pg_class WHERE relowner = r.oid AND relnamespace = 'public'::regnamespace) AS owns,
               (SELECT count(*) FROM pg_auth_members WHERE member = r.oid) AS memberships
        FROM pg_roles r WHERE rolname IN ('tally_owner', 'tally_intake', 'tally_app')
        """)
    roles = {row["rolname"]: row for row in rows}
    assert len(roles) == 3
    for role in roles.values():
        powers = ("rolsuper", "rolcreaterole", "rolcreatedb", "rolreplication")
        assert not any(role[power] for power in powers)
        assert role["memberships"] == 0
        assert role["rolbypassrls"] == (role["rolname"] == "tally_intake")
    for name in ("tally_intake", "tally_app"):
        assert roles[name]["owns"] == 0
        assert not roles[name]["creates"]


async def test_every_key_begins_with_the_operator(catalogue: asyncpg.Connection[Any]) -> None:
    """So that one operator's rows lie together, and a row can't be named without saying whose it is."""
    rows = await catalogue.fetch("""
        SELECT c.conrelid::regclass::text AS table, a.attname
        FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE c.contype = 'p' AND c.connamespace = 'public'::regnamespace
        """)
    assert {row["attname"] for row in rows if row["table"] != "alembic_version"} == {"operator"}


async def test_every_table_says_what_it_is_for(catalogue: asyncpg.Connection[Any]) -> None:
    rows = await catalogue.fetch("""
        SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
        AND obj_description(oid, 'pg_class') IS NULL AND relname <> 'alembic_version'
        """)
    assert rows == []
