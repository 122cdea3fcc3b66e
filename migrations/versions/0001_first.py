"""The first schema: site, streams, usage and money, with the three roles' rights and row-level security.

The SQL stands beside this file, readable on its own, one file a subject: `upgrade` runs them in their order.
There is no way back: a ledger is restored from its backup, not migrated down.
"""

from __future__ import annotations

from migrations.script import run_script

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes everything; `alembic_version` is there already."""
    for part in (
        "tables",
        "triggers",
        "keys",
        "log",
        "usage",
        "kafka",
        "roots",
        "restore",
        "archive",
        "strays",
        "rights",
    ):
        run_script(f"0001_first.{part}.sql")
