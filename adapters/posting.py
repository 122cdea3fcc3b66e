"""One HTTP POST to somebody the operator named: a witness, a time-stamping authority. Nothing else goes out."""

from __future__ import annotations

from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from metering.refusal import Refusal, Unavailable

_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 1_000_000


def check_address(url: str, where: str) -> str:
    """The address, if it is one of HTTP. Refusal `bad_address`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refusal("bad_address", f"{url!r} is no address", where=where, remedy="https://…")
    return url.rstrip("/")


def post(url: str, body: bytes, content_type: str) -> tuple[int, bytes]:
    """Status and body of the answer, whatever the status. Raises `Unavailable` where there is none in 10 s."""
    request = Request(url, body, {"Content-Type": content_type, "User-Agent": "tallygrid"}, method="POST")  # noqa: S310 - its scheme is checked where it is configured
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - as above
            return answer.status, answer.read(_MAX_ANSWER_BYTES)
    except HTTPError as refused:
        with refused:
            return refused.code, refused.read(_MAX_ANSWER_BYTES)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise Unavailable(
            "peer_unavailable",
            f"{url} does not answer: {reason}",
            where=url,
            remedy="it is asked again later",
        ) from error
