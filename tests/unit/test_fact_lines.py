from __future__ import annotations

import re

import pytest
from event_examples import PLACE, PUBLIC_KEY, START_US
from hypothesis import given
from hypothesis import strategies as st

from metering import fact
from metering.batch import make_batch, read_seal
from metering.fact import (
    ENDINGS,
    MAX_FACTS,
    MAX_FACTS_BYTES,
    WITNESSES,
    Fact,
    Serves,
    Sibling,
    Span,
    Unmetered,
    fact_line,
    how_many_fit,
    parse_fact,
)
from metering.refusal import Refusal
from metering.seal import MAX_BODY_BYTES, MAX_NOTE_BYTES

SPAN = Span(
    number=7,
    model="qwen3-8b",
    from_us=START_US,
    to_us=START_US + 600_000_000,
    ended="quiet",
    lines=12,
    lines_missing=0,
    engine_prompt=4_200,
    engine_generated=900,
    late_prompt=0,
    late_generated=3,
    repeated_prompt=100,
    audio_prompt=0,
    unmetered_prompt=0,
    unmetered_generated=0,
    lost_prompt=0,
    lost_generated=0,
    unwitnessed_requests=0,
    witness="yes",
)

times = st.integers(START_US, START_US + 10**12)
counts = st.integers(0, 2**62 - 1)
models = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
lanes = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    start, end = sorted((draw(times), draw(times)))
    ended = draw(st.sampled_from(ENDINGS))
    figures = {
        name: draw(counts)
        for name in Span.__slots__
        if name not in ("model", "from_us", "to_us", "ended", "witness")
    }
    gone = ("lost_prompt", "lost_generated") if ended == "quiet" else ("engine_prompt", "engine_generated")
    return Span(
        model=draw(models),
        from_us=start,
        to_us=end,
        ended=ended,
        witness=draw(st.sampled_from(WITNESSES)),
        **figures | dict.fromkeys(gone, 0),
    )


facts: st.SearchStrategy[Fact] = st.one_of(
    st.builds(
        Sibling,
        lane=lanes,
        epoch=st.binary(min_size=16, max_size=16).map(bytes.hex),
        number=counts,
        hash=st.binary(min_size=32, max_size=32).map(bytes.hex),
    ),
    st.builds(Unmetered, start_us=st.just(START_US), end_us=times, requests=st.integers(1, 2**62 - 1)),
    st.builds(Serves, model=models, name=models),
    spans(),
)


@given(facts)
def test_a_fact_comes_back_from_its_line(given_fact: Fact) -> None:
    line = fact_line(given_fact)
    assert parse_fact(line) == given_fact
    assert line.isascii()
    assert line.isprintable()


def test_the_examples_in_the_text_are_what_the_code_writes() -> None:
    documented = re.findall(r"^    (fact .*)$", fact.__doc__ or "", re.M)
    made = [
        fact_line(Sibling("sidecar-1", "000102030405060708090a0b0c0d0e0f", 41, "ab" * 32)),
        fact_line(Unmetered(START_US, START_US + 200_000_000, 17)),
        fact_line(Serves("qwen3-8b", "support-adapter")),
        fact_line(SPAN),
    ]
    for line, example in zip(made, documented, strict=True):
        pattern = re.escape(example).replace(re.escape("<64 hex digits>"), "[0-9a-f]{64}").replace("…", ".*")
        assert re.fullmatch(pattern, line), (line, example)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "fact",
        "fact ",
        "fact rumour model=a name=b",
        "fact serves model=a",
        "fact serves name=b model=a",
        "fact serves model=a name=b ",
        "fact serves model=a name=b colour=green",
        "fact serves model=a name=b name=c",
        "fact serves  model=a name=b",
        "fact serves model=a junk name=b",
        "fact serves model= name=b",
        "fact serves model=a%20b name=%c4%97",
        "fact serves model=a name=%61",
        "fact serves model=a name=%FF",
        "fact serves model=a name=ė",
        "fact serves model=a name=%00",
        "fact unmetered start=2026-10-05T08:00:00.000000Z end=2026-10-05T08:03:20.000000Z requests=0",
        "fact unmetered start=2026-10-05T08:00:00.000000Z end=2026-10-05T07:59:59.000000Z requests=1",
        "fact unmetered start=2026-10-05T08:00:00.0Z end=2026-10-05T08:03:20.000000Z requests=1",
        "fact unmetered start=1999-10-05T08:00:00.000000Z end=2026-10-05T08:03:20.000000Z requests=1",
        "fact unmetered start=soon end=2026-10-05T08:03:20.000000Z requests=1",
        f"fact sibling lane=../x epoch={'ab' * 16} number=1 hash={'ab' * 32}",
        f"fact sibling lane=x epoch={'AB' * 16} number=1 hash={'ab' * 32}",
        f"fact sibling lane=x epoch={'ab' * 16} number=01 hash={'ab' * 32}",
        f"fact sibling lane=x epoch={'ab' * 16} number=-1 hash={'ab' * 32}",
        f"fact sibling lane=x epoch={'ab' * 16} number={2**62} hash={'ab' * 32}",
        fact_line(SPAN).replace("ended=quiet", "ended=restart"),
        fact_line(SPAN).replace("ended=quiet", "ended=well"),
        fact_line(SPAN).replace("witness=yes", "witness=maybe"),
        fact_line(SPAN).replace("lost_prompt=0", "lost_prompt=1"),
    ],
)
def test_what_is_not_exactly_a_fact_is_refused_and_no_seal_holds_it(line: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_fact(line)
    assert refused.value.code == "bad_fact"
    with pytest.raises(Refusal) as refused:
        make_batch(**PLACE, facts=[line])
    assert refused.value.code == "bad_seal"


def test_a_heartbeat_carries_facts_and_signs_for_them() -> None:
    lines = (fact_line(SPAN), fact_line(Unmetered(START_US, START_US, 1)))
    batch = make_batch(**PLACE, facts=lines)
    assert read_seal(batch.note, PUBLIC_KEY).facts == lines
    assert b"\nfinal no\nfacts 2\nfact span number=7 " in batch.note
    with pytest.raises(Refusal) as refused:
        read_seal(batch.note.replace(b"requests=1\n", b"requests=2\n"), PUBLIC_KEY)
    assert refused.value.code == "bad_signature"


@pytest.mark.parametrize("count", ["facts 0", "facts 1", "facts 3", "facts 02"])
def test_a_seal_counts_its_facts(count: str) -> None:
    from metering.seal import parse_seal, seal_text

    text = seal_text(
        make_batch(**PLACE, facts=[fact_line(Serves("m", "a")), fact_line(Serves("m", "b"))]).seal
    )
    with pytest.raises(Refusal) as refused:
        parse_seal(text.replace(b"facts 2", count.encode()))
    assert refused.value.code == "bad_seal"


def test_no_seal_holds_more_facts_than_fit() -> None:
    small, large = fact_line(Serves("m", "n")), fact_line(Serves("m", "ė" * 500))
    assert how_many_fit([small] * 1_000) == MAX_FACTS
    assert how_many_fit([large] * 1_000) == MAX_FACTS_BYTES // (len(large) + 1) < MAX_FACTS
    full = make_batch(**PLACE, facts=[large] * how_many_fit([large] * 1_000))
    assert len(full.note) < MAX_NOTE_BYTES
    assert MAX_NOTE_BYTES + MAX_BODY_BYTES < 2**20
    with pytest.raises(Refusal):
        make_batch(**PLACE, facts=[large] * (how_many_fit([large] * 1_000) + 1))
