"""Whatever a file holds, it is either refused with its faults or applied; and what was applied survives get
→ apply.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.site_files.apply import Applied, apply_site
from adapters.site_files.reading import SiteFiles, read_files
from adapters.site_files.store import MemorySiteStore
from adapters.site_files.writing import get_documents, to_yaml
from billing.facts import KINDS, facts_from_documents
from metering.refusal import Refusal

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
EXAMPLE = Path(__file__).parents[2] / "examples" / "vilnius"
GOOD = "---\n".join(file.read_text(encoding="utf-8") for file in sorted(EXAMPLE.glob("*.yaml")))

ODD = """
    NO yes ~ 0.1 .5 1e3 0x1F 01100 1_000 -1 15% 2026-02-30 2026-12-01 [] {} [a] {a:b} '' * & !x | > @ ` % LT*
    acme vilnius telecentras nobody true 99999999999999999999 0.0000000000001 Europe/Vilnius Asia/Kolkata
"""
odd_scalars = st.sampled_from(ODD.split())
scalars = odd_scalars | st.text(max_size=12)
lines = GOOD.splitlines()


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A good file with a few lines dropped, doubled, moved, indented otherwise or given another value."""
    text = list(lines)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(text) - 1))
        match draw(st.sampled_from(["drop", "double", "move", "value", "key", "indent", "cut"])):
            case "drop":
                del text[at]
            case "double":
                text.insert(at, text[at])
            case "move":
                text.insert(draw(st.integers(0, len(text) - 1)), text.pop(at))
            case "value":
                text[at] = f"{text[at].partition(':')[0]}: {draw(scalars)}"
            case "key":
                text[at] = f"{draw(scalars)}:{text[at].partition(':')[2]}"
            case "indent":
                text[at] = " " * draw(st.integers(0, 4)) + text[at].strip()
            case "cut":
                text[at] = text[at][: draw(st.integers(0, len(text[at])))]
        if not text:
            break
    return "\n".join(text)


def read(raw: bytes) -> SiteFiles:
    return read_files(["-"], lambda: raw)


def applied(store: MemorySiteStore, raw: bytes) -> Applied | Refusal:
    try:
        return asyncio.run(apply_site(store, read(raw), NOW))
    except Refusal as refused:
        return refused


def applies_or_is_refused(raw: bytes) -> None:
    store = MemorySiteStore()
    first = applied(store, raw)
    if isinstance(first, Refusal):
        assert first.code == "bad_site_files"
        assert first.faults
        assert all(fault.where.startswith("-") and fault.what for fault in first.faults)
        assert store.documents == {}
        return
    assert first.changed == ()
    assert set(first.unchanged) <= set(first.created), "only what the file itself states twice is unchanged"
    for text in (raw, to_yaml(asyncio.run(get_documents(store))).encode()):
        again = applied(store, text)
        assert isinstance(again, Applied)
        assert again.created == again.changed == ()
    versions = list(store.documents.values())
    for operator in store.operators:
        facts_from_documents(each for each in versions if each.operator in (operator, "*"))


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_a_good_file_with_mistakes_is_refused_or_applied_and_never_crashes(text: str) -> None:
    applies_or_is_refused(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=60) | st.text(alphabet=":-[]{}&*!|>'\"#%@`, \n\tkindao", max_size=60).map(str.encode)
)
def test_any_bytes_are_refused_or_applied(raw: bytes) -> None:
    applies_or_is_refused(raw)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).filter(
    lambda text: text.strip().isprintable() and text.strip() != ""
)


@settings(max_examples=200, deadline=None)
@given(texts, texts)
def test_any_text_survives_get_and_apply_and_is_text_to_other_readers_too(name: str, street: str) -> None:
    store = MemorySiteStore()
    head = {
        "kind": "operator",
        "id": "o",
        "name": name,
        "country": "LT",
        "currency": "EUR",
        "timezone": "UTC",
    }
    given_text = yaml.safe_dump({**head, "address": {"street": street}}, allow_unicode=True)
    asyncio.run(apply_site(store, read(given_text.encode()), NOW))
    (kept,) = asyncio.run(get_documents(store, "operator"))
    assert kept["name"] == name.strip()
    written = to_yaml(asyncio.run(get_documents(store)))
    assert yaml.safe_load(written) == kept, "a reader with YAML's own types sees the same texts"
    assert asyncio.run(apply_site(store, read(written.encode()), NOW)).unchanged == ("operator/o",)


def test_the_example_applies_once_has_every_kind_and_prices_every_model() -> None:
    store = MemorySiteStore()
    created = asyncio.run(apply_site(store, read_files([EXAMPLE]), NOW)).created
    assert {name.partition("/")[0] for name in created} == set(KINDS)
    assert read_files([EXAMPLE]).warnings == ()
    assert asyncio.run(apply_site(store, read_files([EXAMPLE]), NOW)).unchanged == created
    facts = facts_from_documents(store.documents.values())
    (tariff,) = facts.tariffs["vilnius"]
    assert tariff.valid_from is None
    for model in ("claude-opus-4-5-20251101", "qwen3-32b", "anything/at all"):
        row = next(row for row in tariff.rows if row.matches(model, "LT-VL", 0))
        assert {"input", "output", "audio_seconds"} <= set(row.prices)
