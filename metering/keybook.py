"""The API keys that a sidecar knows, and their snapshot on disk.

Secrets are never here: a key is found by the SHA-256 of its secret. The sidecar asks nobody while a request waits.
It holds all keys of its operator in memory, renewed every few seconds from wherever they are administered, and keeps
the last state on disk, so that it goes on serving, also after a restart, while the ledger is away. The file
(`keys/snapshot-<operator>.json` in the data folder, mode 0600) holds no secret and no name:

    {"format": "tallygrid/keys/v1",
     "keys": [{"id": "8d7f…-…", "secret_sha256": "64 hex digits", "customer": "5b0c…-…",
               "project": null, "expires_us": null}]}
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from metering.durable import replace_file
from metering.identity import id_bytes, id_text
from metering.refusal import Refusal, Unavailable

_FORMAT = "tallygrid/keys/v1"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """Whose key it is. Ids are 16 bytes; `expires_us` is the first instant at which the key no longer holds."""

    id: bytes
    customer: bytes
    project: bytes | None
    expires_us: int | None


class KeyBook(Protocol):
    """What the sidecar needs of the keys."""

    def find(self, secret_sha256: bytes) -> KeyEntry | None:
        """The key with that hash, or None. Expiry is the caller's to check."""
        ...

    def find_id(self, id: bytes) -> KeyEntry | None:
        """The key with that id, or None. Expiry is the caller's to check."""
        ...


Keys = Mapping[bytes, KeyEntry]


class SnapshotKeyBook:
    """Keys in memory with a copy on disk."""

    def __init__(self, path: Path, keys: Keys) -> None:
        self._path = path
        self._keys = dict(keys)
        self._by_id = {entry.id: entry for entry in keys.values()}

    @classmethod
    def load(cls, path: Path) -> SnapshotKeyBook:
        """The snapshot at `path`, empty if there is none. Refusal `bad_key_snapshot` if it cannot be read as one."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return cls(path, {})
        try:
            return cls(path, parse_snapshot(text))
        except (ValueError, KeyError, TypeError, Refusal):
            raise Refusal(
                "bad_key_snapshot",
                "the file is no snapshot of keys",
                where=str(path),
                remedy="remove it; it is written anew as soon as the ledger answers",
            ) from None

    def find(self, secret_sha256: bytes) -> KeyEntry | None:
        return self._keys.get(secret_sha256)

    def find_id(self, id: bytes) -> KeyEntry | None:
        return self._by_id.get(id)

    def keys(self) -> Keys:
        """All of them, by the SHA-256 of their secrets."""
        return dict(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def replace(self, keys: Keys) -> bool:
        """Put `keys` in the place of all earlier ones, on disk too; whether anything changed.

        Memory comes first: a revoked key is refused at once, even where the disk is full.
        """
        if keys == self._keys:
            return False
        self._keys = dict(keys)
        self._by_id = {entry.id: entry for entry in keys.values()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._path, snapshot_text(self._keys).encode(), mode=0o600)
        return True

    async def refresh(self, source: Callable[[], Awaitable[Keys]], *, every_s: float = 1.0) -> None:
        """Renew from `source` for ever (cancel it to stop). While the source is away the last state stays."""
        away = False
        while True:
            try:
                self.replace(await source())
                away = False
            except (Unavailable, Refusal, OSError) as error:  # a changed password is as good as away
                if not away:
                    _log.warning("keys are not renewed, the last state is used: %s", error)
                away = True
            await asyncio.sleep(every_s)


def snapshot_text(keys: Keys) -> str:
    """The keys as they stand in the file."""
    rows = [
        {
            "id": id_text(entry.id),
            "secret_sha256": digest.hex(),
            "customer": id_text(entry.customer),
            "project": None if entry.project is None else id_text(entry.project),
            "expires_us": entry.expires_us,
        }
        for digest, entry in sorted(keys.items())
    ]
    return json.dumps({"format": _FORMAT, "keys": rows}, indent=1)


def parse_snapshot(text: str) -> dict[bytes, KeyEntry]:
    """The keys of a file's text; ValueError, KeyError, TypeError or Refusal if it is none."""
    document = json.loads(text)
    if document["format"] != _FORMAT:
        raise ValueError(document["format"])
    keys: dict[bytes, KeyEntry] = {}
    for row in document["keys"]:
        digest = bytes.fromhex(row["secret_sha256"])
        expires_us = row["expires_us"]
        if len(digest) != 32 or not (expires_us is None or type(expires_us) is int):
            raise ValueError(row)
        project = None if row["project"] is None else id_bytes(row["project"])
        keys[digest] = KeyEntry(id_bytes(row["id"]), id_bytes(row["customer"]), project, expires_us)
    return keys
