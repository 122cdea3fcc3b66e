"""Who asks: by a key's secret, or by a gateway that the operator trusts to have checked it.

A client shows its secret as `Authorization: Bearer SECRET` or, as Anthropic's clients do, as `x-api-key: SECRET`
(`http_request` takes both for one; two that differ are refused).

A gateway in front (`--trust-header NAME`, `--trust-peer CIDR`) names the key that it has found out by the key's id, as
`tally key list` shows it, in a header of that name. It counts only on connections that come from a listed address,
which the other end of a TCP connection cannot make up. From anybody else the header is dropped as if it were not
there, and so never reaches an engine either. A request that brings both the header and a secret is refused: one of the
two is not what it seems.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from uuid import UUID

from metering.http_head import RESERVED_HEADERS
from metering.http_refusal import Refused
from metering.http_request import Request
from metering.identity import hash_secret
from metering.keybook import KeyBook, KeyEntry
from metering.refusal import Refusal

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")


@dataclass(frozen=True, slots=True)
class TrustedPeers:
    """The header in which a gateway names a key, in lower case, and the addresses from which it counts."""

    header: bytes
    networks: tuple[IPv4Network | IPv6Network, ...]

    @classmethod
    def parse(cls, header: str, networks: Sequence[str]) -> TrustedPeers:
        """From a header's name and addresses (`10.0.0.7`) or ranges (`10.0.0.0/24`, `fd00::/8`).

        Refusals: `bad_trust_header` for no name of a header, or one that means something else; `bad_trust_peer`.
        """
        lowered = header.lower().encode("ascii", "replace")
        if not _NAME.fullmatch(header) or lowered in RESERVED_HEADERS:
            raise Refusal(
                "bad_trust_header",
                f"{header!r} cannot be the header that names a key",
                where="--trust-header",
                remedy="choose a name of its own, for instance X-Tally-Key",
            )
        return cls(lowered, tuple(_network(text) for text in networks))

    def trusts(self, peer: str | None) -> bool:
        """Whether a connection from that address (without its port) may name keys; None: not a TCP connection."""
        try:
            address = ip_address((peer or "").partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks)


def find_caller(request: Request, keys: KeyBook, now_us: Callable[[], int]) -> KeyEntry | Refused:
    """Whose request it is, or why it is nobody's. The clock is asked only about a key that expires."""
    if request.vouched:
        entry = _vouched_for(request, keys)
    else:
        if request.secret_sha256 is None:
            shown = _shown_secret(request.authorization)
            if isinstance(shown, Refused):
                return shown
            request.secret_sha256 = hash_secret(shown)
        entry = keys.find(request.secret_sha256) or _unauthorized("Unknown API key.")
    if isinstance(entry, KeyEntry) and entry.expires_us is not None and entry.expires_us <= now_us():
        return _unauthorized("This API key has expired.")
    return entry


def _vouched_for(request: Request, keys: KeyBook) -> KeyEntry | Refused:
    if request.authorization or len(request.vouched) > 1:
        return _unauthorized("One of a trusted key id and an API key is expected, once.")
    try:
        entry = keys.find_id(UUID(request.vouched[0].decode("latin-1")).bytes)
    except ValueError:
        entry = None
    return entry or _unauthorized("Unknown id of an API key.")


def _shown_secret(authorization: list[bytes]) -> str | Refused:
    """What all `Authorization` headers together show; there must be one, a bearer's."""
    if not authorization:
        return _unauthorized("No API key. Send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`.")
    scheme, _, secret = authorization[0].partition(b" ")
    if len(authorization) > 1 or scheme.lower() != b"bearer" or not secret:
        return _unauthorized(
            "One API key is expected, as `Authorization: Bearer KEY` or as `x-api-key: KEY`."
        )
    return secret.strip().decode("latin-1")


def _unauthorized(message: str) -> Refused:
    return Refused(401, "invalid_api_key", message, headers=((b"www-authenticate", b"Bearer"),))


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as problem:
        raise Refusal(
            "bad_trust_peer",
            f"{text!r} is no address and no range: {problem}",
            where="--trust-peer",
            remedy="for instance 10.0.0.7 or 10.0.0.0/24",
        ) from None
