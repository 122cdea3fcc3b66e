"""C2SP signed notes with Ed25519 (https://c2sp.org/signed-note): a text and who signed it.

    <text, ending with a newline>
    <empty line>
    — <key name> <base64 of 4 bytes key hash ‖ 64 bytes signature>

The dash is U+2014. The signature is over the text with its last newline, without the empty line. Text is UTF-8
without control characters but newline. A key name has no space and no plus sign. The key hash is the first four
bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key), 0x01 meaning Ed25519. Keys are written as

    verifier key   <name>+<key hash, 8 hex digits>+<base64 of 0x01 ‖ 32 bytes public key>
    signer key     PRIVATE+KEY+<name>+<key hash>+<base64 of 0x01 ‖ 32 bytes seed>

Example, the known answer of the Go implementation (golang.org/x/mod/sumdb/note), whose verifier key is
`PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW`:

    If you think cryptography is the answer to your problem,
    then you don't know what your problem is.

    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=

Base64 is read strictly: bits that mean nothing must be zero, so that no two spellings of a signature are both good.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from metering.refusal import Refusal

_ED25519 = b"\x01"
_DASH = "— ".encode()
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")
_MAX_BYTES = 1_000_000
_MAX_SIGNATURES = 100


@dataclass(frozen=True, slots=True)
class Verifier:
    """Who may have signed: a key name and the 32 bytes of its public key."""

    name: str
    public_key: bytes

    @property
    def key_hash(self) -> bytes:
        return key_hash(self.name, self.public_key)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line of a note: key name, key hash (4 bytes), the signature itself."""

    name: str
    key_hash: bytes
    signature: bytes


def key_hash(name: str, public_key: bytes, kind: bytes = _ED25519) -> bytes:
    """The four bytes that tell keys of one name apart; `kind` is the signature type, one byte."""
    return sha256(name.encode() + b"\n" + kind + public_key).digest()[:4]


def sign(text: bytes, name: str, key: Ed25519PrivateKey) -> bytes:
    """The note of `text` signed under the key name `name`. Ed25519 is deterministic: the same note each time."""
    _check_text(text)
    _check_name(name)
    public_key = key.public_key().public_bytes_raw()
    return text + b"\n" + signature_line(name, key_hash(name, public_key) + key.sign(text))


def split_note(note: bytes) -> tuple[bytes, list[Signature]]:
    """Text and signatures of a note, none of them checked. Refusal `bad_note` if it is malformed."""
    if len(note) > _MAX_BYTES:
        raise _bad(f"{len(note)} bytes are more than the {_MAX_BYTES} of a note")
    text, gap, lines = note.rpartition(b"\n\n")
    if not gap or not lines.endswith(b"\n"):
        raise _bad("there is no signature")
    text += b"\n"
    _check_text(text)
    parts = lines[:-1].split(b"\n")
    if len(parts) > _MAX_SIGNATURES:
        raise _bad(f"more than {_MAX_SIGNATURES} signatures")
    return text, [_signature(line) for line in parts]


def open_note(note: bytes, verifiers: Sequence[Verifier]) -> bytes:
    """The text of a note that at least one of `verifiers` signed.

    Refusal `bad_note` if the note is malformed, `bad_signature` if a signature under a known key does not hold or no
    known key signed. Signatures of unknown keys are passed over, as the format demands.
    """
    text, signatures = split_note(note)
    known = {(verifier.name, verifier.key_hash): verifier for verifier in verifiers}
    held = 0
    for signature in signatures:
        verifier = known.get((signature.name, signature.key_hash))
        if verifier is None:
            continue
        check_signature(text, signature, verifier.public_key)
        held += 1
    if not held:
        raise Refusal("bad_signature", "no known key signed the note")
    return text


def check_signature(text: bytes, signature: Signature, public_key: bytes) -> None:
    """Refusal `bad_signature` unless this key signed the text."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature.signature, text)
    except (InvalidSignature, ValueError):
        raise Refusal("bad_signature", f"the signature of {signature.name} does not hold") from None


def verifier_key(name: str, public_key: bytes, kind: bytes = _ED25519) -> str:
    """The verifier key as text, for people to hand on."""
    _check_name(name)
    return _key_text(name, key_hash(name, public_key, kind), public_key, kind)


def signature_line(name: str, signature: bytes) -> bytes:
    """One signature line of a note; `signature` begins with the key hash."""
    _check_name(name)
    return _DASH + name.encode() + b" " + base64.b64encode(signature) + b"\n"


def parse_verifier(text: str) -> Verifier:
    """A verifier key read from its text. Refusal `bad_key` if it is malformed or its hash does not fit."""
    return Verifier(*parse_verifier_of(text, _ED25519))


def parse_verifier_of(text: str, kind: bytes) -> tuple[str, bytes]:
    """Name and public key of a verifier key of this signature type. Refusal `bad_key` as `parse_verifier`."""
    name, written_hash, public_key = _parse_key(text, kind)
    if key_hash(name, public_key, kind) != written_hash:
        raise Refusal("bad_key", f"the hash in the verifier key {name} does not fit the key")
    return name, public_key


def signer_key(name: str, key: Ed25519PrivateKey) -> str:
    """The signer key as text; whoever has it can sign."""
    _check_name(name)
    public_key = key.public_key().public_bytes_raw()
    return "PRIVATE+KEY+" + _key_text(name, key_hash(name, public_key), key.private_bytes_raw())


def parse_signer(text: str) -> tuple[str, Ed25519PrivateKey]:
    """Key name and private key of a signer key. Refusal `bad_key`, which never shows the key."""
    if not text.startswith("PRIVATE+KEY+"):
        raise Refusal("bad_key", "not a signer key")
    name, written_hash, seed = _parse_key(text.removeprefix("PRIVATE+KEY+"))
    key = Ed25519PrivateKey.from_private_bytes(seed)
    if key_hash(name, key.public_key().public_bytes_raw()) != written_hash:
        raise Refusal("bad_key", f"the hash in the signer key {name} does not fit the key")
    return name, key


def _key_text(name: str, hash_bytes: bytes, key: bytes, kind: bytes = _ED25519) -> str:
    return f"{name}+{hash_bytes.hex()}+{base64.b64encode(kind + key).decode()}"


def _parse_key(text: str, kind: bytes = _ED25519) -> tuple[str, bytes, bytes]:
    match = re.fullmatch(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)", text)
    blob = _base64(match[3].encode()) if match else None
    if match is None or blob is None or len(blob) != 33 or not _is_name(match[1]):
        raise Refusal("bad_key", "a key is written <name>+<8 hex digits>+<base64>")
    if blob[:1] != kind:
        raise Refusal("bad_key", f"the key {match[1]} is of kind {blob[0]}, not {kind[0]}")
    return match[1], bytes.fromhex(match[2]), blob[1:]


def _signature(line: bytes) -> Signature:
    try:
        words = line.removeprefix(_DASH).decode().split(" ")
    except UnicodeDecodeError:
        raise _bad("a signature line is not UTF-8") from None
    blob = _base64(words[1].encode()) if len(words) == 2 else None
    if not line.startswith(_DASH) or blob is None or not _is_name(words[0]) or len(blob) < 5:
        raise _bad("a signature line is not `— name base64`")
    return Signature(words[0], blob[:4], blob[4:])


def _base64(text: bytes) -> bytes | None:
    try:
        blob = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return blob if base64.b64encode(blob) == text else None


def _check_text(text: bytes) -> None:
    if not text.endswith(b"\n"):
        raise _bad("the text does not end with a newline")
    if _CONTROL.search(text):
        raise _bad("the text holds a control character")
    try:
        text.decode()
    except UnicodeDecodeError:
        raise _bad("the text is not UTF-8") from None


def _check_name(name: str) -> None:
    if not _is_name(name):
        raise Refusal(
            "bad_key", f"{name!r} is no key name", remedy="a key name has no space and no plus sign"
        )


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(letter.isspace() for letter in name)


def _bad(what: str) -> Refusal:
    return Refusal("bad_note", what)
