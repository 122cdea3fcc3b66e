"""One HTTP POST to somebody the operator named: a witness, a time-stamping authority. Nothing else goes out: no redirect
is followed and no proxy of the environment asked, for nobody named those.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from metering.refusal import Refusal, Unavailable

_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 1_000_000


def check_address(url: str, where: str) -> str:
    """The address, if it is one of HTTP. Refusal `bad_address`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not _has_port_or_none(url):
        raise Refusal("bad_address", f"{url!r} is no address", where=where, remedy="https://…")
    return url.rstrip("/")


def post(url: str, body: bytes, content_type: str) -> tuple[int, bytes]:
    """Status and body of the answer, whatever the status. Raises `Unavailable` where there is none, whole, in 10 s."""
    parts = urlsplit(url)
    assert parts.hostname, "addresses are checked where they are configured"
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=_TIMEOUT_S)
    late = threading.Event()
    # The connection's own timeout is of each read: an answer that drips would never end.
    timer = threading.Timer(_TIMEOUT_S, _cut, [connection, late])
    timer.daemon = True
    timer.start()
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", path, body, {"Content-Type": content_type, "User-Agent": "tallygrid"})
        answer = connection.getresponse()
        content = answer.read(_MAX_ANSWER_BYTES)
        if late.is_set():
            raise TimeoutError("the answer took too long")
        return answer.status, content
    except (OSError, HTTPException) as error:
        raise Unavailable(
            "peer_unavailable",
            f"{url} does not answer: {'the answer took too long' if late.is_set() else error}",
            where=url,
            remedy="it is asked again later",
        ) from error
    finally:
        timer.cancel()
        connection.close()


def _cut(connection: HTTPConnection, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError, AttributeError):  # closed already, or not connected yet
        connection.sock.shutdown(socket.SHUT_RDWR)


def _has_port_or_none(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
