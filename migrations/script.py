"""Runs the SQL files that stand beside the migrations, whole: function bodies hold semicolons, so nothing is split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import context, op

_VERSIONS = Path(__file__).parent / "versions"


def run_script(name: str) -> None:
    """Runs `versions/<name>` in the migration's transaction; in `--sql` mode prints it."""
    script = (_VERSIONS / name).read_text(encoding="utf-8")
    if context.is_offline_mode():
        context.static_output(script)  # as it stands; SQLAlchemy would double its percent signs
        return
    connection = op.get_bind()
    # The driver opens its transaction with the first statement that goes through SQLAlchemy.
    connection.exec_driver_sql("SELECT 1")
    # asyncpg takes several statements at once only through its own `execute`, in the simple protocol.
    adapted: Any = connection.connection.dbapi_connection
    adapted.run_async(lambda driver: driver.execute(script))
