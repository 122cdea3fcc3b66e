"""What is held, case by case, and what a person is told to do about it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.held_cases import HeldBatch, branch_from, branch_up_to, branches, cases
from billing.inspection import LaneName, Place
from billing.repair import ACCEPT_HOLE, DROP, KEEP, LaneNow, Lost, drop, go_on_with, retire, with_losses
from metering.refusal import Refusal

NAME = LaneName("telecentras", "vilnius-1", "sidecar-0")
EPOCH, NEXT = "a" * 32, "b" * 32


def sha(letter: str) -> str:
    return letter * 64


def held(letter: str, previous: str, code: str = "hole", number: int = 5, epoch: str = EPOCH) -> HeldBatch:
    return HeldBatch(Place(epoch, number), sha(letter), sha(previous), code, f"it is {code}")


def lane(*batches: HeldBatch, ended: bool = False, taken: tuple[Place, ...] = ()) -> LaneNow:
    return LaneNow(
        NAME, "sidecar", Place(EPOCH, 4), sha("9"), 1_000_000, 40, ended, batches, frozenset(taken)
    )


def refusal(lane: LaneNow, hash: str, kind: str) -> str:
    with pytest.raises(Refusal) as refused:
        go_on_with(lane, hash, kind, "why")
    return refused.value.code


def test_what_follows_held_batches_is_one_case_with_them() -> None:
    found = cases(
        NAME, [held("1", "0"), held("2", "1", number=6), held("3", "2", number=7), held("7", "6", number=9)]
    )
    assert [(case.root.hash, len(case.batches)) for case in found] == [(sha("1"), 3), (sha("7"), 1)]


def test_two_that_follow_one_batch_are_branches_of_their_own() -> None:
    found = branches([held("1", "0"), held("2", "1"), held("3", "1")])
    assert [[batch.hash[0] for batch in chain] for chain in found] == [["1", "2"], ["3"]]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=30, unique_by=lambda pair: pair[0])
)
def test_every_held_batch_is_in_exactly_one_branch_unless_seals_go_round(
    pairs: list[tuple[int, int]],
) -> None:
    batches = [
        HeldBatch(Place(EPOCH, n), f"{n:064}", f"{before:064}", "hole", "")
        for n, before in pairs
        if before < n
    ]
    listed = [batch.hash for chain in branches(batches) for batch in chain]
    assert sorted(listed) == sorted(batch.hash for batch in batches)


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("hole", ["--accept-hole", "--drop"]),
        ("fork", ["--drop"]),
        ("ahead_of_time", ["--drop"]),
        ("unknown_customer", ["--drop"]),
        ("time", ["--accept-hole", "--drop"]),
        ("control_totals", ["--drop"]),
    ],
)
def test_each_case_names_its_commands(code: str, options: list[str]) -> None:
    [case] = cases(NAME, [held("1", "0", code)])
    assert [command.split(" ")[9] for command in case.commands] == options
    for command in case.commands:
        assert command.startswith(
            "tally intake repair --operator telecentras --node vilnius-1 --lane sidecar-0 --"
        )
        assert command.endswith(f"{'1' * 16} --reason WHY")


def test_a_fork_may_be_kept_from_its_next_epoch_on_and_a_bad_batch_be_passed_over() -> None:
    [case] = cases(NAME, [held("1", "0", "fork"), held("2", "1", number=0, epoch=NEXT)])
    assert f"--keep {'2' * 16}" in case.commands[0]
    [case] = cases(NAME, [held("1", "0", "root"), held("2", "1", number=6)])
    assert f"--accept-hole {'2' * 16}" in case.commands[0]
    [old] = cases(NAME, [held("1", "0", "old_key")])
    assert [command.split(" ", 9)[9] for command in old.commands] == ["--drop revoked --reason WHY"]
    [case] = cases(NAME, [held("1", "0", "revoked")])
    assert case.commands[0] == "tally node reseal --node vilnius-1 --lane sidecar-0"


def test_what_comes_behind_a_dropped_branch_is_said_to_be_its_writer() -> None:
    [case] = cases(NAME, [held("1", "0")], dropped={sha("0")})
    assert "still runs" in case.ends


def test_a_branch_is_taken_from_or_up_to_a_batch() -> None:
    all_of_it = [held("1", "0"), held("2", "1"), held("3", "2"), held("4", "2")]
    assert [batch.hash[0] for batch in branch_from(all_of_it, sha("2"))] == ["2", "3", "4"]
    assert [batch.hash[0] for batch in branch_up_to(all_of_it, sha("3"))] == ["1", "2", "3"]


def test_dropping_takes_all_that_is_behind_with_it() -> None:
    made = drop(lane(held("1", "0", "fork"), held("2", "1"), held("8", "7")), "1" * 8, "why")
    assert [(each.kind, each.hash) for each in made] == [(DROP, sha("1")), (DROP, sha("2"))]


def test_going_on_drops_what_is_before_and_says_where_the_lane_stood() -> None:
    made = go_on_with(
        lane(held("1", "0", "fork"), held("2", "1", number=0, epoch=NEXT)),
        sha("2"),
        KEEP,
        "the disk was restored",
    )
    assert [(each.kind, each.hash, each.after) for each in made] == [
        (DROP, sha("1"), None),
        (KEEP, sha("2"), sha("9")),
    ]


def test_who_takes_the_wrong_way_is_told_the_other_one() -> None:
    fork, hole = held("1", "0", "fork"), held("2", "7")
    assert refusal(lane(fork, hole), sha("1"), ACCEPT_HOLE) == "is_a_fork"
    assert refusal(lane(fork, hole), sha("2"), KEEP) == "not_a_fork"
    assert refusal(lane(fork, hole), sha("3"), KEEP) == "unknown_batch"
    assert refusal(lane(fork, hole), "1" * 7, KEEP) == "unknown_batch"
    assert refusal(lane(fork, taken=(fork.place,)), sha("1"), KEEP) == "number_taken"
    assert refusal(lane(fork, ended=True), sha("1"), KEEP) == "lane_ended"
    assert refusal(lane(held("1", "9", "root")), sha("1"), ACCEPT_HOLE) == "not_acceptable"


def test_what_a_decision_loses_stands_in_it() -> None:
    found = lane(held("1", "9", "root"), held("2", "1", number=6))
    made = with_losses(found, go_on_with(found, sha("2"), ACCEPT_HOLE, "why"), {}, {sha("1"): Lost(1, 2, 3)})
    assert [each.lost for each in made] == [Lost(1, 2, 3), None], "nothing is missing but what is dropped"
    hole = lane(held("2", "7", number=6))
    [made_of_hole] = with_losses(hole, go_on_with(hole, sha("2"), ACCEPT_HOLE, "why"), {}, {})
    assert made_of_hole.lost == Lost(1_000_000, 1_000_000, None), "its files are gone, too"


def test_only_a_lane_that_a_close_waits_for_is_retired() -> None:
    [made] = retire(lane(), "sold")
    assert (made.kind, made.hash) == ("retire", sha("9"))
    with pytest.raises(Refusal) as refused:
        retire(lane(ended=True), "sold")
    assert refused.value.code == "not_due"
