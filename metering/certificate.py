"""The certificate that a server shows, read again when its files change.

One `ssl.SSLContext` serves all the while: connections that stand keep what they agreed on, new ones get what was loaded
last. A new pair is tried on a context of its own first, because one that turns out not to fit would leave half of it
in the context that serves.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from metering.durable import file_signature
from metering.refusal import Refusal

_LOOK_S = 5.0
_Signature = tuple[tuple[int, int, int] | None, ...]
_log = logging.getLogger(__name__)


class Certificate:
    """A certificate chain and its private key, both PEM; `context` is for the listening socket."""

    def __init__(self, chain: Path, key: Path) -> None:
        """Refusal `bad_certificate` if they cannot be read or do not belong together."""
        self._chain, self._key = chain, key
        self._seen = self._signature()
        self.context = self._load()

    def renew(self, *, always: bool = False) -> bool:
        """Load the files again if they have changed (or `always`); whether they were.

        Refusal `bad_certificate`: what was loaded before goes on, and the next change is looked at.
        """
        seen = self._signature()
        if seen == self._seen and not always:
            return False
        self._seen = seen
        self._load()
        self.context.load_cert_chain(self._chain, self._key)
        return True

    async def watch(self, now: asyncio.Event) -> None:
        """Renew for ever (cancel it to stop): every 5 s if the files have changed, and at once when `now` is set."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    await now.wait()
            except TimeoutError:
                pass
            try:
                if self.renew(always=now.is_set()):
                    _log.info("the certificate was renewed")
            except Refusal as bad:
                _log.warning("%s; the certificate before it is shown on", bad.what)
            now.clear()

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._chain, self._key, password=_no_password)
        except (OSError, ValueError) as problem:  # ssl.SSLError is an OSError
            raise Refusal(
                "bad_certificate",
                f"the certificate and its key cannot be used: {problem.strerror or problem}"
                if isinstance(problem, OSError)
                else f"the certificate and its key cannot be used: {problem}",
                where=f"{self._chain}, {self._key}",
                remedy="give a PEM chain and the unencrypted PEM key that belongs to it",
            ) from None
        return context

    def _signature(self) -> _Signature:
        return tuple(file_signature(path) for path in (self._chain, self._key))


def _no_password() -> str:
    """Without it OpenSSL would ask on the terminal, and wait."""
    return ""
