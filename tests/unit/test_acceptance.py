"""What may follow in a lane: each check by name, on seals alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.acceptance import Known, Mark, follow, settle
from billing.inspection import Delivery, Inspected, Place
from metering.batch import GENESIS, Seal
from metering.event import Totals
from metering.refusal import Refusal

NOW = datetime(2026, 10, 20, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000
EPOCH, NEXT_EPOCH = "a" * 32, "b" * 32
NOTHING = Known({}, {})


def seal(number: int, previous: str, **changes: object) -> Seal:
    """A heartbeat of the lane, complete up to `number` seconds after an hour ago."""
    plain = Seal(
        operator="telecentras",
        node="vilnius-1",
        lane="sidecar-0",
        kind="sidecar",
        epoch=EPOCH,
        number=number,
        first=1,
        last=0,
        complete_to_us=NOW_US - 3_600_000_000 + number * 1_000_000,
        opened=0,
        closed=0,
        events=0,
        totals=Totals(),
        body_sha256=None,
        body_bytes=0,
        rows_bytes=0,
        root="0" * 64,
        previous=previous,
        final=False,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # the tests name fields of a seal


def arrived(of: Seal, seal_hash: str) -> Inspected:
    return Inspected(Delivery(b"", b""), of, seal_hash, None, None)


def chain(length: int) -> list[Inspected]:
    hashes = [GENESIS, *(f"hash-{n}" for n in range(length))]
    return [arrived(seal(n, hashes[n]), hashes[n + 1]) for n in range(length)]


@given(st.permutations(range(6)), st.integers(0, 5))
def test_a_chain_is_followed_in_whatever_order_it_arrives(order: list[int], again: int) -> None:
    batches = chain(6)
    verdicts = follow(Mark("sidecar"), [batches[n] for n in [*order, again]], NOW)
    assert [batch.place.number for batch in verdicts.accepted] == list(range(6))
    assert [batch.place.number for batch in verdicts.repeats] == [again]
    assert (verdicts.mark.head, verdicts.mark.number) == ("hash-5", 5)
    assert not verdicts.refused
    assert not verdicts.open


@given(st.sets(st.integers(0, 7)))
def test_what_comes_before_the_first_hole_is_accepted_and_the_rest_is_held(lost: set[int]) -> None:
    batches = chain(8)
    verdicts = follow(Mark("sidecar"), [b for b in batches if b.place.number not in lost], NOW)
    settle(verdicts, NOTHING)
    hole = min(lost, default=8)
    assert [batch.place.number for batch in verdicts.accepted] == list(range(hole))
    held = [(batch.place.number, refusal.code) for batch, refusal in verdicts.refused]
    assert held == [(n, "hole") for n in range(hole + 1, 8) if n not in lost]


def test_the_batch_at_the_mark_is_a_repeat_without_a_look_up() -> None:
    first, second = chain(2)
    mark = follow(Mark("sidecar"), [first, second], NOW).mark
    verdicts = follow(mark, [second], NOW)
    assert (verdicts.repeats, verdicts.open) == ([second], [])


def test_an_older_batch_is_a_repeat_by_the_list() -> None:
    first, second = chain(2)
    mark = follow(Mark("sidecar"), [first, second], NOW).mark
    verdicts = follow(mark, [first], NOW)
    assert verdicts.open == [first]
    settle(verdicts, Known({first.place: first.hash}, {GENESIS: (first.place, first.hash)}))
    assert verdicts.repeats == [first]


@pytest.mark.parametrize(
    ("place", "previous", "words"),
    [
        (Place(EPOCH, 0), "elsewhere", "two batches of one number"),
        (Place(NEXT_EPOCH, 0), GENESIS, "two successors"),
    ],
)
def test_a_fork_names_both(place: Place, previous: str, words: str) -> None:
    [first] = chain(1)
    mark = follow(Mark("sidecar"), [first], NOW).mark
    other = arrived(seal(place.number, previous, epoch=place.epoch), "other")
    verdicts = follow(mark, [other], NOW)
    settle(verdicts, Known({first.place: first.hash}, {GENESIS: (first.place, first.hash)}))
    [(_, refusal)] = verdicts.refused
    assert refusal.code == "fork"
    assert words in refusal.what
    assert "other" in refusal.what
    assert first.hash in refusal.what


def test_of_two_successors_that_arrive_together_the_first_is_taken_and_the_second_is_a_fork() -> None:
    one, two = arrived(seal(0, GENESIS), "one"), arrived(seal(0, GENESIS), "two")
    verdicts = follow(Mark("sidecar"), [one, two], NOW)
    settle(verdicts, NOTHING)
    assert verdicts.accepted == [one]
    assert [(batch, refusal.code) for batch, refusal in verdicts.refused] == [(two, "fork")]


def test_a_damaged_copy_does_not_bar_the_good_one_and_is_a_repeat_beside_it() -> None:
    good = arrived(seal(0, GENESIS), "hash-0")
    damaged = replace(good, usage=None, fault=Refusal("body_digest", "…"))
    verdicts = follow(Mark("sidecar"), [damaged, good], NOW)
    assert verdicts.accepted == [good]
    assert verdicts.repeats == [damaged]
    assert verdicts.refused == []


MARK = Mark("sidecar", EPOCH, 4, "head", 100, NOW_US - 60_000_000, 50, 50)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"number": 6}, "number"),
        ({"number": 4}, "number"),
        ({"epoch": NEXT_EPOCH, "number": 5}, "number"),
        ({"epoch": NEXT_EPOCH, "number": 0, "first": 101}, "sequence"),
        ({"epoch": NEXT_EPOCH, "number": 0, "first": 1}, None),
        ({"first": 100}, "sequence"),
        ({"first": 102}, "sequence"),
        ({"kind": "import"}, "lane_kind"),
        ({"opened": 49}, "requests"),
        ({"complete_to_us": NOW_US - 60_000_001}, "complete_to"),
        ({"complete_to_us": NOW_US - 60_000_000}, None),
        ({"complete_to_us": NOW_US + 300_000_000}, None),
        ({"complete_to_us": NOW_US + 300_000_001}, "ahead_of_time"),
    ],
)
def test_each_check_between_mark_and_batch_has_its_name(changes: dict[str, object], code: str | None) -> None:
    plain: dict[str, object] = {
        "first": 101,
        "opened": 50,
        "closed": 50,
        "complete_to_us": NOW_US,
        "number": 5,
    }
    batch = arrived(seal(5, "head", **{k: v for k, v in (plain | changes).items() if k != "number"}), "new")
    numbered = replace(batch, seal=replace(batch.seal, number=(plain | changes)["number"]))  # type: ignore[arg-type]  # a number
    verdicts = follow(MARK, [numbered], NOW)
    assert [refusal.code for _, refusal in verdicts.refused] == ([] if code is None else [code])


@pytest.mark.parametrize(
    "changes",
    [{"number": 5, "first": 101}, {"number": 0, "epoch": NEXT_EPOCH}],
    ids=["same epoch", "new epoch"],
)
def test_nothing_follows_a_final_seal(changes: dict[str, object]) -> None:
    common = {"previous": "head", "opened": 50, "closed": 50, "complete_to_us": NOW_US}
    following = arrived(replace(seal(0, "head"), **{**common, **changes}), "new")  # type: ignore[arg-type]  # fields of a seal
    verdicts = follow(replace(MARK, ended=True), [following], NOW)
    assert [refusal.code for _, refusal in verdicts.refused] == ["after_final"]
