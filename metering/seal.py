"""The seal of a batch: a small text, signed, that says what the batch holds and where it stands in its lane.

A seal is a C2SP signed note (note.py) with one signature, by the lane's key under the key name
`operator/node/lane`. Its text is the line `tallygrid/seal/v1` and then one `name value` line for each field, all of
them, in this order, once, with one space between:

    tallygrid/seal/v1
    operator vilnius
    node vilnius-1
    lane sidecar-0
    kind sidecar                            sidecar | import
    epoch 000102030405060708090a0b0c0d0e0f  128 bits, lower-case hex
    number 4                                dense within the epoch, from 0
    first 11                                first sequence number; the first of an epoch is 1
    last 12                                 last one; first − 1 in a heartbeat
    complete_to 2026-10-05T08:00:10.000000Z below every time that the lane will write later; 2020 to 2099
    opened 9                                requests that the lane has opened, over its whole life
    closed 9                                … and closed: usage events up to `last`, over its whole life
    events 2                                last − first + 1
    requests 2                              the control totals, one line for each quantity of event.py
    prompt_tokens 1200
    cached_tokens 200
    completion_tokens 60
    reasoning_tokens 0
    generated_tokens 60
    generated_reasoning_tokens 0
    audio_seconds 0
    unwitnessed_requests 1                  of the two, one whose generated tokens nobody witnessed
    body_sha256 <64 hex digits>             `none` in a heartbeat
    body_bytes 7000                         0 in a heartbeat
    rows_bytes 7400                         bytes of the body's pages when decompressed; 0 in a heartbeat
    root <64 hex digits>                    RFC 6962 root over the canonical events
    previous <64 hex digits>                hash of the lane's seal before; `genesis` for its first
    final no                                yes: the lane ends here
    facts 1                                 at most 256, one line each; fact.py says what they say
    fact serves model=qwen3-8b name=support

Integers are decimal without leading zeroes, `-` only for the sums of voids. A seal's hash is SHA-256 over the whole
note, signature included, and names the batch. A parser that reads a text, writes it again and compares refuses every
unknown, missing, doubled, reordered or oddly spelled line; this one does that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import lru_cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering import note
from metering.event import EARLIEST_TIME_US, END_OF_TIME_US, MAX_QUANTITY, QUANTITIES, Totals
from metering.fact import MAX_FACTS, how_many_fit, parse_fact
from metering.instant import time_text, time_us_of
from metering.merkle import EMPTY_ROOT
from metering.refusal import Refusal

SEAL_FORMAT = "tallygrid/seal/v1"
GENESIS = "genesis"
KINDS_OF_LANE = ("sidecar", "import")

#: At most so many events, and bytes of body, are sealed together; a reader refuses more.
MAX_EVENTS = 10_000
MAX_BODY_BYTES = 900_000
MAX_ROWS_BYTES = 8_000_000
MAX_NOTE_BYTES = 65_536

#: What operators, nodes and lanes may be called.
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_HEX_128 = re.compile(r"[0-9a-f]{32}")
_HEX_256 = re.compile(r"[0-9a-f]{64}")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_MAX_COUNT = 2**62


@dataclass(frozen=True, slots=True)
class Seal:
    """What a seal says. `previous` is `genesis` or a seal's hash in hex; `complete_to_us` is µs since 1970, UTC;
    `facts` are lines of fact.py.
    """

    operator: str
    node: str
    lane: str
    kind: str
    epoch: str
    number: int
    first: int
    last: int
    complete_to_us: int
    opened: int
    closed: int
    events: int
    totals: Totals
    body_sha256: str | None
    body_bytes: int
    rows_bytes: int
    root: str
    previous: str
    final: bool
    facts: tuple[str, ...] = ()

    @property
    def signer(self) -> str:
        """The key name that signs for this lane."""
        return signer_name(self.operator, self.node, self.lane)


_FIELD_NAMES = [
    name
    for field in fields(Seal)
    if field.name != "facts"
    for name in (QUANTITIES if field.name == "totals" else [field.name.removesuffix("_us")])
]


def signer_name(operator: str, node: str, lane: str) -> str:
    """The key name of a lane in notes."""
    return f"{operator}/{node}/{lane}"


def seal_hash(signed: bytes) -> str:
    """The hash by which a seal is named, from the note: 64 hex digits."""
    return sha256(signed).hexdigest()


def seal_text(seal: Seal) -> bytes:
    """The text that is signed."""
    lines = [SEAL_FORMAT]
    for name in _FIELD_NAMES:
        if name == "complete_to":
            value = time_text(seal.complete_to_us)
        elif name == "final":
            value = "yes" if seal.final else "no"
        elif name == "body_sha256":
            value = seal.body_sha256 or "none"
        else:
            value = str(getattr(seal.totals if name in QUANTITIES else seal, name))
        lines.append(f"{name} {value}")
    lines += [f"facts {len(seal.facts)}", *seal.facts]
    return ("\n".join(lines) + "\n").encode()


def sign_seal(seal: Seal, key: Ed25519PrivateKey) -> bytes:
    """The seal as a signed note; refuses to sign what `read_seal` would refuse."""
    text = seal_text(seal)
    again = parse_seal(text)
    assert again == seal
    return note.sign(text, seal.signer, key)


def peek_seal(signed: bytes) -> Seal:
    """The seal as it claims to be, its signature unchecked: to learn which lane's key must have signed it.

    Refusal `bad_seal` if it is not exactly a seal with one signature line.
    """
    return _split(signed)[0]


def read_seal(signed: bytes, public_key: bytes) -> Seal:
    """The seal, signed by the lane whose public key (32 bytes) is given.

    Refusal `bad_seal` if it is not exactly a seal, `bad_signature` if that key did not sign it."""
    seal, text, signature = _split(signed)
    if (signature.name, signature.key_hash) != (seal.signer, note.key_hash(seal.signer, public_key)):
        raise Refusal(
            "bad_signature",
            f"the seal is signed by {signature.name}+{signature.key_hash.hex()}, not by its lane's key",
            where=f"{seal.signer} {seal.epoch}-{seal.number}",
            remedy="enrol the lane's key, or find out who else writes in its name",
        )
    note.check_signature(text, signature, public_key)
    return seal


def signer_hash(signed: bytes) -> bytes:
    """The hash of the key that a seal says to be signed by, 4 bytes. Refusal `bad_seal` as `peek_seal`."""
    return _split(signed)[2].key_hash


def parse_seal(text: bytes) -> Seal:
    """The seal whose text this is, byte for byte; Refusal `bad_seal` otherwise."""
    lines = text.decode("utf-8", "replace").split("\n")
    if lines[0] != SEAL_FORMAT:
        raise _bad(f"the first line is not {SEAL_FORMAT}")
    if len(lines) < len(_FIELD_NAMES) + 3 or lines[-1]:
        raise _bad(f"a seal has {len(_FIELD_NAMES) + 2} lines and its facts, this has {len(lines) - 1}")
    values: dict[str, str] = {}
    for name, line in zip(_FIELD_NAMES, lines[1:], strict=False):
        found, _, value = line.partition(" ")
        if found != name:
            raise _bad(f"{found!r} stands where {name!r} belongs")
        values[name] = value
    seal = _seal_of(values, tuple(lines[len(_FIELD_NAMES) + 2 : -1]))
    _check_sense(seal)
    if seal_text(seal) != text:
        raise _bad("a value is not spelled as a seal spells it")
    return seal


@lru_cache(200)  # asked for its lane, then for its key, then read: parsed once, of so many as intake polls
def _split(signed: bytes) -> tuple[Seal, bytes, note.Signature]:
    if len(signed) > MAX_NOTE_BYTES:
        raise _bad(f"{len(signed)} bytes are more than the {MAX_NOTE_BYTES} of a seal")
    try:
        text, signatures = note.split_note(signed)
    except Refusal as refused:
        raise _bad(refused.what) from None
    if len(signatures) != 1:
        raise _bad(f"a seal has one signature, this has {len(signatures)}")
    return parse_seal(text), text, signatures[0]


def _seal_of(values: dict[str, str], facts: tuple[str, ...]) -> Seal:
    try:
        complete_to_us = time_us_of(values["complete_to"])
    except ValueError:
        raise _bad(f"complete_to {values['complete_to']!r} is not an instant") from None
    return Seal(
        operator=_match(values, "operator", NAME),
        node=_match(values, "node", NAME),
        lane=_match(values, "lane", NAME),
        kind=values["kind"],
        epoch=_match(values, "epoch", _HEX_128),
        number=_integer(values, "number"),
        first=_integer(values, "first"),
        last=_integer(values, "last"),
        complete_to_us=complete_to_us,
        opened=_integer(values, "opened"),
        closed=_integer(values, "closed"),
        events=_integer(values, "events"),
        totals=Totals(**{name: _integer(values, name) for name in QUANTITIES}),
        body_sha256=None if values["body_sha256"] == "none" else _match(values, "body_sha256", _HEX_256),
        body_bytes=_integer(values, "body_bytes"),
        rows_bytes=_integer(values, "rows_bytes"),
        root=_match(values, "root", _HEX_256),
        previous=GENESIS if values["previous"] == GENESIS else _match(values, "previous", _HEX_256),
        final=values["final"] == "yes",
        facts=facts,
    )


def _check_sense(seal: Seal) -> None:
    """What must hold between the fields of one seal."""
    heartbeat = seal.events == 0
    rules = (
        (seal.kind in KINDS_OF_LANE, f"a lane of kind {seal.kind!r} is unknown"),
        (0 <= seal.number < _MAX_COUNT, "number is out of range"),
        (1 <= seal.first < _MAX_COUNT, "first is out of range"),
        (0 <= seal.events <= MAX_EVENTS, f"more than {MAX_EVENTS} events, or fewer than none"),
        (seal.last == seal.first + seal.events - 1, "first, last and events do not agree"),
        (seal.number > 0 or seal.first == 1, "the first seal of an epoch begins at sequence number 1"),
        (EARLIEST_TIME_US <= seal.complete_to_us < END_OF_TIME_US, "complete_to lies outside 2020 to 2099"),
        (0 <= seal.closed <= seal.opened < _MAX_COUNT, "more requests closed than opened"),
        ((seal.body_sha256 is None) == heartbeat, "a body without events, or events without a body"),
        (
            (seal.body_bytes > 0) != heartbeat and seal.body_bytes <= MAX_BODY_BYTES,
            "body_bytes is out of range",
        ),
        (
            (seal.rows_bytes > 0) != heartbeat and seal.rows_bytes <= MAX_ROWS_BYTES,
            "rows_bytes is out of range",
        ),
        (not heartbeat or seal.totals == Totals(), "totals without events"),
        (not heartbeat or seal.root == EMPTY_ROOT.hex(), "the root of no events is SHA-256 of nothing"),
        (
            all(abs(getattr(seal.totals, name)) <= seal.events * MAX_QUANTITY for name in QUANTITIES),
            "a total is larger than so many events can make it",
        ),
    )
    for holds, what in rules:
        if not holds:
            raise _bad(what)
    _check_facts(seal.facts)


def _check_facts(facts: tuple[str, ...]) -> None:
    if how_many_fit(facts) < len(facts):
        raise _bad(f"it holds {len(facts)} facts, more than {MAX_FACTS} or too long for a seal")
    for line in facts:
        try:
            parse_fact(line)
        except Refusal as refused:
            raise _bad(f"{refused.what}: {line[:200]}") from None


def _match(values: dict[str, str], name: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(values[name]):
        raise _bad(f"{name} {values[name]!r} is malformed")
    return values[name]


def _integer(values: dict[str, str], name: str) -> int:
    return int(_match(values, name, _INTEGER))


def _bad(what: str) -> Refusal:
    return Refusal("bad_seal", what, remedy="a seal is taken as it was made, or not at all")
