"""Bodies of requests: read once, and changed only where a stream must tell its usage."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.http_refusal import Refused
from metering.request_body import Ask, read_chat, read_completions, read_messages, read_pooled, read_responses

BOTH = {"include_usage": True, "continuous_usage_stats": True}


def ask(body: str | bytes) -> Ask:
    read = read_chat(body if isinstance(body, bytes) else body.encode())
    assert isinstance(read, Ask)
    return read


def test_a_request_without_a_stream_is_not_touched() -> None:
    body = b' {"model" : "org/tiny-0.5B", "stream":false, "n": 3}'
    assert ask(body) == Ask(body, "org/tiny-0.5B", lines=3)


def test_usage_is_asked_for_at_the_front_and_every_other_byte_stays() -> None:
    asked = ask('  {"model":"tiny", "prompt":"ž\\u00e9", "stream":true}\n')
    options = '"stream_options":{"include_usage":true,"continuous_usage_stats":true}'
    assert asked.body.decode() == f'  {{{options},"model":"tiny", "prompt":"ž\\u00e9", "stream":true}}\n'
    assert (asked.stream, asked.hide_final, asked.hide_each) == (True, True, True)


@pytest.mark.parametrize(
    ("options", "sent", "hide_final", "hide_each"),
    [
        ("null", BOTH, True, True),
        ("{}", BOTH, True, True),
        ('{"include_usage":false}', BOTH, True, True),
        ('{"include_usage":true}', BOTH, False, True),
        ('{"include_usage":"yes","later":[1]}', BOTH | {"later": [1]}, False, True),
        ('{"include_usage":null,"continuous_usage_stats":true}', BOTH, True, True),
    ],
)
def test_options_are_widened_in_their_place(
    options: str, sent: object, hide_final: bool, hide_each: bool
) -> None:
    asked = ask(f'{{"stream":true, "stream_options" : {options} ,"a":"ž"}}')
    assert asked.body.decode().startswith('{"stream":true, "stream_options" : {')
    assert asked.body.decode().endswith(' ,"a":"ž"}')
    assert json.loads(asked.body)["stream_options"] == sent
    assert (asked.hide_final, asked.hide_each) == (hide_final, hide_each)


@pytest.mark.parametrize(
    "options",
    [
        '{"include_usage":true,"continuous_usage_stats":true}',  # asked for all of it
        '"yes"',  # the engine refuses these, in its own words
        '{"include_usage":"perhaps"}',
        '{"include_usage":[]}',
        '{"continuous_usage_stats":7}',
    ],
)
def test_options_that_need_nothing_or_are_wrong_are_left_alone(options: str) -> None:
    body = f'{{"stream":true,"stream_options":{options}}}'.encode()
    asked = ask(body)
    assert asked.body == body
    assert (asked.stream, asked.hide_final, asked.hide_each) == (True, False, False)


@pytest.mark.parametrize("value", ["true", "1", "1.0", '"true"', '"YES"', '"on"', '"1"'])
def test_whatever_vllm_takes_for_a_stream_is_one(value: str) -> None:
    assert ask(f'{{"stream":{value}}}').stream


@pytest.mark.parametrize("value", ["false", "0", "null", '"no"', '"off"', '"perhaps"', "2", "[]", "{}"])
def test_what_vllm_takes_for_no_stream_is_none(value: str) -> None:
    assert not ask(f'{{"stream":{value}}}').stream


@pytest.mark.parametrize(
    "body",
    [
        '{"stream":true,"stream\\u005foptions":{"include_usage":false}}',
        '{"stream":true,"stream_options":{"include_usage":false},"stream_options":{"include_usage":false}}',
        '{"stream_options":null,"stream":true,"stream\\u005foptions":{}}',
    ],
)
def test_no_way_of_writing_the_options_keeps_usage_from_being_asked_for(body: str) -> None:
    assert json.loads(ask(body).body)["stream_options"] == BOTH


def test_options_inside_other_values_are_not_mistaken_for_the_requests_own() -> None:
    body = '{"stream":true,"messages":[{"content":"\\"stream_options\\":{}","stream_options":{}}]}'
    sent = json.loads(ask(body).body)
    assert sent["stream_options"] == BOTH
    assert sent["messages"] == json.loads(body)["messages"]


@pytest.mark.parametrize(
    "body", ['{"model":', "[1,2]", '"x"', "", "{} {}", '{"stream_options":1', '{"stream_options"']
)
def test_broken_bodies_go_on_unchanged_for_the_engine_to_refuse(body: str) -> None:
    assert ask(body) == Ask(body.encode())


def test_a_number_of_too_many_digits_goes_on_unchanged() -> None:
    body = b'{"n":' + b"9" * 5000 + b',"stream":true}'
    assert ask(body) == Ask(body)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"a":' + b"[" * 200_000, "nested_too_deep"),
        (b'{"stream_options":' + b"[" * 200_000, "nested_too_deep"),
        ('{"stream":true}'.encode("utf-16"), "not_utf8"),
        ('{"stream":true}'.encode("utf-16-le"), "not_utf8"),
        ('{"stream":true}'.encode("utf-32-be"), "not_utf8"),
        ('{"stream":true}'.encode("utf-8-sig"), "not_utf8"),
    ],
)
def test_what_the_engine_might_read_and_we_do_not_is_refused(body: bytes, code: str) -> None:
    refused = read_chat(body)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (400, code)


@pytest.mark.parametrize(
    "model", ["5", "null", '"a b"', '"<script>"', '"\\ud800"', '""', '"' + "x" * 201 + '"']
)
def test_only_what_can_be_a_models_name_is_taken_for_one(model: str) -> None:
    assert ask(f'{{"model":{model}}}').model is None


@pytest.mark.parametrize(
    ("n", "count"), [("3", 3), ('"3"', 3), ("0", 1), ("-2", 1), ("null", 1), ("true", 1), ("1e999", 1)]
)
def test_n_is_read_as_the_engine_reads_it(n: str, count: int) -> None:
    assert ask(f'{{"stream":true,"n":{n}}}').choices_per_prompt == count


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text() | st.just("stream_options"), json_values), st.sampled_from([None, 1, " "]))
def test_what_the_engine_reads_differs_in_the_options_alone(
    value: dict[str, object], indent: int | str | None
) -> None:
    value["stream"] = True
    sent = json.loads(ask(json.dumps(value, indent=indent)).body)
    assert {**sent, "stream_options": None} == {**value, "stream_options": None}


@pytest.mark.parametrize(
    "body", [b'{"stream":true,"a":"\xff"}', b"\x1f\x8b\x08\x00gzip", b"", b"[]", b"5", b'{"a":1} x']
)
def test_what_the_engine_cannot_read_goes_on_for_its_own_error(body: bytes) -> None:
    for read in (read_chat, read_completions, read_responses, read_messages, read_pooled):
        assert read(body) == Ask(body)


def test_half_a_surrogate_pair_is_read_as_the_engine_reads_it() -> None:
    body = b'{"stream":true,"stream_options":null,"a":"\xed\xa0\x80"}'
    asked = ask(body)
    assert asked.body == body.replace(b"null", b'{"include_usage":true,"continuous_usage_stats":true}')


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ('{"prompt":"a"}', 1),
        ('{"prompt":["a","b"]}', 2),
        ('{"prompt":["a","b"],"n":3}', 6),
        ('{"prompt":[1,2,3]}', 1),
        ('{"prompt":[[1,2],[3]]}', 2),
        ('{"prompt":[]}', None),
        ('{"prompt_embeds":"AA=="}', None),
        ('{"prompt":"a","n":4,"use_beam_search":true}', None),
    ],
)
def test_how_many_requests_the_engine_makes_of_completions(body: str, lines: int | None) -> None:
    read = read_completions(body.encode())
    assert isinstance(read, Ask)
    assert read.lines == lines


def test_a_response_gets_a_place_for_its_id_and_says_what_it_goes_on_from() -> None:
    body = b' {"model":"tiny","input":"a","background":"yes","previous_response_id":"resp_1","stream":1}'
    read = read_responses(body)
    assert isinstance(read, Ask)
    assert read.id_at is not None
    assert read.body[: read.id_at] + b"ID" + read.body[read.id_at :] == body.replace(
        b"{", b'{"request_id":"ID",'
    )
    assert (read.model, read.stream, read.background, read.previous, read.lines) == (
        "tiny",
        True,
        True,
        "resp_1",
        1,
    )


@pytest.mark.parametrize("own", ['"mine"', "5", "null", '{"a":"\\ud800"}', '"ž"'])
@pytest.mark.parametrize("name", ["request_id", "request\\u005fid"])
def test_a_clients_own_id_of_a_response_is_replaced(own: str, name: str) -> None:
    read = read_responses(f'{{"request_id":"first", "{name}" : {own} , "input":"ž"}}'.encode())
    assert isinstance(read, Ask)
    assert read.id_at is not None
    value = json.loads(read.body[: read.id_at] + b"ID" + read.body[read.id_at :])
    assert value == {"request_id": "ID", "input": "ž"}


def test_a_response_with_tools_may_take_any_number_of_turns() -> None:
    read = read_responses(b'{"input":"a","tools":[{"type":"web_search_preview"}]}')
    assert isinstance(read, Ask)
    assert read.lines is None


@pytest.mark.parametrize(("given_", "lines"), [('"a"', 1), ('["a","b","c"]', 3), ("[1,2]", 1), ("5", None)])
def test_how_many_requests_the_engine_makes_of_embeddings(given_: str, lines: int | None) -> None:
    body = f'{{"model":"m","input":{given_}}}'.encode()
    assert read_pooled(body) == Ask(body, "m", lines=lines)


def test_a_message_is_not_touched() -> None:
    body = b'{"model":"m","stream":true,"max_tokens":5}'
    assert read_messages(body) == Ask(body, "m", stream=True, lines=1)


@given(
    st.dictionaries(st.text() | st.just("request_id"), json_values, min_size=1), st.sampled_from([None, 1])
)
def test_what_the_engine_reads_of_a_response_differs_in_the_id_alone(
    value: dict[str, object], indent: int | None
) -> None:
    read = read_responses(json.dumps(value, indent=indent).encode())
    assert isinstance(read, Ask)
    assert read.id_at is not None
    sent = json.loads(read.body[: read.id_at] + b"ID" + read.body[read.id_at :])
    assert sent == {**value, "request_id": "ID"}


def test_a_model_may_be_named_by_its_path_as_vllm_names_it_by_default() -> None:
    assert ask(b'{"model":"/models/Qwen3-8B"}').model == "/models/Qwen3-8B"
    assert ask(b'{"model":"./model"}').model == "./model"
    assert ask(b'{"model":"my secret plan"}').model is None


def test_a_body_of_millions_of_members_is_not_read() -> None:
    refused = read_chat(b'{"messages":[' + b"[]," * 2_000_000 + b"[]]}")
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (413, "too_many_members")
    assert ask(b'{"model":"m","prompt":"' + b"one, two, " * 200_000 + b'"}').model == "m"
