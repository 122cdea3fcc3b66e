"""Leaves as text, and proofs that anybody checks: what was changed shows, and whose log it is only a pin tells."""

from __future__ import annotations

import json
from datetime import date
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from event_examples import KEY, PUBLIC_KEY
from hypothesis import given
from hypothesis import strategies as st

from billing import log
from billing.log import BatchLeaf, ChangeLeaf, Content, leaf_data, parse_leaf
from billing.log_growth import GrowingLog
from billing.log_proof import check_proof, checkpoint_line, make_proof, read_proof, read_seen
from billing.log_tiles import LogTiles
from metering.batch import GENESIS, make_batch, seal_hash
from metering.checkpoint import Checkpoint, sign_checkpoint
from metering.note import verifier_key
from metering.refusal import Refusal

ORIGIN = log.origin("vilnius")
PIN = verifier_key(ORIGIN, PUBLIC_KEY)
CONTENT = Content(bytes(range(32)), '{"table":"document","op":"insert","row":{"number":"TLC-1"}}')
LEAVES = [
    leaf_data(
        BatchLeaf("vilnius-1", "sidecar-0", "ab" * 16, number, "cd" * 32, "2026-10-05T08:00:10.000000Z")
    )
    for number in range(20)
]
LEAVES[7] = leaf_data(ChangeLeaf("document", CONTENT.commitment))


def grown(size: int) -> tuple[LogTiles, Checkpoint, bytes]:
    growing = GrowingLog()
    growing.add(LEAVES[:size])
    tiles = {name.path: content for name, content in growing.unfinished()}
    newest = Checkpoint(ORIGIN, size, growing.root())
    return LogTiles(tiles.get, size), newest, sign_checkpoint(newest, KEY)


def proof_of(index: int, seen: Checkpoint | None = None, size: int = 20) -> dict[str, Any]:
    tiles, _, signed = grown(size)
    content = CONTENT if index == 7 else None
    return make_proof(tiles, index, signed=signed, key=PIN, content=content, seen=seen)


@given(st.integers(0, 19), st.integers(0, 20))
def test_every_leaf_is_proved_with_every_checkpoint_seen_before(index: int, seen: int) -> None:
    _, earlier, earlier_note = grown(seen)
    proof = read_proof(json.dumps(proof_of(index, earlier)).encode())
    for shown in (checkpoint_line(earlier), earlier_note.decode()):
        checked = check_proof(proof, pin=PIN, seen=shown)
        assert (checked.proves, checked.failures) == (True, ())
        assert (checked.index, checked.leaf) == (index, LEAVES[index])


def test_without_a_pin_a_proof_is_consistent_and_proves_nothing() -> None:
    checked = check_proof(proof_of(3))
    assert (checked.failures, checked.pinned, checked.proves) == ((), False, False)


def test_a_proof_under_the_makers_own_key_fails_against_the_pin() -> None:
    other = verifier_key(ORIGIN, bytes(32))
    checked = check_proof(proof_of(3), pin=other)
    assert not checked.proves
    assert "no known key" in checked.failures[0]


def change(name: str, value: Any) -> dict[str, Any]:
    return {**proof_of(7, grown(5)[1]), name: value}


@pytest.mark.parametrize(
    "changed",
    [
        change("index", 6),
        change("index", 20),
        change("leaf", LEAVES[6].decode()),
        change("content", CONTENT.content.replace("TLC-1", "TLC-2")),
        change("nonce", "00" * 32),
        change("nonce", None),
        change("content", None),
        change("inclusion", []),
        change("inclusion", [*proof_of(7)["inclusion"], "00" * 32]),
        change("checkpoint", grown(19)[2].decode()),
        change("seen", None),
        change("seen", checkpoint_line(Checkpoint(ORIGIN, 5, bytes(32)))),
        change("seen", checkpoint_line(Checkpoint(ORIGIN, 4, grown(5)[1].root))),
        change("seen", checkpoint_line(Checkpoint(log.origin("kaunas"), 5, grown(5)[1].root))),
        change("consistency", []),
    ],
)
def test_whatever_is_changed_in_a_proof_shows(changed: dict[str, Any]) -> None:
    assert not check_proof(changed, pin=PIN).proves


def test_every_character_changed_in_a_proof_shows() -> None:
    text = json.dumps(proof_of(7, grown(5)[1]))
    key = json.dumps(PIN)
    for at, old in enumerate(text):
        changed = text[:at] + ("0" if old != "0" else "1") + text[at + 1 :]
        try:
            checked = check_proof(read_proof(changed.encode()), pin=PIN)
        except Refusal:
            continue
        # The key is only told; what counts is the one that was pinned.
        assert not checked.proves or text.index(key) <= at < text.index(key) + len(key), changed


def test_two_trees_of_one_size_are_found_when_one_was_seen() -> None:
    other = Checkpoint(ORIGIN, 20, bytes(32))
    checked = check_proof(proof_of(3), pin=PIN, seen=sign_checkpoint(other, KEY).decode())
    assert "two trees of one size" in checked.failures[0]


def test_a_checkpoint_seen_that_the_proof_does_not_speak_of_proves_nothing() -> None:
    checked = check_proof(proof_of(3), pin=PIN, seen=checkpoint_line(grown(5)[1]))
    assert "--seen" in checked.failures[0]


def test_a_checkpoint_seen_that_the_log_did_not_sign_proves_nothing() -> None:
    earlier = grown(5)[1]
    forged = sign_checkpoint(earlier, Ed25519PrivateKey.from_private_bytes(bytes(32))).decode()
    checked = check_proof(proof_of(3, earlier), pin=PIN, seen=forged)
    assert checked.failures == ("the checkpoint seen: no known key signed the note",)


@pytest.mark.parametrize(
    "seen", [Checkpoint(ORIGIN, 21, bytes(32)), Checkpoint(log.origin("x"), 1, bytes(32))]
)
def test_a_tree_that_was_never_ours_can_not_be_proved_from(seen: Checkpoint) -> None:
    with pytest.raises(Refusal) as refused:
        proof_of(3, seen)
    assert refused.value.code == "bad_seen"


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"format": "tallygrid/log-proof/v1"}', b"\xff"])
def test_what_is_no_proof_is_refused(text: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        read_proof(text)
    assert refused.value.code == "bad_proof"


def test_leaves_come_back_as_they_were_written() -> None:
    assert [leaf_data(parse_leaf(data)) for data in LEAVES] == LEAVES
    for wrong in (b"", LEAVES[0] + b"\n", LEAVES[0].upper(), LEAVES[7].replace(b"document", b"a b")):
        with pytest.raises(Refusal):
            parse_leaf(wrong)


def test_contents_of_a_transaction_come_back_and_a_changed_one_is_refused() -> None:
    contents = [CONTENT, Content(bytes(32), '{"a": "ąžuolas\\u2028"}')]
    path, stored = log.contents_object("*", date(2026, 10, 5), contents)
    assert path.startswith("_installation/_log/content/2026-10-05/")
    assert list(log.read_contents(path, stored).values()) == contents
    for wrong in (stored.replace(b"TLC-1", b"TLC-2"), stored[:-1], b"{}\n", b"\xff\n"):
        with pytest.raises(Refusal) as refused:
            log.read_contents(path, wrong)
        assert refused.value.code == "bad_content"


def test_an_operators_log_has_one_name_and_the_installation_one_that_no_operator_can_have() -> None:
    for operator in ("vilnius", "a.tallygrid", "*"):
        assert log.operator_of(log.origin(operator)) == operator
    assert log.origin("*") == "_installation.tallygrid/log"
    for wrong in ("vilnius", ".tallygrid/log", "vilnius.tallygrid/log/x"):
        with pytest.raises(Refusal):
            log.operator_of(wrong)


def test_a_checkpoint_seen_is_read_from_its_line_or_its_note() -> None:
    _, newest, signed = grown(9)
    assert read_seen(checkpoint_line(newest) + "\n") == (newest, None)
    assert read_seen(signed.decode()) == (newest, signed)
    with pytest.raises(Refusal):
        read_seen("vilnius")


# -- A heartbeat without a leaf of its own -----------------------------------------------------------------------------


def heartbeats(count: int) -> list[bytes]:
    """Their signed seals, each following the one before."""
    notes: list[bytes] = []
    for number in range(count):
        sealed = make_batch(
            operator="vilnius",
            node="vilnius-1",
            lane="sidecar-0",
            kind="sidecar",
            epoch="ab" * 16,
            number=number,
            first=1,
            complete_to_us=1_790_000_000_000_000 + number * 10_000_000,
            opened=0,
            closed=0,
            previous=seal_hash(notes[-1]) if notes else GENESIS,
            key=KEY,
        )
        notes.append(sealed.note)
    return notes


def proof_by_seals(notes: list[bytes]) -> dict[str, Any]:
    """That of the first, under a leaf of the last."""
    last = BatchLeaf(
        "vilnius-1",
        "sidecar-0",
        "ab" * 16,
        len(notes) - 1,
        seal_hash(notes[-1]),
        "2026-10-05T08:00:10.000000Z",
    )
    growing = GrowingLog()
    growing.add([*LEAVES[:3], leaf_data(last)])
    tiles = {name.path: content for name, content in growing.unfinished()}
    signed = sign_checkpoint(Checkpoint(ORIGIN, 4, growing.root()), KEY)
    return make_proof(LogTiles(tiles.get, 4), 3, signed=signed, key=PIN, content=None, seals=notes)


def test_a_heartbeat_is_proved_by_the_seals_that_lead_from_it_to_a_leaf() -> None:
    notes = heartbeats(6)
    checked = check_proof(read_proof(json.dumps(proof_by_seals(notes)).encode()), pin=PIN)
    assert checked.proves
    assert (checked.batch, checked.seals) == (seal_hash(notes[0]), 6)


@given(st.integers(0, 5), st.data())
def test_seals_that_do_not_lead_to_the_leaf_prove_nothing(at: int, chance: st.DataObject) -> None:
    """One is missing, another stands in its place, or any byte of one is another: every one is named by the next."""
    notes = heartbeats(6)
    proof = proof_by_seals(notes)
    seals = list(proof["seals"])
    place = chance.draw(st.integers(0, len(seals[at]) - 1))
    changed = seals[at][:place] + ("a" if seals[at][place] != "a" else "b") + seals[at][place + 1 :]
    for spoilt in (seals[:at] + seals[at + 1 :], [*seals[:at], changed, *seals[at + 1 :]], [seals[at]]):
        checked = check_proof({**proof, "seals": spoilt}, pin=PIN)
        # Without its first ones, what is left is the proof of a later heartbeat.
        assert checked.proves == (spoilt == seals[6 - len(spoilt) :])
        assert not checked.proves or checked.batch == seal_hash(notes[6 - len(spoilt)])


def test_seals_prove_nothing_under_a_leaf_of_something_else() -> None:
    checked = check_proof({**proof_of(7), "seals": [heartbeats(1)[0].decode()]}, pin=PIN)
    assert checked.failures == ("the seals do not lead from the first one to the leaf",)


def opened(leaf: bytes, nonce: str, content: str) -> dict[str, Any]:
    """The proof of the only leaf of a log, opened so."""
    growing = GrowingLog()
    growing.add([leaf])
    tiles = {name.path: stored for name, stored in growing.unfinished()}
    signed = sign_checkpoint(Checkpoint(ORIGIN, 1, growing.root()), KEY)
    proof = make_proof(LogTiles(tiles.get, 1), 0, signed=signed, key=PIN, content=None)
    return {**proof, "nonce": nonce, "content": content}


def test_a_content_whose_front_was_moved_into_the_nonce_is_not_what_was_committed() -> None:
    """SHA-256(nonce ‖ content) is the same wherever the border is drawn."""
    whole = bytes(32) + b'{"table":"document","row":{}}'
    leaf = leaf_data(ChangeLeaf("document", sha256(whole).hexdigest()))
    assert check_proof(opened(leaf, whole[:32].hex(), whole[32:].decode()), pin=PIN).proves
    moved = check_proof(opened(leaf, whole[:40].hex(), whole[40:].decode()), pin=PIN)
    assert moved.failures == ("the nonce has 40 bytes, not 32",)


def test_a_content_of_another_table_than_its_leafs_is_a_failure() -> None:
    content = Content(bytes(32), '{"table":"adjustment","op":"insert","row":{}}')
    leaf = leaf_data(ChangeLeaf("document", content.commitment))
    checked = check_proof(opened(leaf, content.nonce.hex(), content.content), pin=PIN)
    assert checked.failures == ("the content is not of the table document, as its leaf says",)


def test_a_hash_is_spelled_in_one_way_only() -> None:
    proof = proof_of(3)
    with pytest.raises(Refusal, match="hex digits"):
        check_proof({**proof, "inclusion": [proof["inclusion"][0].upper(), *proof["inclusion"][1:]]}, pin=PIN)


@pytest.mark.parametrize("name", ["content", "checkpoint", "seen", "key", "leaf"])
def test_half_a_character_is_refused_by_name(name: str) -> None:
    with pytest.raises(Refusal, match="no proof of a log"):
        read_proof(json.dumps({**proof_of(7), name: "\ud800"}).encode())


def test_json_without_an_end_of_depth_is_refused_by_name() -> None:
    with pytest.raises(Refusal, match="not JSON"):
        read_proof(b"[" * 200_000)


def test_another_tree_of_the_size_that_was_seen_is_a_second_history() -> None:
    proof = proof_of(7, grown(5)[1])
    other = Checkpoint(ORIGIN, 5, bytes(32))
    checked = check_proof(proof, pin=PIN, seen=checkpoint_line(other))
    assert checked.failures == (
        "the log has two histories: of 5 leaves it tells another tree than the one seen",
    )
