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
from attacked_world import CHAT, SMUGGLED, asking, attacked, post
from client_attacks import ATTACKS, END, GOES_ON, OWN, raw
from scripted_engine import Client, on_uvloop


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
