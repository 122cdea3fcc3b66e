"""The id of a response, by which its customer alone can ask for it again.

vLLM keeps stored responses of all clients in one place and gives each to anybody who names it. Its id is chosen by the
request, so the sidecar chooses one that says whose it is and where it lies, and needs no table to know that again, also
after a restart:

    resp_8d7f9c2e51b04c6da2f3e4b5c6d7e8f9_00a1b2c3d4e5f60718
         the request's id in the ledger   | the first 8 bytes of HMAC-SHA256(secret, request id ‖ customer id), in hex
                                          the engine's place among the sidecar's, two hex digits

`resp_unmetered-…` is one that was served unmetered. The secret is the node's (`identity.node_secret`), the same for all
sidecars of the node. A response is asked for at the engine of that place; after the engines' order was changed, an
older id is not found.
"""

from __future__ import annotations

import hmac
import re

from metering import engine_lines

#: Put before the id of a request that is served unmetered.
UNMETERED = engine_lines.UNMETERED.encode()
MAX_ORDINAL = 255
_ID = re.compile(r"resp_(?:unmetered-)?([0-9a-f]{32})_([0-9a-f]{2})([0-9a-f]{16})")


def make_response_id(
    secret: bytes, request: bytes, customer: bytes, ordinal: int, *, unmetered: bool = False
) -> bytes:
    """The id as text. `request` and `customer` are 16 bytes, `ordinal` the engine's, up to `MAX_ORDINAL`."""
    assert 0 <= ordinal <= MAX_ORDINAL
    tag = _tag(secret, request, customer)
    prefix = UNMETERED if unmetered else b""
    return b"resp_%b%b_%02x%b" % (prefix, request.hex().encode(), ordinal, tag.encode())


def engine_of_response(secret: bytes, response: str, customer: bytes) -> int | None:
    """The ordinal of the engine that keeps the response, if it is that customer's; else None."""
    found = _ID.fullmatch(response)
    if found is None:
        return None
    tag = _tag(secret, bytes.fromhex(found[1]), customer)
    return int(found[2], 16) if hmac.compare_digest(tag, found[3]) else None


def request_of_response(response: str) -> bytes | None:
    """The id in the ledger, 16 bytes, of the request that the response answers; None if it is no such id."""
    found = _ID.fullmatch(response)
    return None if found is None else bytes.fromhex(found[1])


def _tag(secret: bytes, request: bytes, customer: bytes) -> str:
    return hmac.digest(secret, request + customer, "sha256")[:8].hex()
