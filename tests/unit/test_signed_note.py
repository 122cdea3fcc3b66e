from __future__ import annotations

import pytest
from event_examples import KEY, PUBLIC_KEY

from metering import note
from metering.refusal import Refusal

# The known answer of golang.org/x/mod/sumdb/note.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SIGNER = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
TEXT = (
    b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
NOTE = TEXT + b"\n" + PETER_LINE


def refusal_of(signed: bytes) -> str:
    with pytest.raises(Refusal) as refused:
        note.open_note(signed, [note.parse_verifier(PETER)])
    return refused.value.code


def test_signing_gives_gos_known_answer() -> None:
    name, key = note.parse_signer(PETER_SIGNER)
    assert note.sign(TEXT, name, key) == NOTE


def test_a_note_opens_under_its_verifier_key() -> None:
    assert note.open_note(NOTE, [note.parse_verifier(PETER)]) == TEXT


def test_the_example_in_the_text_is_the_known_answer() -> None:
    text = note.__doc__ or ""
    assert PETER in text
    assert PETER_LINE.decode().strip() in text


def test_keys_as_text_come_back() -> None:
    written = note.verifier_key("vilnius/a/b", PUBLIC_KEY)
    assert note.parse_verifier(written) == note.Verifier("vilnius/a/b", PUBLIC_KEY)
    name, key = note.parse_signer(note.signer_key("vilnius/a/b", KEY))
    assert (name, key.private_bytes_raw()) == ("vilnius/a/b", KEY.private_bytes_raw())


def test_signatures_of_unknown_keys_are_passed_over() -> None:
    other = note.sign(TEXT, "EnochRoot", KEY).removeprefix(TEXT + b"\n")
    assert note.open_note(NOTE + other, [note.parse_verifier(PETER)]) == TEXT
    assert refusal_of(TEXT + b"\n" + other) == "bad_signature"


def test_another_text_is_refused() -> None:
    assert refusal_of(b"x" + NOTE) == "bad_signature"


@pytest.mark.parametrize(
    "signed",
    [
        TEXT,
        TEXT + b"\n",
        NOTE[:-1],
        b"\x01" + NOTE,
        b"\xff" + NOTE,
        NOTE + b"Unexpected line.\n",
        TEXT + b"\n" + "— Bad Name x08go/ZJkuBS9UG=\n".encode(),
        TEXT + b"\n" + PETER_LINE * 101,
        NOTE.replace(b"nAM=\n", b"nAN=\n"),  # base64 with a bit that means nothing
        b"x" * 1_000_001,
    ],
)
def test_malformed_notes_are_refused(signed: bytes) -> None:
    assert refusal_of(signed) == "bad_note"


@pytest.mark.parametrize(
    "text",
    [
        PETER[:-1],
        PETER.replace("c74f20a3", "c74f20a4"),
        PETER.replace("+ARpc", "+ZRpc"),
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "Peter Neumann" + PETER.removeprefix("PeterNeumann"),
        "",
    ],
)
def test_malformed_keys_are_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        note.parse_verifier(text)
    assert refused.value.code == "bad_key"


def test_a_refused_signer_key_is_not_shown() -> None:
    with pytest.raises(Refusal) as refused:
        note.parse_signer(PETER_SIGNER.replace("c74f20a3", "c74f20a4"))
    assert "AYEKFALV" not in str(refused.value)
