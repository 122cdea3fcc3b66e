"""What a log's key signed last, kept beside the key: `keys/log/<operator>.signed`, the newest signed checkpoint.

Archive and database tell each other when one of them is older than the other. Where both were put back to the same
earlier moment they agree, and the key would sign another tree of sizes that it has signed: two histories under one key,
which is what a log is there to exclude. The key's own folder remembers.

It is written once the checkpoint is archived, so that it never tells of one that nobody can have seen. It goes into no
backup, where it would be old. A folder of keys that is mounted read-only remembers nothing.
"""

from __future__ import annotations

import errno
import logging
from pathlib import Path

from metering.checkpoint import Checkpoint, read_checkpoint
from metering.durable import replace_file
from metering.note import Verifier
from metering.refusal import Refusal

logger = logging.getLogger(__name__)

SUFFIX = ".signed"
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_told: set[Path] = set()


def remember(key_path: Path, signed: bytes) -> None:
    """Keeps the checkpoint that was signed and archived."""
    path = key_path.with_suffix(SUFFIX)
    try:
        replace_file(path, signed, mode=0o600)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        if path not in _told:
            _told.add(path)
            logger.warning("what the log's key signs is not remembered beside it: %s", error)


def remembered(key_path: Path, verifier: Verifier) -> Checkpoint | None:
    """What the key signed last; None where that is not known. Refusal `log_put_back` where it is another key's."""
    path = key_path.with_suffix(SUFFIX)
    try:
        return read_checkpoint(path.read_bytes(), verifier)
    except FileNotFoundError:
        return None
    except Refusal as refused:
        raise Refusal(
            "log_put_back",
            f"what the log's key signed last can't be read: {refused.what}",
            where=str(path),
            remedy="it is another key's, or damaged: put back the one that belongs to the key",
        ) from None


def put_back(last: Checkpoint, size: int, operator: str) -> Refusal:
    """The refusal where the log of `size` leaves that is to be signed is not an extension of the last."""
    what = f"has {size} leaves" if size < last.size else "begins with others"
    return Refusal(
        "log_put_back",
        f"the key of {operator} has signed a log of {last.size} leaves, and the one that is here {what}",
        where=operator,
        remedy="archive and database were both put back: restore the newest archive that there is, then `tally restore`."
        f" Where it is lost for good: docs/backup.md, {SUFFIX}",
    )
