"""What a lane's keys and people's decisions change about what may follow."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from billing.acceptance import Known, Mark, Verdicts, follow, settle
from billing.inspection import Delivery, Inspected, Place
from metering.batch import GENESIS, Seal
from metering.event import Totals

NOW = datetime(2026, 10, 20, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000
EPOCH, NEXT = "a" * 32, "b" * 32
SEAL = Seal(
    operator="telecentras",
    node="vilnius-1",
    lane="sidecar-0",
    kind="sidecar",
    epoch=EPOCH,
    number=0,
    first=1,
    last=0,
    complete_to_us=NOW_US - 3_600_000_000,
    opened=0,
    closed=0,
    events=0,
    totals=Totals(),
    body_sha256=None,
    body_bytes=0,
    rows_bytes=0,
    root="0" * 64,
    previous=GENESIS,
    final=False,
)


def batch(number: int, previous: str, hash: str, *, key_rank: int = 0, **changes: object) -> Inspected:
    """A heartbeat; `changes` are of its seal."""
    seal = replace(SEAL, number=number, previous=previous, **changes)  # type: ignore[arg-type]  # fields of a seal
    return Inspected(Delivery(b"", b""), seal, hash, None, None, key_rank=key_rank)


def at(number: int, head: str, **changes: object) -> Mark:
    mark = Mark("sidecar", EPOCH, number, head, complete_to_us=NOW_US - 3_600_000_000)
    return replace(mark, **changes)  # type: ignore[arg-type]  # fields of a mark


def verdicts(mark: Mark, *arrivals: Inspected, known: Known | None = None) -> Verdicts:
    found = follow(mark, arrivals, NOW)
    settle(found, known or Known({}, {}))
    return found


def codes(found: Verdicts) -> list[str]:
    return [refusal.code for _, refusal in found.refused]


def test_the_newest_key_may_sign_from_any_seal_on() -> None:
    found = verdicts(at(0, "0"), batch(1, "0", "1"), batch(2, "1", "2", key_rank=1))
    assert ([each.hash for each in found.accepted], found.mark.key_rank) == (["1", "2"], 1)


def test_the_old_key_may_not_once_a_seal_of_the_newer_one_is_accepted() -> None:
    found = verdicts(at(0, "0"), batch(1, "0", "1", key_rank=1), batch(2, "1", "2"))
    assert ([each.hash for each in found.accepted], codes(found)) == (["1"], ["old_key"])
    assert codes(verdicts(at(0, "0", key_rank=2), batch(1, "0", "1", key_rank=1))) == ["old_key"]


def test_nothing_of_a_revoked_key_is_accepted_and_what_was_accepted_stays_a_repeat() -> None:
    mark = at(1, "1", revoked=frozenset({0}))
    known = Known({Place(EPOCH, 0): "0", Place(EPOCH, 1): "1"}, {})
    found = verdicts(mark, batch(2, "1", "2"), batch(0, GENESIS, "0"), batch(5, "x", "5"), known=known)
    assert (found.accepted, codes(found)) == ([], ["revoked", "revoked"])
    assert [each.hash for each in found.repeats] == ["0"]
    fresh = verdicts(mark, batch(2, "1", "2"), batch(2, "1", "2'", key_rank=1))
    assert ([each.hash for each in fresh.accepted], codes(fresh)) == (["2'"], ["revoked"])


def test_a_lane_goes_on_with_the_batch_that_was_decided_on_and_then_as_ever() -> None:
    mark = at(3, "3", adopts="f0", last_sequence=9, opened=9, closed=9)
    earlier = NOW_US - 7_200_000_000
    branch = [
        batch(0, "lost", "f0", epoch=NEXT, complete_to_us=earlier),
        batch(1, "f0", "f1", epoch=NEXT, complete_to_us=earlier + 1),
    ]
    found = verdicts(mark, *reversed(branch))
    assert [(each.hash, each.adopted) for each in found.accepted] == [("f0", True), ("f1", False)]
    assert (found.mark.head, found.mark.adopts, found.mark.complete_to_us) == ("f1", None, earlier + 1)


def test_a_decision_passes_over_what_contradicts_the_lanes_mark_in_a_batch_that_follows_it() -> None:
    stepped_back = batch(1, "0", "1", complete_to_us=NOW_US - 7_200_000_000)
    assert codes(verdicts(at(0, "0"), stepped_back)) == ["complete_to"]
    [accepted] = verdicts(at(0, "0", adopts="1"), stepped_back).accepted
    assert not accepted.adopted, "it follows the seal that it names"


def test_what_was_decided_on_is_still_asked_for_its_kind_its_key_and_its_time() -> None:
    adopting = at(0, "0", adopts="x")
    assert codes(verdicts(adopting, batch(7, "y", "x", complete_to_us=NOW_US + 600_000_000))) == [
        "ahead_of_time"
    ]
    assert codes(verdicts(replace(adopting, revoked=frozenset({0})), batch(7, "y", "x"))) == ["revoked"]
    assert codes(verdicts(replace(adopting, ended=True), batch(7, "y", "x"))) == ["after_final"]
    assert codes(verdicts(adopting, batch(7, "y", "x", kind="import"))) == ["lane_kind"]


def test_what_was_dropped_is_never_accepted_even_where_it_would_follow() -> None:
    mark = at(0, "0", dropped=frozenset({"1"}))
    assert codes(verdicts(mark, batch(1, "0", "1"), batch(2, "1", "2"))) == ["dropped", "hole"]
