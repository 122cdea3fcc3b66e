"""Where an engine listens, and the key that it asks for.

The engine's key is the sidecar's own: clients' keys end at the sidecar, and what goes on carries `Authorization:
Bearer` with the first line of `--engine-key-file`. The file is read at the start and again when it has changed, so
that a key can be turned over without a restart; its content is never logged.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from metering.durable import file_signature
from metering.refusal import Refusal

_KEY = re.compile(rb"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where the engine listens, and how it is named in `Host`. `tls`: it is an https one."""

    host: str
    port: int
    name: bytes
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> EngineAddress:
        """`http://HOST[:PORT]` or `https://HOST[:PORT]`. Refusal `bad_engine_url` for anything else.

        A URL with a name and a password in it is not repeated in the refusal.
        """
        try:
            parts = urlsplit(url)
            tls = parts.scheme == "https"
            host, port = parts.hostname, parts.port or (443 if tls else 80)
            name = parts.netloc.encode("ascii")
        except ValueError:
            host, port, parts, name, tls = None, 0, urlsplit(""), b"", False
        if "@" in url:
            raise _bad_url(
                "the address of an engine holds no user and no password", "--engine-key-file names its key"
            )
        if parts.scheme not in ("http", "https") or not host:
            raise _bad_url(f"{url!r} is no address of an engine")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise _bad_url(f"{url!r} has something after the port", "clients' paths go on as they are")
        return cls(host, port, name, tls)

    def context(self) -> ssl.SSLContext | None:
        """How to speak to it: None in the clear, else TLS with the system's authorities (`SSL_CERT_FILE` names others)."""
        return ssl.create_default_context() if self.tls else None


class EngineKey:
    """The engine's key in its file. `opening` is what it adds to the head of each request."""

    def __init__(self, path: Path) -> None:
        """Refusal `bad_engine_key` if the file cannot be read or holds no key."""
        self._path = path
        self._seen = file_signature(path)
        self.opening = _read(path)

    def renew(self) -> bool:
        """Read the file again if it has changed; whether the key is another now.

        Refusal `bad_engine_key` if the new content is none: the old key stays, and the next change is looked at.
        """
        seen = file_signature(self._path)
        if seen == self._seen:
            return False
        self._seen = seen
        opening = _read(self._path)
        changed, self.opening = opening != self.opening, opening
        return changed


def _bad_url(what: str, more: str = "") -> Refusal:
    remedy = "give http://HOST:PORT" + (f"; {more}" if more else "")
    return Refusal("bad_engine_url", what, where="--engine", remedy=remedy)


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise _bad_key(path, f"cannot be read: {problem.strerror}") from None
    key = content.strip()
    if not _KEY.fullmatch(key):
        raise _bad_key(path, "holds no key: one line of visible ASCII characters is expected")
    return b"Authorization: Bearer " + key


def _bad_key(path: Path, why: str) -> Refusal:
    return Refusal(
        "bad_engine_key",
        f"the engine's key file {why}",
        where=f"--engine-key-file {path}",
        remedy="put the key that vLLM was given (--api-key) into it, and nothing else",
    )
