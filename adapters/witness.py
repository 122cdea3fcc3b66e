"""Asking witnesses for cosignatures (https://c2sp.org/tlog-witness), where the operator names some. Off by default.

    POST <address>/add-checkpoint
    old <size that the witness has signed for>
    <consistency proof from there, a line of base64 each hash>

    <the checkpoint, the whole note>

200 brings signature lines, 409 the size that the witness has: then it is asked once more from there. Everything else is
a refusal by name; 422 would mean that the log is not what the witness saw, which no log of ours ever is.

TALLY_WITNESSES names a file with a witness a line, its address and its verifier key (metering/cosignature.py); `#`
begins a comment.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.posting import check_address, post
from metering import note
from metering.checkpoint import Checkpoint, checkpoint_text
from metering.cosignature import Witness, cosignatures, parse_witness
from metering.refusal import Refusal

WITNESSES = "TALLY_WITNESSES"
_OK, _CONFLICT = 200, 409
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n?")

#: The hashes that prove that the newest tree begins with the one of so many leaves.
ProofFrom = Callable[[int], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class AskedWitness:
    """A witness and where it answers."""

    url: str
    witness: Witness


def read_witnesses(path: Path) -> list[AskedWitness]:
    """The witnesses that a file names. Refusal `bad_witnesses`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise Refusal("bad_witnesses", f"{path} can't be read", where=WITNESSES) from None
    found: list[AskedWitness] = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2:
            raise Refusal(
                "bad_witnesses",
                "a witness is its address and its verifier key, with a space between",
                where=f"{path}:{number}",
            )
        found.append(AskedWitness(check_address(words[0], f"{path}:{number}"), parse_witness(words[1])))
    return found


def ask(
    asked: AskedWitness, signed: bytes, checkpoint: Checkpoint, known: int, proof_from: ProofFrom
) -> bytes:
    """The signature line of the witness for a checkpoint, verified. `known`: the size it is thought to have.

    Raises `Unavailable` while it does not answer; Refusal `witness_refuses` or `bad_cosignature`.
    """
    status, answer = _add(asked, signed, known, proof_from)
    if status == _CONFLICT and (told := _SIZE.fullmatch(answer)):
        has = int(told[1])
        if has > checkpoint.size:
            raise Refusal(
                "witness_refuses",
                f"{asked.witness.name} has signed for {has} leaves of {checkpoint.origin}, and there are"
                f" {checkpoint.size}",
                where=asked.url,
                remedy="somebody else signs for this log, or it was restored from a backup: see `tally doctor`",
            )
        status, answer = _add(asked, signed, has, proof_from)
    if status != _OK:
        raise Refusal(
            "witness_refuses",
            f"{asked.witness.name} answers with status {status}: {answer[:200].decode('utf-8', 'replace')!r}",
            where=asked.url,
            remedy="404: have it add this log; 403: tell it the log's key; 422: it saw another history",
        )
    return _own_line(asked, checkpoint, answer)


def _add(asked: AskedWitness, signed: bytes, known: int, proof_from: ProofFrom) -> tuple[int, bytes]:
    proof = b"".join(base64.b64encode(each) + b"\n" for each in proof_from(known))
    body = b"old %d\n" % known + proof + b"\n" + signed
    return post(f"{asked.url}/add-checkpoint", body, "text/plain")


def _own_line(asked: AskedWitness, checkpoint: Checkpoint, answer: bytes) -> bytes:
    """The witness's line out of its answer, which may hold more than one."""
    text = checkpoint_text(checkpoint)
    for line in answer.splitlines(keepends=True):
        _, signatures = note.split_note(text + b"\n" + line)
        if cosignatures(text, signatures, [asked.witness]):
            return line
    raise Refusal("witness_refuses", f"{asked.witness.name} answers without its signature", where=asked.url)
