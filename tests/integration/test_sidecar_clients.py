"""The side on which clients arrive: keys in two headers, a gateway that vouches, TLS, versions."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import pytest
from certificates import make_certificate, trusting
from scripted_engine import KEY, SECRET, Asked, Client, on_uvloop, request, sized, usage, world

from metering.caller import TrustedPeers
from metering.certificate import Certificate
from metering.identity import id_text
from metering.refusal import Refusal

ASK = {"model": "tiny", "messages": []}
BEARER = f"Authorization: Bearer {SECRET}\r\n"
X_API_KEY = f"x-api-key: {SECRET}\r\n"
BY_ID = f"X-Tally-Key: {id_text(KEY.id)}\r\n"


async def answers(asked: Asked) -> None:
    await asked.say(sized(b'{"id":"x"' + usage(1, 1) + b"}"))


def shown(head: str) -> bytes:
    """A request with these lines in the place of the usual key."""
    return request(ASK).replace(BEARER.encode(), head.encode())


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (X_API_KEY, 200),
        (BEARER + X_API_KEY, 200),
        (X_API_KEY + BEARER.replace("Bearer", "bearer"), 200),
        (BEARER + "x-api-key: tg_other\r\n", 401),
        ("Authorization: Bearer tg_other\r\n" + X_API_KEY, 401),
        (X_API_KEY + "x-api-key: tg_other\r\n", 401),
        (f"Authorization: Basic {SECRET}\r\n" + X_API_KEY, 401),
        (BEARER + BEARER, 401),
        ("x-api-key: \r\n", 401),
        ("x-api-key: tg_other\r\n", 401),
        (BY_ID, 401),
        ("", 401),
    ],
)
@on_uvloop
async def test_a_key_is_shown_in_either_header_and_never_two_of_them(
    tmp_path: Path, head: str, status: int
) -> None:
    async with world(tmp_path, answers) as it:
        answered, _, said = await it.ask(shown(head))
        assert answered == status
        assert status == 200 or b"x-api-key" in said or b"Unknown API key" in said
        assert len(it.engine.asked) == (status == 200)
        for asked in it.engine.asked:
            assert SECRET not in asked.head
            assert asked.header("x-api-key") is None


@pytest.mark.parametrize(
    ("peer", "head", "status"),
    [
        ("127.0.0.0/8", BY_ID, 200),
        ("127.0.0.1", BY_ID.lower(), 200),
        ("127.0.0.0/8", BEARER, 200),
        ("127.0.0.0/8", BY_ID + BEARER, 401),
        ("127.0.0.0/8", BY_ID + X_API_KEY, 401),
        ("127.0.0.0/8", BY_ID + BY_ID, 401),
        ("127.0.0.0/8", BY_ID.replace(id_text(KEY.id), "8d7f9c2e-0000-4000-8000-000000000000"), 401),
        ("127.0.0.0/8", BY_ID.replace(id_text(KEY.id), SECRET), 401),
        ("127.0.0.0/8", "X-Tally-Key: \r\n", 401),
        ("10.0.0.0/8", BY_ID, 401),
        ("10.0.0.0/8", BY_ID + BEARER, 200),
    ],
)
@on_uvloop
async def test_a_gateway_names_a_key_by_its_id_and_nobody_else_does(
    tmp_path: Path, peer: str, head: str, status: int
) -> None:
    trust = TrustedPeers.parse("X-Tally-Key", [peer, "fd00::/8"])
    async with world(tmp_path, answers, trust=trust) as it:
        assert (await it.ask(shown(head)))[0] == status
        assert [asked.header("x-tally-key") for asked in it.engine.asked] == [None] * (status == 200)
        assert [event["key"] for event in await it.events()] == [KEY.id] * (status == 200)


def test_addresses_are_compared_as_addresses() -> None:
    trust = TrustedPeers.parse("X-Key", ["10.1.0.0/16", "fd00::1"])
    assert [trust.trusts(peer) for peer in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "fd00::1%eth0")] == [
        True
    ] * 4
    assert [trust.trusts(peer) for peer in ("10.2.0.1", "fd00::2", "", None, "gateway")] == [False] * 5


@pytest.mark.parametrize(
    ("header", "peers"),
    [
        ("Authorization", ["10.0.0.1"]),
        ("Content-Length", ["10.0.0.1"]),
        ("Host", ["10.0.0.1"]),
        ("X Key", ["10.0.0.1"]),
        ("", ["10.0.0.1"]),
        ("X-Key", ["10.0.0.300"]),
        ("X-Key", ["10.0.0.1/8"]),
        ("X-Key", ["gateway"]),
    ],
)
def test_what_cannot_be_trusted_is_refused_at_the_start(header: str, peers: list[str]) -> None:
    with pytest.raises(Refusal) as refused:
        TrustedPeers.parse(header, peers)
    assert refused.value.code in ("bad_trust_header", "bad_trust_peer")


async def over_tls(port: int, chain: Path) -> tuple[Client, str]:
    """A client that trusts that certificate, and the common name that it was shown."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(chain))
    certificate = writer.get_extra_info("peercert")
    (((_, name),),) = certificate["subject"]
    return Client(reader, writer), name


@on_uvloop
async def test_clients_are_served_over_tls_and_the_certificate_is_renewed_in_place(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path, "first")
    certificate = Certificate(chain, key)
    async with world(tmp_path / "lane", answers, tls=certificate.context) as it:
        old, name = await over_tls(it.port, chain)
        assert name == "first"
        await old.send(request(ASK))
        assert (await old.answer())[0] == 200
        assert not certificate.renew()

        make_certificate(tmp_path, "second")
        assert certificate.renew()
        new, name = await over_tls(it.port, chain)
        assert name == "second"
        await new.send(b"nonsense\r\n\r\n")
        assert (await new.answer())[0] == 400
        assert await new.ended() == b""
        await old.send(request(ASK))  # what stood, stands
        assert (await old.answer())[0] == 200

        key.write_text("no key")
        with pytest.raises(Refusal, match="cannot be used"):
            certificate.renew()
        third, name = await over_tls(it.port, chain)
        assert name == "second"
        for client in (old, new, third):
            client.leave()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)):
            await it.ask(request(ASK))  # in the clear


def test_a_certificate_and_another_ones_key_are_refused(tmp_path: Path) -> None:
    chain, _ = make_certificate(tmp_path, "one")
    other = tmp_path / "other"
    other.mkdir()
    _, key = make_certificate(other, "two")
    for wrong in (key, tmp_path / "nothing", chain):
        with pytest.raises(Refusal, match="cannot be used"):
            Certificate(chain, wrong)


@on_uvloop
async def test_answers_are_asked_for_uncompressed_whatever_the_client_would_take(tmp_path: Path) -> None:
    async with world(tmp_path, answers) as it:
        await it.ask(request(ASK, head="Accept-Encoding: gzip, br\r\n"))
        assert it.engine.asked[0].header("accept-encoding") == "identity"


@pytest.mark.parametrize(("version", "status"), [("2.0", 505), ("1.2", 400), ("0.9", 400), ("3", 400)])
@on_uvloop
async def test_other_versions_of_http_are_refused(tmp_path: Path, version: str, status: int) -> None:
    async with world(tmp_path, answers) as it:
        client = await it.client()
        await client.send(request(ASK).replace(b"HTTP/1.1", b"HTTP/" + version.encode()))
        assert (await client.answer())[0] == status
        assert await client.ended() == b""
        assert it.engine.asked == []


@on_uvloop
async def test_a_large_body_arrives_whole(tmp_path: Path) -> None:
    async with world(tmp_path, answers) as it:
        ask = {**ASK, "messages": [{"role": "user", "content": "ü" * 4_000_000}]}
        assert (await it.ask(request(ask)))[0] == 200
        assert it.engine.asked[0].body == json.dumps(ask).encode()
