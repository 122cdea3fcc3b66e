"""The tables as SQLAlchemy Core knows them, to write queries with. One file a subject; here they meet.

Columns, keys and foreign keys stand here and in the migrations' SQL, and a test compares the two. What only the
database needs (checks, triggers, partitions, policies, grants) stands in the SQL alone, each with its reason.
"""

from __future__ import annotations

from adapters.postgres.schema_archive import expiry, legal_hold
from adapters.postgres.schema_base import metadata
from adapters.postgres.schema_kafka import kafka_position
from adapters.postgres.schema_keys import decision, lane_key, node_key
from adapters.postgres.schema_log import leaf, leaf_waiting, log_entry, log_head
from adapters.postgres.schema_money import (
    adjustment,
    document,
    journal_entry,
    late_bound,
    number_series,
    period_close,
    posting,
    settlement,
)
from adapters.postgres.schema_restore import unfinished_restore
from adapters.postgres.schema_site import api_key, operator, site_document, subject, superseded
from adapters.postgres.schema_strays import stray_dismissal
from adapters.postgres.schema_usage import (
    QUANTITY_COLUMNS,
    batch,
    held,
    hourly_usage,
    import_file,
    lane,
    partial_hour,
    partial_sum,
    root_fault,
    seal_fact,
    seal_sum,
    set_aside,
    sibling,
    usage_cell,
)

__all__ = [
    "QUANTITY_COLUMNS",
    "adjustment",
    "api_key",
    "batch",
    "decision",
    "document",
    "expiry",
    "held",
    "hourly_usage",
    "import_file",
    "journal_entry",
    "kafka_position",
    "lane",
    "lane_key",
    "late_bound",
    "leaf",
    "leaf_waiting",
    "legal_hold",
    "log_entry",
    "log_head",
    "metadata",
    "node_key",
    "number_series",
    "operator",
    "partial_hour",
    "partial_sum",
    "period_close",
    "posting",
    "root_fault",
    "seal_fact",
    "seal_sum",
    "set_aside",
    "settlement",
    "sibling",
    "site_document",
    "stray_dismissal",
    "subject",
    "superseded",
    "unfinished_restore",
    "usage_cell",
]
