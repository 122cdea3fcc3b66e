"""Which commands only read is a list; every name in it is a command's, and nothing that writes has crept in."""

from __future__ import annotations

from adapters.cli.framework import EXAMPLES
from adapters.cli.guard import CAPTURING, EXEMPT, READING
from adapters.cli.subjects import import_all

import_all()

# These change what is in the database, or let something change it.
WRITING = {
    *("apply", "import file", "import void", "intake", "intake repair", "invoice credit", "invoice issue"),
    *("archive compact", "archive expire", "archive hold add", "archive hold remove"),
    *("node accept", "node enrol", "node reseal", "node retire", "node revoke", "node rotate"),
    *("key create", "key import", "key revoke", "period close", "settlement run", "up"),
}


def test_every_command_that_is_listed_as_reading_exists() -> None:
    assert READING | EXEMPT | {CAPTURING} <= set(EXAMPLES)


def test_commands_that_write_are_guarded() -> None:
    assert set(EXAMPLES) >= WRITING
    assert not WRITING & (READING | EXEMPT | {CAPTURING})
