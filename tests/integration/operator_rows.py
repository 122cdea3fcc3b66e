"""A row of one operator in every table, for tests that ask who may see or change it."""

from __future__ import annotations

from typing import Any

import asyncpg

from adapters.postgres.database import Database

_SHA = "'" + "ab" * 32 + "'"
_EPOCH = "'" + "cd" * 16 + "'"
_NINE = "1, 10, 4, 5, 2, 5, 2, 0, 1"
_CELL = f"'finished', 0, false, {_NINE}"

# %(id)s: a uuid of the operator's own. In an order in which each row's references are there before it.
ROWS = {
    "operator": "('%(op)s')",
    "site_document": "('%(op)s', 'node', 'n1', '-infinity', NULL, '{}', now())",
    "superseded": "('%(op)s', 'node', 'n1', '-infinity', now(), NULL, '{}', now(), '{}', 'why')",
    "subject": "('%(op)s', '%(id)s', 'customer', 'customer-%(op)s', NULL)",
    "api_key": "('%(op)s', '%(id)s', NULL, NULL, 'finance', sha256('%(op)s'), now(), NULL, NULL)",
    "lane": "('%(op)s', 'n1', '0', 'sidecar', now())",
    "node_key": "('%(op)s', 'n1', 0, sha256('n'), now())",
    "lane_key": "('%(op)s', 'n1', '0', 0, sha256('x'), '0badcafe', now(), now())",
    "decision": f"('%(op)s', '%(id)s', 'retire', 'n1', '0', {_EPOCH}, 0, {_SHA}, NULL, NULL, NULL, NULL, 'gone', now())",
    "batch": f"('%(op)s', 'n1', '0', {_EPOCH}, 0, {_SHA}, 'genesis', 1, 1, 1, now(), {_NINE}, 'p', 1, now(), false)",
    "sibling": f"('%(op)s', 'n1', '1', {_EPOCH}, 0, {_SHA}, now(), now())",
    "seal_fact": f"('%(op)s', 'n1', '0', {_EPOCH}, 0, 0, 'serves', now(), now(), '{{}}')",
    "root_fault": f"('%(op)s', 'n1', '0', {_EPOCH}, 0, 'why', now(), now())",
    "seal_sum": f"('%(op)s', 'n1', '0', {_EPOCH}, 0, 'm', now(), now(), 1, 10, 5, 1)",
    "held": f"('%(op)s', 'n1', '0', {_EPOCH}, 1, {_SHA}, {_SHA}, 'hole', 'why', 'p', now())",
    "set_aside": f"('%(op)s', {_SHA}, '%(op)s', 'n1', '0', 'unknown_key', 'why', '0badcafe', 'p', now())",
    "import_file": f"('%(op)s', 'i1', {_EPOCH}, 'n1', '0', {_SHA}, {_SHA}, 1, now(), now(), '{{}}', 'accepted', now())",
    "partial_sum": "('%(op)s', '2026-10-05 08:00Z', 'n1', 'm', 'finished', 0, false, '{%(id)s}', NULL, NULL, NULL, '{10}',"
    " '{4}', '{5}', '{2}', NULL, NULL, NULL, '{1}')",
    "partial_hour": "('%(op)s', '2026-10-05 08:00Z')",
    "hourly_usage": f"('%(op)s', '2026-10-05 07:00Z', '%(id)s', NULL, NULL, 'n1', 'm', {_CELL})",
    "kafka_position": "('%(op)s', 'cluster/topic/tally.batches', 0, 7)",
    "legal_hold": "('%(op)s', '%(id)s', NULL, '2026-10', 'a dispute', now())",
    "expiry": "('%(op)s', '%(id)s', '2020-01-01', 1, repeat('a', 64), 'retention', now())",
    "stray_dismissal": "('%(op)s', '%(id)s', '{}', 'a stranger', now())",
    "late_bound": "('%(op)s', '2026-10', now())",
    "document": (
        "('%(op)s', 'd1', 'invoice', 'issued', 'N-1', 'c', NULL, '2026-10', 'EUR', 100, 100, 21, 121, 1,"
        " '2026-11-01', '{}', now(), now())"
    ),
    "number_series": "('%(op)s', '%(op)s', 'invoice', 2026, 2)",
    "adjustment": "('%(op)s', 'a1', 'c', '2026-10', -5, 'goodwill', 'me', 'd1', now())",
    "settlement": "('%(op)s', 's1', '2026-10', 1, '{}', now())",
    "journal_entry": "('%(op)s', DEFAULT, now(), '2026-10', 'invoice', 'd1', NULL, NULL, 2)",
    "posting": (
        "('%(op)s', (SELECT max(id) FROM journal_entry WHERE operator = '%(op)s'), 1, 'receivable', 'c', 'EUR', 121),"
        "('%(op)s', (SELECT max(id) FROM journal_entry WHERE operator = '%(op)s'), 2, 'revenue', NULL, 'EUR', -121)"
    ),
    "period_close": "('%(op)s', '2026-10', 1, now(), '{}', '{}', '{}', false)",
    "leaf": "('%(op)s', DEFAULT, 'batch', 'a leaf', NULL, NULL, now())",
    "leaf_waiting": "('%(op)s', 0, 1)",
    "log_entry": "('%(op)s', 0, (SELECT max(id) FROM leaf WHERE operator = '%(op)s'))",
    "log_head": "('%(op)s', 1, sha256('x'), 'the note', now())",
    "unfinished_restore": "('%(op)s', NULL, now())",
}


def insert_of(table: str, operator: str) -> str:
    """The statement that adds the operator's row."""
    values = ROWS[table].replace("%(op)s", operator).replace("%(id)s", uuid_of(operator))
    return f"INSERT INTO {table} VALUES {values}"


def uuid_of(operator: str) -> str:
    """An id that only this operator has."""
    return f"00000000-0000-0000-0000-{ord(operator[0]):012d}"


async def fill(owner: asyncpg.Connection[Any], database: Database, operator: str) -> None:
    """Adds every row of the operator, as the owner, in one transaction."""
    await owner.execute(insert_of("operator", operator))
    async with database.intake() as connection:
        await connection.exec_driver_sql(f"SELECT ensure_usage_partitions('{operator}', '2026-10-01')")
    async with owner.transaction():
        for table in list(ROWS)[1:]:
            await owner.execute(insert_of(table, operator))
