"""Enrolling a node from afar: the request that the node signs, and the answer that the ledger's side hands back.

Private keys never leave the machine that they were made on. Where node and ledger share no database, two files are
carried by hand, each of them once. The request is a C2SP note (note.py), signed by the node's key under the name
`operator/node`; it says which lanes the node has, and with which public key each of them signs from now on:

    tallygrid/enrolment/v1
    operator telecentras
    node vilnius-1
    key telecentras/vilnius-1+4f1c…+AfQ…        the node's own key, as a verifier key (C2SP signed note)
    made_at 2026-11-22T06:35:22.106671Z
    lanes 1                                     at most 256, one line each
    lane sidecar-0 <64 hex digits>

    — telecentras/vilnius-1 <base64>

The first request of a node is believed because a person carried it; later ones because the same key signed them. The
answer is signed by the operator's intake key under the name `operator/intake`, and lies in one JSON file with the API
keys that the node's sidecars serve (their hashes; keybook.py):

    {"format": "tallygrid/enrolled/v1", "note": "…", "api_keys": "…"}

    tallygrid/enrolled/v1
    operator telecentras
    node vilnius-1
    key telecentras/vilnius-1+4f1c…+AfQ…        the key that was enrolled
    made_at 2026-11-22T06:37:01.000000Z
    intake telecentras/intake+…                 whose acknowledgements the node's shipper believes
    api_keys_sha256 <64 hex digits>

A parser that reads a text, writes it again and compares refuses every unknown, missing, doubled or oddly spelled line.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering import note
from metering.acknowledgement import intake_name
from metering.instant import time_text, time_us_of
from metering.refusal import Refusal
from metering.seal import NAME

REQUEST_FORMAT = "tallygrid/enrolment/v1"
ANSWER_FORMAT = "tallygrid/enrolled/v1"
MAX_LANES = 256
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Request:
    """What a node asks for: `key` are the 32 bytes of its own public key, `lanes` (name, 32 bytes) those of its lanes."""

    operator: str
    node: str
    key: bytes
    made_at_us: int
    lanes: tuple[tuple[str, bytes], ...]

    @property
    def signer(self) -> str:
        return f"{self.operator}/{self.node}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it: `key` is the node's key as enrolled, `intake` the operator's intake key (32 bytes each)."""

    operator: str
    node: str
    key: bytes
    made_at_us: int
    intake: bytes
    api_keys: str


def sign_request(request: Request, key: Ed25519PrivateKey) -> bytes:
    """The request as a note; what `read_request` would refuse is an assertion."""
    signed = note.sign(_request_text(request), request.signer, key)
    assert read_request(signed) == request
    return signed


def read_request(signed: bytes) -> Request:
    """The request, signed by the key that it names; whether that is the node's is for the ledger to say.

    Refusals `bad_enrolment`, `bad_signature`.
    """
    lines = _lines(signed, REQUEST_FORMAT, ("operator", "node", "key", "made_at", "lanes"))
    values = dict(lines[:5])
    lanes = []
    for word, rest in lines[5:]:
        name, _, key = rest.partition(" ")
        if word != "lane" or not NAME.fullmatch(name) or not _KEY.fullmatch(key):
            raise _bad(f"{word} {rest!r} is no lane")
        lanes.append((name, bytes.fromhex(key)))
    if not lanes or len(lanes) > MAX_LANES or len({name for name, _ in lanes}) != len(lanes):
        raise _bad(f"a request names 1 to {MAX_LANES} lanes, each once")
    operator, node = _names(values)
    request = Request(
        operator,
        node,
        _verifier(values["key"], f"{operator}/{node}"),
        _instant(values["made_at"]),
        tuple(lanes),
    )
    if note.split_note(signed)[0] != _request_text(request):
        raise _bad("a line is not spelled as a request spells it")
    note.open_note(signed, [note.Verifier(request.signer, request.key)])
    return request


def sign_answer(answer: Answer, key: Ed25519PrivateKey) -> bytes:
    """The answer as a file."""
    signed = note.sign(_answer_text(answer), intake_name(answer.operator), key)
    document = {"format": ANSWER_FORMAT, "note": signed.decode(), "api_keys": answer.api_keys}
    content = json.dumps(document, indent=1).encode()
    assert read_answer(content) == answer
    return content


def read_answer(content: bytes) -> Answer:
    """The answer in a file, signed by the intake key that it names; whether that is the operator's is for whoever knows
    an earlier one to say. Refusals `bad_enrolment`, `bad_signature`.
    """
    try:
        document = json.loads(content)
        signed, api_keys = document["note"].encode(), document["api_keys"]
        if document["format"] != ANSWER_FORMAT or not isinstance(api_keys, str):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _bad("the file is no answer to an enrolment request") from None
    names = ("operator", "node", "key", "made_at", "intake", "api_keys_sha256")
    values = dict(_lines(signed, ANSWER_FORMAT, names))
    operator, node = _names(values)
    answer = Answer(
        operator,
        node,
        _verifier(values["key"], f"{operator}/{node}"),
        _instant(values["made_at"]),
        _verifier(values["intake"], intake_name(operator)),
        api_keys,
    )
    if note.split_note(signed)[0] != _answer_text(answer):
        raise _bad(
            "a line is not spelled as an answer spells it, or the API keys are not those that were signed"
        )
    note.open_note(signed, [note.Verifier(intake_name(operator), answer.intake)])
    return answer


def _request_text(request: Request) -> bytes:
    return _text(
        REQUEST_FORMAT,
        f"operator {request.operator}",
        f"node {request.node}",
        f"key {note.verifier_key(request.signer, request.key)}",
        f"made_at {time_text(request.made_at_us)}",
        f"lanes {len(request.lanes)}",
        *(f"lane {name} {key.hex()}" for name, key in request.lanes),
    )


def _answer_text(answer: Answer) -> bytes:
    return _text(
        ANSWER_FORMAT,
        f"operator {answer.operator}",
        f"node {answer.node}",
        f"key {note.verifier_key(f'{answer.operator}/{answer.node}', answer.key)}",
        f"made_at {time_text(answer.made_at_us)}",
        f"intake {note.verifier_key(intake_name(answer.operator), answer.intake)}",
        f"api_keys_sha256 {sha256(answer.api_keys.encode()).hexdigest()}",
    )


def _text(*lines: str) -> bytes:
    return "\n".join([*lines, ""]).encode()


def _lines(signed: bytes, format: str, names: tuple[str, ...]) -> list[tuple[str, str]]:
    """(name, value) of each line after the first, of which the first ones have these names."""
    try:
        text, _ = note.split_note(signed)
    except Refusal as refused:
        raise _bad(refused.what) from None
    first, *lines = text.decode().rstrip("\n").split("\n")
    if first != format:
        raise _bad(f"the first line is not {format}")
    pairs = [(name, value) for name, _, value in (line.partition(" ") for line in lines)]
    if tuple(name for name, _ in pairs[: len(names)]) != names:
        raise _bad(f"its lines are {', '.join(names)}")
    return pairs


def _names(values: dict[str, str]) -> tuple[str, str]:
    for name in ("operator", "node"):
        if not NAME.fullmatch(values[name]):
            raise _bad(f"{name} {values[name]!r} is malformed")
    return values["operator"], values["node"]


def _verifier(text: str, name: str) -> bytes:
    try:
        verifier = note.parse_verifier(text)
    except Refusal as refused:
        raise _bad(refused.what) from None
    if verifier.name != name:
        raise _bad(f"the key is that of {verifier.name}, not of {name}")
    return verifier.public_key


def _instant(text: str) -> int:
    try:
        return time_us_of(text)
    except ValueError:
        raise _bad(f"{text!r} is no instant") from None


def _bad(what: str) -> Refusal:
    return Refusal(
        "bad_enrolment", what, remedy="carry the file as it was made; `tally node enrol` makes it anew"
    )
