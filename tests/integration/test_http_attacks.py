"""Attacks of clients on the way requests are told apart, with the engine behind.

Each says what the attacker is answered and whether its connection ends. Where it goes on, it must be as good as new: no
answer too many, none too few. All the while an honest client must get its own answers and nothing else.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import pytest
from attacked_world import CHAT, FORBIDDEN, SMUGGLED, asking, attacked, chunks, post
from scripted_engine import SECRET, Client, on_uvloop

OWN = asking("mark-own")
END = b"0\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
ENDS = True
GOES_ON = False
Attack = tuple[bytes, list[int], bool]


def head(line: str) -> bytes:
    """A good request but for one more line in its head."""
    return post(OWN, line + "\r\n")


def raw(first: str, *, body: bytes = b"") -> bytes:
    """A request with that request line."""
    return f"{first}\r\nHost: s\r\nAuthorization: Bearer {SECRET}\r\n\r\n".encode("latin-1") + body


# Two ideas of where a request ends: with another length or encoding, the second request hides in the first one's body.
LENGTHS: dict[str, Attack] = {
    "length before chunked": (post(END + SMUGGLED, CHUNKED), [400], ENDS),
    "chunked before length": (
        post(END + SMUGGLED, CHUNKED + f"Content-Length: {len(END + SMUGGLED)}\r\n", length=""),
        [400],
        ENDS,
    ),
    "two lengths": (post(OWN + SMUGGLED, f"Content-Length: {len(OWN)}\r\n"), [400], ENDS),
    "one length twice": (post(OWN, f"Content-Length: {len(OWN)}\r\n"), [400], ENDS),
    "no length": (
        post(OWN, length="") + SMUGGLED,
        [200, 400],
        ENDS,
    ),  # an empty body, then what is no request
    **{
        f"length {length!r}": (post(OWN, length=length) + SMUGGLED, [400], ENDS)
        for length in (
            "5, 5",
            "+5",
            "-0",
            "0x5",
            "5 5",
            "5x",
            "1e2",
            "\xb2",
            "99999999999999999999",
            " ",
            "5;",
        )
    },
}

# Ways of writing an encoding that one server takes for chunked and another does not.
ENCODINGS: dict[str, Attack] = {
    **{
        f"encoding {line!r}": (post(END + SMUGGLED, line + "\r\n"), [400], ENDS)
        for line in (
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity, chunked",
            'Transfer-Encoding: "chunked"',
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding: \x00chunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            " Transfer-Encoding: chunked",
            "X: y\r\n Transfer-Encoding: chunked",
            "X: y\nTransfer-Encoding: chunked",
            "X: y\rTransfer-Encoding: chunked",
            "Transfer-Encoding:\r\n chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
            "tRANSFER-eNCODING:\tCHUNKED",
        )
    },
    # These are no encoding by any name: they are headers like others, and the length says how long the body is.
    **{
        f"no encoding {line!r}": (post(OWN, line + "\r\n"), [200], GOES_ON)
        for line in (
            "X-Transfer-Encoding: chunked",
            "Transfer_Encoding: chunked",
            "Content_Length: 1",
            "TE: chunked",
        )
    },
    "chunked as it should be": (post(chunks(OWN), CHUNKED, length=""), [200], GOES_ON),
    "chunked in capitals": (post(chunks(OWN), "TRANSFER-ENCODING:CHUNKED\r\n", length=""), [200], GOES_ON),
    "gzip, chunked": (post(chunks(OWN), "Transfer-Encoding: gzip, chunked\r\n", length=""), [501], ENDS),
    "chunked and behind it another": (post(chunks(OWN), CHUNKED, length="") + SMUGGLED, [200, 404], GOES_ON),
}

# Chunks that are read in two ways.
CHUNKS: dict[str, Attack] = {
    **{
        f"chunk {size!r}": (post(chunks(OWN, size=size), CHUNKED, length="") + SMUGGLED, [400], ENDS)
        for size in (
            "0x20",
            "+20",
            "-20",
            " 20",
            "20 ",
            "20\t",
            "zz",
            "1" * 17,
            "20\n20",
        )
    },
    "longer than it says": (post(b"3\r\nabcdef\r\n" + END, CHUNKED, length="") + SMUGGLED, [400], ENDS),
    "ended by a bare line feed": (post(b"3\nabc\n0\n\n", CHUNKED, length="") + SMUGGLED, [400], ENDS),
    "with an extension": (post(chunks(OWN, size=f"{len(OWN):x};a=b"), CHUNKED, length=""), [200], GOES_ON),
    "with a quoted extension": (
        post(chunks(OWN, size=f'{len(OWN):x};a="b;c"'), CHUNKED, length=""),
        [200],
        GOES_ON,
    ),
    "an extension that hides a line": (
        post(chunks(OWN, size=f"{len(OWN):x};a=\n0"), CHUNKED, length="") + SMUGGLED,
        [400],
        ENDS,
    ),
    "with trailers": (
        post(chunks(OWN, end=b"0\r\nAuthorization: Bearer x\r\nX-A: b\r\n\r\n"), CHUNKED, length=""),
        [200],
        GOES_ON,
    ),
    "a length among the trailers": (
        post(chunks(OWN, end=b"0\r\nContent-Length: 99\r\n\r\n"), CHUNKED, length="") + SMUGGLED,
        [400],
        ENDS,
    ),
    "a folded trailer": (
        post(chunks(OWN, end=b"0\r\nX: a\r\n b\r\n\r\n"), CHUNKED, length="") + SMUGGLED,
        [400],
        ENDS,
    ),
}

# Heads that one server reads as one line and another as two.
HEADS: dict[str, Attack] = {
    **{
        f"line {line!r}": (head(line), [400], ENDS)
        for line in (
            "X: a\r\n b",
            "X: a\r\n\tb",
            "X: a\nY: b",
            "X: a\rY: b",
            "X: a\x00b",
            "X\x00: a",
            "X: a\x0bb",
            "X : a",
            ": a",
            "X",
            "X(: a",
            "X\xe9: a",
            "Host: another",
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            "Upgrade: websocket\r\nConnection: Upgrade",
        )
    },
    "bare line feeds": (post(OWN).replace(b"\r\n", b"\n"), [400], ENDS),
    "bare carriage returns": (post(OWN).replace(b"\r\n", b"\r"), [400], ENDS),
    "empty lines before": (b"\r\n\r\n" + post(OWN), [200], GOES_ON),
    "a space before": (b" " + post(OWN), [400], ENDS),
    "a response": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + SMUGGLED, [400], ENDS),
    "TLS where there is none": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400], ENDS),
    "PROXY protocol": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + post(OWN), [400], ENDS),
    "HTTP/2 at once": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400], ENDS),
    "a header a megabyte long": (head("X: " + "a" * 2**20), [431], ENDS),
    "a thousand headers": (head("\r\n".join(f"X-{number}: a" for number in range(1000))), [431], ENDS),
    "a target of 9 kB": (post(OWN, path=CHAT + "?" + "a" * 9000), [431], ENDS),
    "headers named by Connection": (
        head("Connection: keep-alive, content-type, x-request-id, host"),
        [200],
        GOES_ON,
    ),
    "an expectation that nobody knows": (head("Expect: the-unexpected"), [417], ENDS),
}

# Requests for what is not listed, in disguise.
TARGETS: dict[str, Attack] = {
    **{
        f"target {target!r}": (post(OWN, path=target), [status], status == 400)
        for target, status in {
            "http://s/v1/chat/completions": 400,
            "https://elsewhere/v1/chat/completions": 400,
            "//s/v1/chat/completions": 404,
            "/v1/../invocations": 404,
            "/v1/chat/completions/../../../invocations": 404,
            "/v1/%2e%2e/invocations": 404,
            "/v1/chat/completions/%2e%2e/%2e%2e/%2e%2e/metrics": 404,
            "/v1/chat/completions%2f..%2f..": 404,
            "/v1/chat/completions/": 404,
            "/v1/chat/completions;a=b": 404,
            "/v1//chat/completions": 404,
            "/V1/CHAT/COMPLETIONS": 404,
            "/%76%31/chat/completions": 404,
            "/v1/chat/completions%00": 404,
            "/v1/chat/completions\\..\\..": 404,
            "/v1/chat/completions#x": 400,
            "*": 400,
            "s:80": 400,
            "": 400,
        }.items()
    },
    **{
        f"target GET {target!r}": (raw(f"GET {target} HTTP/1.1"), [404], GOES_ON)
        for target in (
            "/v1/models/../../metrics",
            "/v1/models/..",
            "/v1/models/%2e%2e/%2e%2e/metrics",
            "/v1/models/a/../../../metrics",
            "/v1/models/..%2f..%2fmetrics",
            "/v1/models//metrics",
            "/metrics",
            "/docs",
            "/openapi.json",
            "/server_info",
            "/v1/models/",
        )
    },
    "two targets": (raw("GET /v1/models /metrics HTTP/1.1"), [400], ENDS),
    "no version": (b"GET /v1/models\r\n\r\n", [400], ENDS),
    "a query": (post(OWN, path=CHAT + "?a=/../../metrics"), [200], GOES_ON),
}

METHODS: dict[str, Attack] = {
    **{
        f"method {method}": (raw(f"{method} {CHAT} HTTP/1.1"), [405], GOES_ON)
        for method in ("TRACE", "PUT", "DELETE", "PATCH", "PROPFIND", "GET")
    },
    "a preflight": (raw(f"OPTIONS {CHAT} HTTP/1.1"), [200], GOES_ON),
    "a preflight of what is not listed": (raw(f"OPTIONS {FORBIDDEN} HTTP/1.1"), [404], GOES_ON),
    "a preflight with a body": (
        raw(f"OPTIONS {CHAT} HTTP/1.1").replace(
            b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)
        )
        + SMUGGLED,
        [413],
        ENDS,
    ),
    "CONNECT": (raw("CONNECT s:80 HTTP/1.1", body=SMUGGLED), [400], ENDS),
    "CONNECT to a path": (raw(f"CONNECT {CHAT} HTTP/1.1", body=SMUGGLED), [400], ENDS),
    **{
        f"method {method}": (raw(f"{method} {CHAT} HTTP/1.1"), [400], ENDS)
        for method in ("post", "FOO", "POST\x00", "", "PO ST")
    },
    "a GET with a body that is a request": (
        raw("GET /v1/nothing HTTP/1.1").replace(
            b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)
        )
        + SMUGGLED,
        [404],
        GOES_ON,
    ),
    "a refused request with a body that is a request": (
        post(SMUGGLED, path="/nowhere"),
        [404],
        GOES_ON,
    ),
    "a request behind the last one": (post(OWN, "Connection: close\r\n") + SMUGGLED, [200], ENDS),
    "HTTP/1.0 keeps nothing": (
        post(OWN, "Connection: keep-alive\r\n").replace(b"/1.1", b"/1.0") + SMUGGLED,
        [200],
        ENDS,
    ),
    "a wrong key and the body of a request": (
        post(SMUGGLED).replace(SECRET.encode(), b"tg_wrong", 1),
        [401],
        GOES_ON,
    ),
}

ATTACKS = {**LENGTHS, **ENCODINGS, **CHUNKS, **HEADS, **TARGETS, **METHODS}


async def answered(client: Client, count: int) -> list[tuple[int, bytes]]:
    return [(status, body) for status, _, body in [await client.answer() for _ in range(count)]]


@on_uvloop
async def test_no_attack_reaches_the_engine_or_another_clients_answer(tmp_path: Path) -> None:
    failures: list[str] = []
    async with attacked(tmp_path) as here:
        for name, (data, statuses, ends) in ATTACKS.items():
            client = await here.it.client()
            try:
                async with asyncio.timeout(5):
                    with suppress(ConnectionError):
                        await client.send(data)
                    answers = await answered(client, len(statuses))
                    assert [status for status, _ in answers] == statuses
                    assert all(
                        b"mark-own" in body or b"none" in body for status, body in answers if status == 200
                    )
                    if ends:
                        assert await client.ended() == b""
                    else:
                        await here.own_answer(client, "mark-after")
            except (AssertionError, TimeoutError, asyncio.IncompleteReadError, ConnectionError) as failed:
                failures.append(f"{name}: {failed!r}")
            client.leave()
        assert "\n".join(failures) == ""
        heard = await here.audit()
    assert not [body for body in heard if b"mark-smuggled" in body]
    accepted = sum(statuses.count(200) for _, statuses, _ in ATTACKS.values())
    assert sum(b"mark-own" in body or body == b"" for body in heard) == accepted


@pytest.mark.parametrize("cut", [1, 7, 1000])
@on_uvloop
async def test_how_the_bytes_are_cut_changes_nothing(tmp_path: Path, cut: int) -> None:
    pieces = [data for data, statuses, ends in ATTACKS.values() if ends is GOES_ON and len(data) < 1000]
    statuses = [
        status
        for data, each, ends in ATTACKS.values()
        if ends is GOES_ON and len(data) < 1000
        for status in each
    ]
    data = b"".join(pieces)
    async with attacked(tmp_path) as here:
        client = await here.it.client()

        async def send() -> None:
            for at in range(0, len(data), cut):
                client.writer.write(data[at : at + cut])
                if at % (cut * 50) == 0:
                    await asyncio.sleep(0)  # else the pieces would be joined again on the way
                    await client.writer.drain()

        sending = asyncio.create_task(send())
        answers = await answered(client, len(statuses))
        await sending
        assert [status for status, _ in answers] == statuses
        await here.own_answer(client, "mark-after")
        await here.audit()


@on_uvloop
async def test_a_hundred_requests_in_one_piece_are_answered_in_their_order(tmp_path: Path) -> None:
    async with attacked(tmp_path) as here:
        client = await here.it.client()
        marks = [f"mark-{number}" for number in range(100)]
        await client.send(b"".join(post(asking(mark)) for mark in marks))
        answers = await answered(client, 100)
        assert [
            f'"mark":"{mark}"'.encode() in body for mark, (_, body) in zip(marks, answers, strict=True)
        ] == [True] * 100
        await here.audit()


@on_uvloop
async def test_nobody_without_a_key_gets_the_sidecar_to_hold_a_body(tmp_path: Path) -> None:
    empty = b"OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n\r\n"
    async with attacked(tmp_path) as here:
        client = await here.it.client()
        await client.send(empty % 0)
        assert (await client.answer())[0] == 200
        await client.send(empty % 9 + b"123456789")  # the same head as before, but for the length
        assert (await client.answer())[0] == 413
        assert await client.ended() == b""
        await here.audit()


@on_uvloop
async def test_a_head_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    async with attacked(tmp_path) as here:
        client = await here.it.client()
        with suppress(ConnectionError):
            await client.send(b"POST / HTTP/1.1\r\nHost: s\r\n")
            for _ in range(200):
                await client.send(b"X-Endless: " + b"a" * 8192 + b"\r\n")
        with suppress(ConnectionError):  # a reset may overtake the answer
            assert (await client.answer())[0] == 431
        await here.audit()


@on_uvloop
async def test_an_answer_to_head_has_no_body_that_could_pass_for_the_next_answer(tmp_path: Path) -> None:
    async with attacked(tmp_path) as here:
        client = await here.it.client()
        await client.send(raw(f"HEAD {CHAT} HTTP/1.1"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 405 ")
        await here.own_answer(client, "mark-after-head")
        await here.audit()


def at_random(seed: int) -> list[bytes]:
    """Pieces of an attack: good and bad requests, cut, doubled, with bytes changed."""
    draw = random.Random(seed)
    known = [data for data, _, _ in ATTACKS.values() if len(data) < 2000]
    data = bytearray(
        b"".join(draw.choice([*known, post(OWN), SMUGGLED]) for _ in range(draw.randrange(1, 5)))
    )
    for _ in range(draw.randrange(4)):
        at = draw.randrange(len(data))
        change = draw.randrange(4)
        if change == 0:
            data[at] = draw.randrange(256)
        elif change == 1:
            del data[at : at + draw.randrange(1, 30)]
        elif change == 2:
            data[at:at] = data[at : at + draw.randrange(1, 200)]
        else:
            data[at:at] = draw.choice(
                [b"\r", b"\n", b"\r\n\r\n", b"\0", b"Transfer-Encoding: chunked\r\n", END]
            )
        if not data:
            return [b"x"]
    cuts = sorted(draw.randrange(len(data) + 1) for _ in range(draw.randrange(3)))
    return [bytes(data[start:end]) for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@on_uvloop
async def test_attacks_at_random_never_mix_up_answers(tmp_path: Path) -> None:
    async with attacked(tmp_path) as here:

        async def attack(seed: int) -> None:
            client = await here.it.client()
            # A closed transport of uvloop's raises RuntimeError where asyncio's would say ConnectionError.
            with suppress(ConnectionError, TimeoutError, RuntimeError):
                for piece in at_random(seed):
                    await client.send(piece)
                    await asyncio.sleep(0.001)
                async with asyncio.timeout(0.05):
                    got = await client.reader.read(2**20)
                assert b"mark-honest" not in got, seed
            client.leave()

        for start in range(0, 400, 20):
            await asyncio.gather(*(attack(seed) for seed in range(start, start + 20)))
        await here.audit()
