"""The three logins of a Tallygrid database, and the SQL that makes them.

`tally_owner` owns the database and runs migrations; `tally_intake` passes row-level security because COPY refuses to
work under it; `tally_app` owns nothing and is held by row-level security. None is a superuser, and none may make
roles or databases. The embedded launcher runs this SQL once, in single-user mode; for a server of the operator's
own, `tally database prepare` prints it.
"""

from __future__ import annotations

from collections.abc import Mapping

OWNER = "tally_owner"
INTAKE = "tally_intake"
APP = "tally_app"
ROLES = (OWNER, INTAKE, APP)
DATABASE = "tallygrid"

_PLACEHOLDER_HEAD = """\
-- The roles and the database of Tallygrid, for psql. Run it once, as a role that may make others (only a superuser or
-- a role with BYPASSRLS may give BYPASSRLS). Set the three passwords first; an unset one stops it as a syntax error:
--   psql -d postgres -v ON_ERROR_STOP=1
--   \\set tally_owner_password '...'
--   \\set tally_intake_password '...'
--   \\set tally_app_password '...'
--   \\i prepare.sql
SET password_encryption = 'scram-sha-256';

"""


def role_sql(passwords: Mapping[str, str] | None) -> str:
    """SQL that makes the three roles and the database, one statement per block, each ended by `;` and an empty line.

    `passwords`: role -> password, all three; `None` writes psql variables (`:'tally_app_password'`) in their place
    and says how to set them. Texts sort by code point wherever it runs (PostgreSQL 17 or newer), so that a bill's
    lines have one order.
    """
    if passwords is None:
        head, secret = _PLACEHOLDER_HEAD, {role: f":'{role}_password'" for role in ROLES}
    else:
        head, secret = "", {role: _literal(passwords[role]) for role in ROLES}
    limits = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION INHERIT"
    return head + "".join(
        f"{statement};\n\n"
        for statement in (
            f"CREATE ROLE {OWNER} LOGIN {limits} NOBYPASSRLS PASSWORD {secret[OWNER]}",
            f"CREATE ROLE {INTAKE} LOGIN {limits} BYPASSRLS PASSWORD {secret[INTAKE]}",
            f"CREATE ROLE {APP} LOGIN {limits} NOBYPASSRLS PASSWORD {secret[APP]}",
            # An administrator without superuser may give a database only to a role that it could become.
            f"GRANT {OWNER} TO CURRENT_USER",
            f"CREATE DATABASE {DATABASE} OWNER {OWNER} TEMPLATE template0 ENCODING 'UTF8'"
            " LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'",
            f"REVOKE {OWNER} FROM CURRENT_USER",
            f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC",
            # Intake may need a temporary table to COPY into; the application's login owns nothing, not even that.
            f"GRANT CONNECT, TEMPORARY ON DATABASE {DATABASE} TO {INTAKE}",
            f"GRANT CONNECT ON DATABASE {DATABASE} TO {APP}",
        )
    )


def _literal(text: str) -> str:
    """`text` as an SQL string; `E''` so that it reads the same whatever `standard_conforming_strings` says."""
    if "\x00" in text:
        raise ValueError("a password cannot hold a NUL")
    return "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
