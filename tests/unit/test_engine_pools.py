"""Which engine a request goes to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.engine_address import EngineAddress, EngineKey
from metering.engine_pools import EnginePools, open_pools
from metering.refusal import Refusal


def pools(*models: str | None) -> EnginePools:
    """An engine for each text: the models that it serves, None where it has not said yet."""
    urls = [f"http://engine-{number}:8000" for number in range(len(models))]
    made = open_pools(urls, lambda: 0.0, idle_s=3, connect_s=5, key_file=None)
    for pool, names in zip(made.pools, models, strict=True):
        pool.models = None if names is None else {name: {"id": name} for name in names.split()}
    return made


def picked(made: EnginePools, model: str | None = None, ordinal: int | None = None) -> int | None:
    pool = made.pick(model, ordinal)
    if pool is None:
        return None
    made.use(pool)
    return pool.ordinal


def test_the_engine_with_the_fewest_requests_in_the_air_is_picked() -> None:
    made = pools("m", "m", "m")
    for pool, in_air in zip(made.pools, (3, 1, 2), strict=True):
        pool.in_air = in_air
    assert picked(made, "m") == 1


def test_among_equals_they_take_turns() -> None:
    made = pools("m", "m", "m")
    assert [picked(made, "m") for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_a_request_goes_to_an_engine_that_serves_its_model() -> None:
    made = pools("a b", "b", None)
    made.pools[2].in_air = 10
    assert {picked(made, "a") for _ in range(4)} == {0}
    assert {picked(made, "b") for _ in range(4)} == {0, 1}
    assert {picked(made, "unheard-of") for _ in range(4)} == {2}  # it may serve it: it has not said
    assert {picked(made) for _ in range(4)} == {0, 1}  # no model named: whichever


def test_a_model_that_nobody_serves_is_for_any_engine_to_refuse() -> None:
    assert picked(pools("a", "b"), "c") == 0


def test_a_down_engine_is_the_last_resort_of_its_model() -> None:
    made = pools("a", "a", "b")
    made.pools[0].up = made.pools[2].up = False
    assert {picked(made, "a") for _ in range(3)} == {1}
    assert picked(made, "b") == 2


def test_what_one_engine_keeps_goes_nowhere_else() -> None:
    made = pools("a", "a")
    made.pools[1].up = False
    assert picked(made, "a", 1) == 1
    assert picked(made, "a", 2) is None
    assert made.pick("a", 1, [made.pools[1]]) is None
    assert picked(pools("a"), "a", 0) == 0
    assert picked(pools("a"), "a", 1) is None


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(2, 5))
def test_requests_that_come_and_go_never_differ_by_more_than_one(ends: list[int], engines: int) -> None:
    made = pools(*["m"] * engines)
    for end in ends:
        pool = made.pick("m", None)
        assert pool is not None
        pool.in_air += 1
        loads = [each.in_air for each in made.pools]
        assert pool.in_air - 1 == min(*loads, pool.in_air - 1)
        if end == 0:  # some other request ends
            busiest = max(made.pools, key=lambda each: each.in_air)
            busiest.in_air -= 1
    loads = [each.in_air for each in made.pools]
    assert max(loads) - min(loads) <= 1


def test_the_list_of_models_is_the_union_where_engines_differ() -> None:
    assert pools("a b", "b a").model_list() is None
    assert pools("a", None).model_list() is None
    assert pools("a").model_list() is None
    assert pools("a b", "b ü").model_list() == (
        '{"object":"list","data":[{"id":"a"},{"id":"b"},{"id":"ü"}]}'.encode()
    )
    down = pools("a", "b", "c")
    down.pools[1].up = False
    assert down.model_list() == b'{"object":"list","data":[{"id":"a"},{"id":"c"}]}'


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", EngineAddress("127.0.0.1", 8000, b"127.0.0.1:8000")),
        ("http://engine/", EngineAddress("engine", 80, b"engine")),
        ("https://engine", EngineAddress("engine", 443, b"engine", tls=True)),
        ("http://[::1]:8000", EngineAddress("::1", 8000, b"[::1]:8000")),
    ],
)
def test_an_engines_address(url: str, address: EngineAddress) -> None:
    assert EngineAddress.parse(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "engine:8000",
        "ftp://engine",
        "http://",
        "http://e/v1",
        "http://e?x",
        "http://u:p@e",
        "http://@e",
        "http://e:99999",
        "http://e#x",
        "http://[::1",
        "http://ünicode",
        "unix:///run/vllm.sock",
    ],
)
def test_what_is_no_address_of_an_engine_is_refused(url: str) -> None:
    with pytest.raises(Refusal) as refused:
        EngineAddress.parse(url)
    assert (refused.value.code, refused.value.where) == ("bad_engine_url", "--engine")


def test_what_is_wrong_with_an_engines_address_is_said_and_a_password_is_not_repeated() -> None:
    with pytest.raises(Refusal) as refused:
        EngineAddress.parse("http://user:hunter2@engine/v1")
    assert "no user and no password" in refused.value.what
    assert "hunter2" not in str(refused.value) + refused.value.remedy
    with pytest.raises(Refusal, match="something after the port"):
        EngineAddress.parse("http://engine:8000/v1")


def test_an_engines_key_file_that_is_not_there_is_named_with_its_option(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        EngineKey(tmp_path / "nope")
    assert refused.value.what == "the engine's key file cannot be read: No such file or directory"
    assert refused.value.where == f"--engine-key-file {tmp_path / 'nope'}"


def test_an_engine_is_named_once() -> None:
    with pytest.raises(Refusal, match="named twice"):
        open_pools(["http://e", "http://e:80/"], lambda: 0.0, idle_s=1, connect_s=1, key_file=None)


def test_the_engines_key_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("first\n")
    key = EngineKey(path)
    assert key.opening == b"Authorization: Bearer first"
    assert not key.renew()
    path.write_text("second-one\n")
    assert key.renew()
    assert key.opening == b"Authorization: Bearer second-one"
    path.write_text("two lines\nof them")
    with pytest.raises(Refusal, match="holds no key") as refused:
        key.renew()
    assert "two lines" not in str(refused.value)
    assert key.opening == b"Authorization: Bearer second-one"


@pytest.mark.parametrize("content", [b"", b"\n", b"a b", b"a\r\nX: y", b"\xff"])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(Refusal, match="holds no key"):
        EngineKey(path)
    with pytest.raises(Refusal, match="No such file"):
        EngineKey(tmp_path / "nothing")


def test_more_engines_than_an_id_can_name_are_refused() -> None:
    urls = [f"http://e{n}" for n in range(257)]
    with pytest.raises(Refusal, match="257 engines") as refused:
        open_pools(urls, lambda: 0.0, idle_s=1, connect_s=1, key_file=None)
    assert (refused.value.code, refused.value.where) == ("bad_engine_url", "--engine")
