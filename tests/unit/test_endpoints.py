"""What is let through, and whose requests."""

from __future__ import annotations

import pytest

from metering.caller import find_caller
from metering.dialects import DIALECTS
from metering.endpoints import (
    CANCEL,
    CHAT,
    ENDPOINTS,
    HEALTH,
    MODEL,
    MODELS,
    PREFLIGHT,
    RESPONSE,
    RESPONSES,
    Endpoint,
    find_endpoint,
    response_id,
)
from metering.http_refusal import Refused, answer_bytes
from metering.http_request import Request
from metering.identity import hash_secret
from metering.keybook import KeyEntry

ENTRY = KeyEntry(b"K" * 16, b"C" * 16, None, 1_000)


class Keys:
    """One key, whose secret is `tg_good`."""

    def find_id(self, id: bytes) -> KeyEntry | None:
        return None

    def find(self, secret_sha256: bytes) -> KeyEntry | None:
        return ENTRY if secret_sha256 == hash_secret("tg_good") else None


@pytest.mark.parametrize(
    ("method", "target", "endpoint"),
    [
        (b"POST", b"/v1/chat/completions", CHAT),
        (b"POST", b"/v1/chat/completions?x=1", CHAT),
        (b"GET", b"/v1/models", MODELS),
        (b"GET", b"/v1/models/Qwen/Qwen3-0.6B", MODEL),
        (b"GET", b"/health", HEALTH),
        (b"POST", b"/v1/responses", RESPONSES),
        (b"GET", b"/v1/responses/resp_1-a?stream=true", RESPONSE),
        (b"POST", b"/v1/responses/resp_1/cancel", CANCEL),
    ],
)
def test_what_is_on_the_list_passes(method: bytes, target: bytes, endpoint: Endpoint) -> None:
    assert find_endpoint(method, target) is endpoint


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/invocations",
        b"/metrics",
        b"/v1/load_lora_adapter",
        b"/v2/embed",
        b"/inference/v1/generate",
        b"/generative_scoring",
        b"/sleep",
        b"/v1/responses/",
        b"/v1/responses/a/b",
        b"/v1/responses/a/cancel/",
        b"/v1/responses/..",
        b"/v1/responses/%2e%2e/cancel",
        b"/v1/chat/completions/batch",
        b"/v1/chat/completions/",
        b"//v1/chat/completions",
        b"/v1/../v1/chat/completions",
        b"/v1/chat%2Fcompletions",
        b"/V1/models",
        b"/v1/models/",
        b"/v1/models/..",
        b"/v1/models/../../metrics",
        b"/v1/models/a/./b",
        b"/v1/models/%2e%2e/metrics",
        b"/v1/models//a",
        b"/v1/models/a;b",
    ],
)
def test_what_is_not_on_the_list_does_not_pass_and_says_what_would(target: bytes) -> None:
    refused = find_endpoint(b"POST", target)
    assert isinstance(refused, Refused)
    assert refused.status == 404
    assert "POST /v1/chat/completions" in refused.message


def test_every_route_of_the_list_is_found_and_names_a_known_dialect() -> None:
    for endpoint in ENDPOINTS:
        assert find_endpoint(endpoint.method, endpoint.path.replace(b"{id}", b"x")) is endpoint
        assert not endpoint.metered or endpoint.dialect in DIALECTS
        assert endpoint.needs_key or endpoint is HEALTH


def test_the_target_of_a_response_holds_its_id() -> None:
    assert response_id(b"/v1/responses/resp_1-a?stream=true") == "resp_1-a"
    assert response_id(b"/v1/responses/resp_1/cancel") == "resp_1"


def test_a_browsers_preflight_of_a_listed_route_passes_and_needs_no_key() -> None:
    for target in (b"/v1/chat/completions", b"/v1/responses/resp_1/cancel"):
        found = find_endpoint(b"OPTIONS", target)
        assert found is PREFLIGHT
        assert (found.needs_key, found.metered) == (False, False)
    assert isinstance(find_endpoint(b"OPTIONS", b"/metrics"), Refused)


def test_another_method_is_refused_and_the_right_one_named() -> None:
    refused = find_endpoint(b"GET", b"/v1/chat/completions")
    assert isinstance(refused, Refused)
    assert refused.status == 405
    assert b"allow: POST\r\n" in answer_bytes(refused, keep_alive=True)


def find_key(authorization: list[bytes], now_us: int) -> KeyEntry | Refused:
    request = Request(b"GET", b"/", [], keep_alive=True, http10=False, authorization=authorization)
    return find_caller(request, Keys(), lambda: now_us)


def test_a_key_is_found_by_its_hash_until_it_expires() -> None:
    assert find_key([b"Bearer tg_good"], 999) is ENTRY
    assert find_key([b"bearer  tg_good "], 999) is ENTRY
    expired = find_key([b"Bearer tg_good"], 1_000)
    assert isinstance(expired, Refused)
    assert "expired" in expired.message


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b"Bearer tg_bad"],
        [b"Bearer"],
        [b"Basic dGc6"],
        [b"tg_good"],
        [b"Bearer tg_good"] * 2,
        [b"Bearer \xff\xfe"],
    ],
)
def test_without_a_good_key_nothing_passes(values: list[bytes]) -> None:
    refused = find_key(values, 0)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (401, "invalid_api_key")
    assert b"tg_" not in answer_bytes(refused, keep_alive=True)
