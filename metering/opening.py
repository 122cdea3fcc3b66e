"""May a request go to the engine, and as whose: the exchange for it, or why there is none."""

from __future__ import annotations

from metering.dialects import DIALECTS
from metering.endpoints import CANCEL, RESPONSE, response_id
from metering.exchange import Exchange
from metering.exchange_step import UNKNOWN_MODEL
from metering.http_refusal import Refused
from metering.http_request import Request
from metering.request_body import read_pooled
from metering.response_id import engine_of_response
from metering.write_ahead import Intent

#: Nobody would know what was used: neither the answer says it nor the engine.
_BARE = Refused(
    400,
    "usage_not_told",
    "encoding_format bytes_only says nothing of its usage and is not served here; bytes has it in a header.",
)


def open_exchange(
    request: Request, request_id: bytes, now_us: int, secret: bytes, *, witness: bool = True
) -> Exchange | Refused:
    """The exchange for a request that may go to the engine, or why it may not: its body cannot be read, it names a
    response that is not its customer's, or nobody would tell its usage.

    `request_id` are the 16 bytes minted for it; `secret` is the node's (`metering.response_id`); `witness`: the engine
    tells by its lines what an answer does not.
    """
    endpoint, key = request.endpoint, request.key
    if not endpoint.metered:
        return _free(request, secret)
    assert key is not None
    dialect = DIALECTS[endpoint.dialect]
    ask = dialect.request(request)
    if isinstance(ask, Refused):
        return ask
    if ask.bare and not witness:
        return _BARE
    kept_by = None
    if ask.previous is not None:
        kept_by = engine_of_response(secret, ask.previous, key.customer)
        if kept_by is None:
            return _no_response(ask.previous)
    intent = Intent(
        request_id, now_us, key.customer, key.project, key.id, endpoint.name, ask.model or UNKNOWN_MODEL
    )
    return Exchange(request, ask, intent, dialect, secret=secret, kept_by=kept_by)


def _free(request: Request, secret: bytes) -> Exchange | Refused:
    """What leaves no event. Where engines serve different models, a body's model still says which is meant."""
    endpoint, key = request.endpoint, request.key
    if endpoint is RESPONSE or endpoint is CANCEL:
        assert key is not None
        response = response_id(request.target)
        kept_by = engine_of_response(secret, response, key.customer)
        return _no_response(response) if kept_by is None else Exchange(request, None, None, kept_by=kept_by)
    if endpoint.dialect == "counted":
        read = read_pooled(request.body)
        if isinstance(read, Refused):
            return read
        return Exchange(request, None, None, model=read.model)
    return Exchange(request, None, None)


def _no_response(response: str) -> Refused:
    """In vLLM's own words: a response of another customer's is as one that never was."""
    return Refused(
        404, "response_not_found", f"Response with id '{response}' not found.", engines_own="response_id"
    )
