"""Our trees, proofs, notes and tiles against what others have published: the vectors of transparency-dev/merkle, proofs of
a real Certificate Transparency log, Go's known note, and a log that Tessera wrote.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from go_module import go_module

from billing.log_growth import GrowingLog
from billing.log_tiles import LogTiles, TileName
from metering import merkle, note
from metering.checkpoint import Checkpoint, parse_checkpoint, read_checkpoint, sign_checkpoint

_HEX = re.compile(r'dh\("([0-9a-f]*)"')


@dataclass(frozen=True)
class Vectors:
    """Of proof/verify_test.go: eight leaves, the roots of the trees of 1 to 8 of them, and proofs."""

    leaves: list[bytes]
    roots: list[bytes]
    inclusion: list[tuple[int, int, list[bytes]]]  # leaf from 1, size, proof
    consistency: list[tuple[int, int, list[bytes]]]


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    source = (go_module("github.com/transparency-dev/merkle") / "proof" / "verify_test.go").read_text()

    def block(name: str) -> str:
        return source.split(f"\t{name} = ", 1)[1].split("\n\t}\n", 1)[0]

    def hashes(text: str) -> list[bytes]:
        return [bytes.fromhex(found) for found in _HEX.findall(text)]

    def proofs(name: str) -> list[tuple[int, int, list[bytes]]]:
        parts = re.split(r"\n\t\t\{(\d+), (\d+), ", block(name))[1:]
        return [(int(parts[at]), int(parts[at + 1]), hashes(parts[at + 2])) for at in range(0, len(parts), 3)]

    found = Vectors(
        hashes(block("leaves")),
        hashes(block("roots")),
        proofs("inclusionProofs"),
        proofs("consistencyProofs"),
    )
    assert (len(found.leaves), len(found.roots)) == (8, 8)
    assert len(found.inclusion) >= 6
    assert len(found.consistency) >= 5
    return found


def hashes_of(leaves: Sequence[bytes], ranges: list[tuple[int, int]]) -> list[bytes]:
    return [merkle.root(leaves[start:end]) for start, end in ranges]


def test_every_published_root_is_ours(vectors: Vectors) -> None:
    for size, root in enumerate(vectors.roots, 1):
        assert merkle.root(vectors.leaves[:size]) == root


def test_every_published_inclusion_proof_is_ours_and_holds(vectors: Vectors) -> None:
    for leaf, size, proof in vectors.inclusion:
        if leaf == 0:
            continue  # "i = 0 is an invalid path", as its own test says
        hashed = merkle.leaf_hash(vectors.leaves[leaf - 1])
        assert hashes_of(vectors.leaves[:size], merkle.inclusion_ranges(leaf - 1, size)) == proof
        assert merkle.inclusion_holds(hashed, leaf - 1, size, proof, vectors.roots[size - 1])


def test_no_corrupted_inclusion_proof_holds(vectors: Vectors) -> None:
    """The corruptions of corruptInclusionProof there."""
    some, empty = bytes.fromhex("abacaba0" + "00" * 28), merkle.EMPTY_ROOT
    for leaf, size, proof in vectors.inclusion[1:]:
        index, root, hashed = leaf - 1, vectors.roots[size - 1], merkle.leaf_hash(vectors.leaves[leaf - 1])
        probes: list[tuple[int, int, bytes, bytes, list[bytes]]] = [
            (index - 1, size, root, hashed, proof),
            (index + 1, size, root, hashed, proof),
            (index ^ 2, size, root, hashed, proof),
            (index, size * 2, root, hashed, proof),
            (index, size // 2, root, hashed, proof),
            (index, size, root, b"WrongLeaf", proof),
            (index, size, empty, hashed, proof),
            (index, size, some, hashed, proof),
            *((index, size, root, hashed, wrong) for wrong in garbled(proof, root)),
        ]
        for wrong_index, wrong_size, wrong_root, wrong_leaf, wrong_proof in probes:
            assert not merkle.inclusion_holds(wrong_leaf, wrong_index, wrong_size, wrong_proof, wrong_root)


def test_every_published_consistency_proof_is_ours_and_holds(vectors: Vectors) -> None:
    for first, second, proof in vectors.consistency:
        roots = vectors.roots[first - 1], vectors.roots[second - 1]
        assert hashes_of(vectors.leaves[:second], merkle.consistency_ranges(first, second)) == proof
        assert merkle.consistency_holds(first, second, *roots, proof)


def test_no_corrupted_consistency_proof_holds(vectors: Vectors) -> None:
    """The corruptions of corruptConsistencyProof there."""
    for first, second, proof in vectors.consistency:
        if not proof:
            continue
        old, new = vectors.roots[first - 1], vectors.roots[second - 1]
        probes: list[tuple[int, int, bytes, bytes, list[bytes]]] = [
            (first - 1, second, old, new, proof),
            (first + 1, second, old, new, proof),
            (first ^ 2, second, old, new, proof),
            (first, second * 2, old, new, proof),
            (first, second // 2, old, new, proof),
            (first, second, b"WrongRoot", new, proof),
            (first, second, old, b"WrongRoot", proof),
            (first, second, new, old, proof),
            (first, second, old, new, []),
            (first, second, old, new, [proof[0], *proof]),
            *((first, second, old, new, wrong) for wrong in (*garbled(proof, old), *garbled(proof, new))),
        ]
        for wrong in probes:
            assert not merkle.consistency_holds(*wrong), wrong


def garbled(proof: list[bytes], root: bytes) -> list[list[bytes]]:
    """Garbage at either end, each hash with a bit flipped, one left out, one put in."""
    flipped = [
        [*proof[:at], bytes([proof[at][0] ^ 8]) + proof[at][1:], *proof[at + 1 :]] for at in range(len(proof))
    ]
    shorter = [proof[:-1], [*proof[1:], proof[0], root]] if proof else []
    return [[*proof, b""], [*proof, root], [b"", *proof], [root, *proof], *flipped, *shorter]


def test_proofs_of_a_log_of_961_million_certificates_hold() -> None:
    folder = go_module("golang.org/x/mod") / "sumdb" / "tlog"

    def read(name: str) -> Any:
        return json.loads((folder / "testdata" / "argon2020" / name).read_text())

    head, proof = read("sth.json"), read("proof.json")
    root = b64decode(head["sha256_root_hash"])
    leaf = merkle.leaf_hash(b64decode(read("entries.json")["entries"][0]["leaf_input"]))
    path = [b64decode(each) for each in proof["audit_path"]]
    assert merkle.inclusion_holds(leaf, proof["leaf_index"], head["tree_size"], path, root)
    assert not merkle.inclusion_holds(leaf, proof["leaf_index"] + 1, head["tree_size"], path, root)
    source = (folder / "ct_test.go").read_text()
    first = re.search(r"root\.Hash, (\d+), oh\)", source)
    known = re.search(r'ParseHash\("([^"]+)"\)', source)
    assert first is not None
    assert known is not None
    consistency = [b64decode(each) for each in read("consistency.json")["consistency"]]
    assert merkle.consistency_holds(int(first[1]), head["tree_size"], b64decode(known[1]), root, consistency)


def test_gos_published_note_opens_and_is_signed_the_same() -> None:
    source = (go_module("golang.org/x/mod") / "sumdb" / "note" / "example_test.go").read_text()
    signer = re.search(r'skey := "(PRIVATE\+KEY\+PeterNeumann[^"]+)"', source)
    verifier = re.search(r'vkey := "(PeterNeumann[^"]+)"', source)
    line = re.search(r'"(— PeterNeumann [^"\\]+)\\n"', source)
    assert signer is not None
    assert verifier is not None
    assert line is not None
    text = (
        b"If you think cryptography is the answer to your problem,\n"
        b"then you don't know what your problem is.\n"
    )
    name, key = note.parse_signer(signer[1])
    signed = note.sign(text, name, key)
    assert signed == text + b"\n" + line[1].encode() + b"\n"
    assert note.open_note(signed, [note.parse_verifier(verifier[1])]) == text


@dataclass(frozen=True)
class Tessera:
    """The log in Tessera's testdata: a checkpoint for each size from 0 to 15, partial tiles and bundles."""

    log: Path
    signer: str
    verifier: note.Verifier

    def checkpoint(self, size: int) -> Checkpoint:
        return read_checkpoint((self.log / f"checkpoint.{size}").read_bytes(), self.verifier)

    def tiles(self, size: int) -> LogTiles:
        def get(path: str) -> bytes | None:
            place = self.log / path
            return place.read_bytes() if place.is_file() else None

        return LogTiles(get, size)


@pytest.fixture(scope="module")
def tessera() -> Tessera:
    folder = go_module("github.com/transparency-dev/tessera") / "testdata"
    script = (folder / "build_log.sh").read_text()
    keys = dict(re.findall(r'export (LOG_PRIVATE_KEY|LOG_PUBLIC_KEY)="([^"]+)"', script))
    return Tessera(folder / "log", keys["LOG_PRIVATE_KEY"], note.parse_verifier(keys["LOG_PUBLIC_KEY"]))


def test_a_log_that_tessera_wrote_is_read_from_its_tiles(tessera: Tessera) -> None:
    for size in range(1, 16):
        checkpoint, tiles = tessera.checkpoint(size), tessera.tiles(size)
        leaves = list(tiles.leaves(0, size))
        assert (checkpoint.size, tiles.root()) == (size, checkpoint.root)
        assert merkle.root(leaves) == checkpoint.root
    assert leaves[:3] == [b"one", b"two", b"three"]
    for old, new in pairwise(tessera.checkpoint(size) for size in (1, 2, 5, 8, 15)):
        tiles = tessera.tiles(new.size)
        proof = [tiles.range_hash(*part) for part in merkle.consistency_ranges(old.size, new.size)]
        assert merkle.consistency_holds(old.size, new.size, old.root, new.root, proof)


def test_we_write_the_very_tiles_and_checkpoints_that_tessera_wrote(tessera: Tessera) -> None:
    leaves = list(tessera.tiles(15).leaves(0, 15))
    _, key = note.parse_signer(tessera.signer)
    log = GrowingLog()
    for size, leaf in enumerate(leaves, 1):
        assert log.add([leaf]) == []
        for name, content in log.unfinished():
            assert (tessera.log / name.path).read_bytes() == content
        signed = sign_checkpoint(Checkpoint("example.com/log/testdata", size, log.root()), key)
        assert signed == (tessera.log / f"checkpoint.{size}").read_bytes()


def test_the_empty_tree_has_the_checkpoint_that_tessera_gives_it(tessera: Tessera) -> None:
    empty = tessera.checkpoint(0)
    assert (empty.size, empty.root) == (0, GrowingLog().root())
    assert (
        parse_checkpoint(b"example.com/log/testdata\n0\n" + b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n")
        == empty
    )


def test_tiles_are_named_as_the_specification_names_them() -> None:
    """The examples of c2sp.org/tlog-tiles."""
    assert TileName(0, 1_234_067).path == "tile/0/x001/x234/067"
    assert TileName(1, 0, 17).path == "tile/1/000.p/17"
    assert TileName("entries", 999).path == "tile/entries/999"
    assert TileName("entries", 1000, 1).path == "tile/entries/x001/000.p/1"
