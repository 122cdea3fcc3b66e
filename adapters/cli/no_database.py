"""Where a machine has no ledger of its own: refused by name, and no empty one is made to answer from.

A node that was enrolled from afar, or waits for the answer to its request, has keys and a spool and no database. The
embedded PostgreSQL is made by the first command that wants it: at such a node it would be an empty one, and `tally usage`
would say of thousands of served requests that there are none. So only the ledger's own folder gets one: the site's commands
that need no database (`--out`, `--after`) are named, and all others belong where the ledger is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapters.cli.guard import EXEMPT
from adapters.data_folder import DataFolder
from adapters.postgres.open import outside_urls
from metering.enrolment import read_answer
from metering.refusal import Refusal

_AT_THE_LEDGER = (
    "ask where the ledger is, or set TALLY_DATABASE_URL if its database can be reached from here; a ledger of this"
    " machine's own goes into a data folder of its own (--data)"
)
_TAKE_THE_ANSWER = (
    "take in what `tally node enrol REQUEST` wrote at the ledger: tally node accept ANSWER; or set TALLY_DATABASE_URL if"
    " the ledger's database can be reached from here"
)
_AT_THE_NODE = {
    "node enrol": "write the request to a file: tally node enrol --out FILE; at the ledger: tally node enrol FILE",
    "node rotate": "write the request to a file: tally node rotate --out FILE; at the ledger: tally node enrol FILE",
    "node reseal": "name the lane's last accepted seal, as `tally node list --json` at the ledger shows it: tally node"
    " reseal --after HASH",
}


def ledger_elsewhere(path: str, data: Path, environ: Mapping[str, str]) -> Refusal | None:
    """Why the command `path` is refused where the embedded database is not there, or is empty (`no_database_here`).

    None where this machine is given a database, is a ledger's, or is nobody's yet. Refusals of a damaged answer:
    `bad_enrolment`, `bad_signature`.
    """
    folder = DataFolder(data)
    if path in EXEMPT or outside_urls(environ) is not None or _is_a_ledgers(folder):
        return None
    answers = sorted((folder.keys / "node").glob("*.enrolled"))
    asking = sorted((folder.keys / "node").glob("*.key"))
    if answers:
        known = [read_answer(answer.read_bytes()) for answer in answers]
        nodes = ", ".join(f"{each.node} of {each.operator}" for each in known)
        what, remedy = f"{nodes} was enrolled from afar", _AT_THE_LEDGER
    elif asking:
        nodes = ", ".join(key.stem for key in asking)
        what, remedy = f"the request of {nodes} waits for its answer", _TAKE_THE_ANSWER
    else:
        return None
    return Refusal(
        "no_database_here",
        f"this machine has no database: {what}",
        where=str(data),
        remedy=_AT_THE_NODE.get(path, remedy),
    )


def has_cluster(data: Path) -> bool:
    """Whether the embedded database was ever made here."""
    return any(data.glob("postgres*"))


def _is_a_ledgers(folder: DataFolder) -> bool:
    """Whether intake signed here, or accepted something: then the database is missing, and is not somebody else's."""
    return any(folder.intake_keys.glob("*.key")) or folder.archive.is_dir()
