"""docs/log.md is true: an auditor's few lines check a proof, and find what was changed in one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from billing.log import BatchLeaf, ChangeLeaf, Content, leaf_data, origin
from billing.log_growth import GrowingLog
from billing.log_proof import make_proof
from billing.log_tiles import LogTiles
from metering.batch import GENESIS, make_batch, seal_hash
from metering.checkpoint import Checkpoint, sign_checkpoint
from metering.note import verifier_key

PAGE = (Path(__file__).parents[2] / "docs" / "log.md").read_text(encoding="utf-8")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PIN = verifier_key(origin("telecentras"), KEY.public_key().public_bytes_raw())
CONTENT = Content(bytes(32), '{"table":"document","op":"insert","row":{"number":"TLC-2026-000001"}}')


def proof_of(index: int, size: int) -> dict[str, Any]:
    leaves = [
        leaf_data(BatchLeaf("n", "0", "ab" * 16, number, "cd" * 32, "2026-10-05T08:00:10.000000Z"))
        for number in range(size)
    ]
    leaves[2] = leaf_data(ChangeLeaf("document", CONTENT.commitment))
    log = GrowingLog()
    tiles = {name.path: content for name, content in [*log.add(leaves), *log.unfinished()]}
    signed = sign_checkpoint(Checkpoint(origin("telecentras"), size, log.root()), KEY)
    content = CONTENT if index == 2 else None
    return make_proof(LogTiles(tiles.get, size), index, signed=signed, key=PIN, content=content)


def heartbeat_proof(at: int) -> dict[str, Any]:
    """Of the heartbeat `at` of five, the last of which is a leaf."""
    notes: list[bytes] = []
    for number in range(5):
        sealed = make_batch(
            operator="telecentras",
            node="n",
            lane="0",
            kind="sidecar",
            epoch="ab" * 16,
            number=number,
            first=1,
            complete_to_us=1_790_000_000_000_000 + number,
            opened=0,
            closed=0,
            previous=seal_hash(notes[-1]) if notes else GENESIS,
            key=KEY,
        )
        notes.append(sealed.note)
    leaf = BatchLeaf("n", "0", "ab" * 16, 4, seal_hash(notes[-1]), "2026-10-05T08:00:10.000000Z")
    log = GrowingLog()
    log.add([leaf_data(leaf)])
    tiles = {name.path: content for name, content in log.unfinished()}
    signed = sign_checkpoint(Checkpoint(origin("telecentras"), 1, log.root()), KEY)
    return make_proof(LogTiles(tiles.get, 1), 0, signed=signed, key=PIN, content=None, seals=notes[at:])


def check_by_hand(proof: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [script] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (folder / "proof.json").write_text(json.dumps(proof))
    monkeypatch.chdir(folder)
    exec(compile(script, "docs/log.md", "exec"), {"PIN": PIN})


@pytest.mark.parametrize(("index", "size"), [(0, 3), (2, 3), (2, 7), (6, 7), (2, 300), (299, 300)])
def test_the_lines_of_the_page_check_a_proof(
    index: int, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_by_hand(proof_of(index, size), tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert said.startswith(f"leaf {index} of {size} in telecentras.tallygrid/log:")
    assert ("TLC-2026-000001" in said) == (index == 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("index", 3),
        ("leaf", proof_of(1, 7)["leaf"]),
        ("content", CONTENT.content.replace("1", "2")),
        ("inclusion", proof_of(2, 7)["inclusion"][:-1]),
        ("checkpoint", proof_of(2, 7)["checkpoint"].replace("\n7\n", "\n8\n")),
        ("checkpoint", proof_of(2, 6)["checkpoint"]),
    ],
)
def test_the_lines_of_the_page_find_what_was_changed(
    name: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((AssertionError, InvalidSignature)):
        check_by_hand({**proof_of(2, 7), name: value}, tmp_path, monkeypatch)


def test_the_lines_of_the_page_check_a_heartbeat_without_a_leaf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    proof = heartbeat_proof(1)
    check_by_hand(proof, tmp_path, monkeypatch)
    first = seal_hash(proof["seals"][0].encode())
    assert f"the first of 4 seals is {first}" in capsys.readouterr().out
    for changed in (proof["seals"][:-1], [proof["seals"][0], *proof["seals"][2:]]):
        with pytest.raises(AssertionError):
            check_by_hand({**proof, "seals": changed}, tmp_path, monkeypatch)


def test_the_examples_of_leaves_are_spelled_as_leaves_are() -> None:
    batch = leaf_data(
        BatchLeaf("vilnius-1", "sidecar-0", "0" * 32, 4, "5" * 64, "2026-10-05T08:00:10.000000Z")
    )
    shown = [line.split() for line in PAGE.splitlines() if line.startswith(("batch ", "change "))]
    assert [len(words) for words in shown] == [len(batch.decode().split("\n")[1].split()), 3]
