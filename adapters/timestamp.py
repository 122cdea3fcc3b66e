"""Time stamps of checkpoints by somebody else (RFC 3161), where the operator names an authority. Off by default.

A witness shows that a log has one history; a time stamp shows that it had it by then, to a court that knows the
authority. Stamped is the checkpoint's whole note. The answer is kept as it came (application/timestamp-reply), and

    openssl ts -verify -data checkpoint -in 000000000011-….tsr -CAfile roots.pem

checks it without us. An answer is only kept if its chain ends at a root that the operator named.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.x509 import Certificate, load_pem_x509_certificates
from rfc3161_client import (
    HashAlgorithm,
    TimeStampRequest,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from adapters.posting import check_address, post
from metering.refusal import Refusal, Unavailable

URL = "TALLY_TIMESTAMP_URL"
ROOTS = "TALLY_TIMESTAMP_ROOTS"
_HTTP_OK = 200


@dataclass(frozen=True, slots=True)
class Authority:
    """A time-stamping authority: where it answers, and the roots that its certificate must lead to."""

    url: str
    roots: tuple[Certificate, ...]


def read_authority(url: str, roots: str | None) -> Authority:
    """The authority that the two settings name. Refusal `bad_timestamp_settings`."""
    try:
        certificates = load_pem_x509_certificates(Path(roots or "").read_bytes())
    except (OSError, ValueError):
        raise Refusal(
            "bad_timestamp_settings",
            f"{URL} is set, and {ROOTS} names no file with root certificates",
            where=ROOTS,
            remedy="a PEM file with the roots that the authority's certificate leads to",
        ) from None
    return Authority(check_address(url, URL), tuple(certificates))


def stamp(authority: Authority, message: bytes) -> bytes:
    """The authority's time stamp of `message`, as it answered, verified.

    Raises `Unavailable` while it does not answer; Refusal `bad_timestamp` where the answer is no stamp of this message
    by this authority.
    """
    request = TimestampRequestBuilder().data(message).hash_algorithm(HashAlgorithm.SHA256).build()
    status, answer = post(authority.url, request.as_bytes(), "application/timestamp-query")
    if status != _HTTP_OK:
        raise Unavailable(
            "timestamp_unavailable", f"{authority.url} answers with status {status}", where=authority.url
        )
    read_stamp(answer, message, authority.roots, request)
    return answer


def stamped_at(answer: bytes) -> datetime | None:
    """When an answer that was kept says that it was made; unchecked."""
    try:
        return decode_timestamp_response(answer).tst_info.gen_time
    except ValueError:
        return None


def read_stamp(
    answer: bytes, message: bytes, roots: tuple[Certificate, ...], request: TimeStampRequest | None = None
) -> datetime:
    """When `message` was stamped. Refusal `bad_timestamp` unless it is, under one of `roots`, and answers `request`."""
    builder = VerifierBuilder() if request is None else VerifierBuilder.from_request(request)
    for root in dict.fromkeys(roots):
        builder = builder.add_root_certificate(root)
    try:
        response = decode_timestamp_response(answer)
        builder.build().verify_message(response, message)
    except (ValueError, VerificationError) as wrong:
        raise Refusal("bad_timestamp", f"this is no good time stamp of the checkpoint: {wrong}") from None
    return response.tst_info.gen_time
