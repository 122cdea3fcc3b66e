"""What `tally streams` prints below its table: a line a case, short enough that the commands are seen."""

from __future__ import annotations

from datetime import UTC, datetime

from adapters.cli.streams_text import shortened, streams_text
from billing.acceptance import FORK
from billing.held_cases import HeldBatch
from billing.inspection import LaneName, Place
from billing.streams import AsideBatch, Stream, stream_document

NOW = datetime(2026, 11, 22, 13, 12, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000
EPOCH = "59642e93" * 4


def held(number: int) -> HeldBatch:
    """A clone's heartbeat: each follows the one before, the first a seal that is taken."""
    return HeldBatch(
        Place(EPOCH, number), f"{number + 1:064x}", f"{number:064x}", FORK, f"follows seal {'e33060b7' * 8}"
    )


def stream(**changes: object) -> Stream:
    told = {"place": Place(EPOCH, 9), "complete_to_us": NOW_US, "held": (), "ended": False, "set_aside": 0}
    return Stream(LaneName("telecentras", "kaunas-1", "sidecar-0"), "sidecar", **{**told, **changes})  # type: ignore[arg-type]  # whichever a test changes


def test_a_clones_heartbeats_are_one_case_with_the_commands_that_end_it() -> None:
    lines = streams_text(stream_document([stream(held=[held(n) for n in range(15)])], [], NOW))
    assert lines[0] == (
        "held: kaunas-1/sidecar-0 59642e9359642e93…-0 and 14 behind it: fork: follows seal e33060b7e33060b7…"
    )
    assert lines[1].startswith("  what ends it: another writer sealed in this lane")
    assert lines[2:] == [
        f"    tally intake repair --operator telecentras --node kaunas-1 --lane sidecar-0 {option} --reason WHY"
        for option in ("--keep 0000000000000000", "--drop 0000000000000000")
    ]


def test_strangers_of_one_kind_are_one_line_with_their_number_and_the_first_of_their_files() -> None:
    aside = [
        AsideBatch("", "", "", "bad_seal", "there is no signature", f"set-aside/{n}.batch") for n in range(3)
    ]
    aside.append(
        AsideBatch("telecentras", "kaunas-1", "sidecar-0", "not_kept", "more came", "", batches=2_908)
    )
    lines = streams_text(stream_document([], aside, NOW))
    assert lines[:2] == [
        "set aside: claims kaunas-1/sidecar-0: not_kept: more came (2,908 batches)",
        "set aside: claims no lane that can be read: bad_seal: there is no signature (3 batches; held/set-aside/0.batch)",
    ]
    assert "2,911 batches" in lines[2]
    assert "--dismiss-strays" in lines[2]


def test_a_lane_that_never_sealed_is_told_as_such() -> None:
    [line] = streams_text(stream_document([stream(place=None, complete_to_us=None)], [], NOW))
    assert line.startswith("silent: kaunas-1/sidecar-0: nothing came yet")


def test_hashes_are_shortened_and_other_words_are_not() -> None:
    assert shortened(f"seal {'ab' * 32} of tally, deadbeef") == f"seal {'ab' * 8}… of tally, deadbeef"
