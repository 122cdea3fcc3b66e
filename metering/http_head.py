"""The head of a request: which of its lines are ours, which the engine is to see, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metering.http_refusal import Refused

if TYPE_CHECKING:
    from metering.http_request import Limits, Request

Headers = list[tuple[bytes, bytes]]

#: Headers of one connection only (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding"
    b" upgrade".split()
)
# What the sidecar says to the engine in its own words, and the client's key, which is nobody else's business. Answers
# are asked for uncompressed, so that usage can be read in passing.
_OURS = frozenset(
    b"authorization x-api-key host content-length expect x-request-id accept-encoding content-encoding"
    b" http2-settings".split()
)
_DROPPED = HOP_BY_HOP | _OURS
#: Headers that mean something already.
RESERVED_HEADERS = _DROPPED | {b"content-type"}
# What llhttp, the parser, says of `PRI * HTTP/2.0`.
_PREFACE = "Pause on PRI/Upgrade"


def take_head(
    request: Request,
    version: str,
    headers: Headers,
    limits: Limits,
    trust_header: bytes | None,
    *,
    trusted: bool,
) -> Refused | None:
    """Sort the headers of `request`; say what is wrong with its head. `trust_header` counts where it is `trusted`."""
    if request.http10 and version != "1.0":
        return _version_refused(version)
    size = len(request.target)
    if size > limits.target_bytes:
        return _target_too_long(limits)
    if not request.target.startswith(b"/") or b"#" in request.target:
        return Refused(400, "bad_target", "The request target must be a path.", close=True)
    hosts = 0
    connection = b""
    api_keys: list[bytes] = []
    lines = request.lines
    for name, value in headers:
        size += len(name) + len(value) + 4
        lowered = name.lower()
        if lowered == trust_header:
            if trusted:
                request.vouched += (value.strip(),)
        elif lowered not in _DROPPED:
            # Some servers take `_` for `-`: what is ours may not come back to an engine in that disguise.
            if b"_" not in lowered or lowered.replace(b"_", b"-") not in _DROPPED:
                lines.append(name + b": " + value)
        elif lowered == b"host":
            hosts += 1
        elif lowered == b"authorization":
            request.authorization.append(value.strip())
        elif lowered == b"content-length":
            request.length = int(value)
        elif lowered == b"x-api-key":
            api_keys.append(value.strip())
        elif lowered == b"connection":
            connection += b"," + value.lower()
        elif lowered == b"expect":
            if value.strip().lower() != b"100-continue":
                return Refused(
                    417, "unknown_expectation", "Only `Expect: 100-continue` is known.", close=True
                )
            request.expects_continue = True
        elif lowered == b"transfer-encoding" and value.strip().lower() != b"chunked":
            return Refused(501, "unknown_transfer_encoding", "Only `chunked` is known.", close=True)
    if size > limits.head_bytes or len(headers) > limits.headers:
        return head_too_large(limits)
    if hosts > 1 or (hosts == 0 and not request.http10):
        return Refused(400, "bad_host", "There must be exactly one Host header.", close=True)
    if api_keys:
        _add_keys(request.authorization, api_keys)
    if connection:
        _drop_named(request, connection)
    if request.length is not None and request.length > limits.body_bytes:
        return body_too_large(limits)
    return None


def head_too_large(limits: Limits) -> Refused:
    what = f"The head of a request is limited to {limits.head_bytes} bytes and {limits.headers} header lines."
    return Refused(431, "head_too_large", what, close=True)


def body_too_large(limits: Limits) -> Refused:
    return Refused(413, "body_too_large", f"A body is limited to {limits.body_bytes} bytes.", close=True)


def _add_keys(authorization: list[bytes], api_keys: list[bytes]) -> None:
    """An `x-api-key` is one more way to show a key: beside a bearer's it has to be the same one."""
    for secret in api_keys:
        if all(shown.partition(b" ")[2].strip() != secret for shown in authorization):
            authorization.append(b"Bearer " + secret)


def _drop_named(request: Request, connection: bytes) -> None:
    """Headers that `Connection` names are of this connection only, whatever they are."""
    named = {token.strip() for token in connection.split(b",")} - {b"", b"close", b"keep-alive"}
    if named:
        request.lines = [line for line in request.lines if line.partition(b":")[0].lower() not in named]


def not_parsed(why: str) -> Refused:
    """What httptools could not read. The preface of HTTP/2 (RFC 9113, 3.4) is another version, not nonsense."""
    if why == _PREFACE:
        return _version_refused("2")
    return Refused(400, "bad_request", f"Not valid HTTP/1.1: {why}.", close=True)


def _version_refused(version: str) -> Refused:
    if version.startswith("0"):
        return Refused(400, "bad_request", "Not valid HTTP/1.1: an older version.", close=True)
    return Refused(505, "http_version", "This server speaks HTTP/1.1 and HTTP/1.0.", close=True)


def _target_too_long(limits: Limits) -> Refused:
    what = f"The request line is limited to {limits.target_bytes} bytes."
    return Refused(431, "target_too_long", what, close=True)
