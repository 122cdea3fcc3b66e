"""What the engine's lines bring where HTTP says nothing or not all: models, sound, answers without their usage."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from scripted_engine import on_uvloop, request
from witnessed_world import JSON, Witnessed, witnessed

from metering.fact import Serves

FORM = "Content-Type: multipart/form-data; boundary=b\r\n"
COUNTS = {"sim_prompt_tokens": 31, "sim_completion_tokens": 40}


def sound(**fields: object) -> bytes:
    given = {"model": "tiny", "vllm_xargs": json.dumps({"sim_audio_seconds": 9, **COUNTS}), **fields}
    parts = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in given.items()
    )
    file = '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nRIFF\r\n--b--\r\n'
    return (parts + file).encode()


async def hear(it: Witnessed, body: bytes, path: str = "/v1/audio/transcriptions") -> None:
    client = await it.client()
    head = request(path=path, head=f"{FORM}Content-Length: {len(body)}\r\n")
    await client.send(head.replace(b"GET", b"POST", 1) + body)
    status, _, content = await client.answer()
    assert status == 200, content
    client.leave()


def agrees(it: Witnessed) -> bool:
    found = it.reconciled()
    return not found.differs and not found.unchecked and bool(found.rows)


@on_uvloop
async def test_who_names_no_model_and_leaves_is_charged_for_the_one_that_ran(tmp_path: Path) -> None:
    async with witnessed(tmp_path, tokens_per_second=200) as it:
        client = await it.client()
        body = {"messages": [{"role": "user", "content": "x"}], "vllm_xargs": COUNTS}
        await client.send(request(body, head=JSON))
        await asyncio.sleep(0.1)
        client.leave()
        await it.quiet()
        await it.sidecar.drain()
        [event] = it.events()
        assert (event["model"], event["outcome"], event["prompt_tokens"]) == ("tiny", "aborted", 31)
        assert not [fact for _, _, fact in it.facts() if isinstance(fact, Serves)]
        assert agrees(it)


@on_uvloop
async def test_sound_with_seconds_has_no_prompt_in_its_event_and_its_lane_says_the_engines(
    tmp_path: Path,
) -> None:
    async with witnessed(tmp_path, tasks=("transcription",)) as it:
        async with it.beside("sidecar-1") as other:
            await hear(it, sound())
            await hear(other, sound())
            await hear(it, sound(stream="true"))
            await other.quiet()
            await it.quiet()
        await it.sidecar.drain()
        events = it.events()
        seconds = [event for event in events if event["audio_seconds"]]
        assert [(event["prompt_tokens"], event["audio_seconds"]) for event in seconds] == [(0, 9)] * 2
        assert [event["prompt_tokens"] for event in events if not event["audio_seconds"]] == [31]
        assert [row.audio_prompt for row in it.reconciled().rows] == [62]
        assert agrees(it)


@on_uvloop
async def test_an_answer_without_its_usage_was_delivered_whole(tmp_path: Path) -> None:
    async with witnessed(tmp_path, tasks=("transcription",)) as it:
        await hear(it, sound(), "/v1/audio/translations")
        await it.quiet()
        await it.sidecar.drain()
        [event] = it.events()
        assert (event["reason"], event["outcome"]) == ("usage_unread", "finished")
        assert (event["prompt_tokens"], event["completion_tokens"], event["generated_tokens"]) == (31, 40, 40)
        assert agrees(it)


@on_uvloop
async def test_embeddings_without_a_place_for_usage_need_a_witness(tmp_path: Path) -> None:
    body = {"model": "tiny", "input": "a", "encoding_format": "bytes_only"}
    async with witnessed(tmp_path / "with", tasks=("embed",)) as it:
        assert (await it.ask(body, "/v1/embeddings"))[0] == 200
        await it.quiet()
        await it.sidecar.drain()
        [event] = it.events()
        assert event["reason"] == "usage_unread"
        assert event["prompt_tokens"] > 0
        assert agrees(it)
    async with witnessed(tmp_path / "without", tasks=("embed",), sidecar={"engine_lines": None}) as it:
        status, content = await it.ask(body, "/v1/embeddings")
        assert (status, b"usage_not_told" in content) == (400, True)
        assert (await it.ask(body | {"encoding_format": "bytes"}, "/v1/embeddings"))[0] == 200


@on_uvloop
async def test_one_bad_prompt_among_several_hides_no_line_of_the_others(tmp_path: Path) -> None:
    """The simulated engine refuses all of them; that none of them ran is found out and not taken for granted."""
    async with witnessed(tmp_path) as it:
        body = {"model": "tiny", "prompt": ["a", "b"], "max_tokens": -1}
        status, _ = await it.ask(body, "/v1/completions")
        assert status == 400
        await it.quiet()
        await it.sidecar.drain()
        usage, *amended = it.events()
        assert (usage["outcome"], usage["completion_tokens"]) == ("failed", 0)
        assert sum(event["generated_tokens"] or 0 for event in amended) == 0
