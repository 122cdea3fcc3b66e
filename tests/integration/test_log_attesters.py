"""Witnesses and time stamps, asked only where an operator named them; neither ever stops anything."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attesting_servers import StampServer, WitnessServer, serving
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import load_pem_x509_certificates

from adapters import posting
from adapters.log_archive import archived_note, put_checkpoint, put_tiles
from adapters.log_attesting import attest, last_vouched, newest_cosigned, newest_stamped, read_attesters
from adapters.objects import FolderObjects
from adapters.posting import post
from adapters.timestamp import read_stamp
from billing.log import origin
from billing.log_growth import GrowingLog
from metering.checkpoint import Checkpoint, checkpoint_text, read_cosigned, sign_checkpoint
from metering.cosignature import cosignatures, parse_witness
from metering.note import Verifier
from metering.refusal import Refusal, Unavailable

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LOG = Verifier(origin("a"), KEY.public_key().public_bytes_raw())


class Log:
    """A log in an archive, which grows."""

    def __init__(self, folder: Path) -> None:
        self.objects = FolderObjects(folder / "archive")
        self.log = GrowingLog()

    def grow(self, leaves: int) -> Checkpoint:
        first = self.log.size
        tiles = self.log.add([b"leaf %d" % at for at in range(first, first + leaves)])
        put_tiles(self.objects, "a", [*tiles, *self.log.unfinished()])
        newest = Checkpoint(LOG.name, self.log.size, self.log.root())
        put_checkpoint(self.objects, "a", sign_checkpoint(newest, KEY))
        return newest

    def kept(self, kind: str) -> list[bytes]:
        found = [self.objects.get(path) for path in self.objects.list(f"a/_log/{kind}/")]
        return [content for content in found if content is not None]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path)
    made.grow(5)
    return made


@pytest.fixture
def witness() -> WitnessServer:
    return WitnessServer(LOG)


@pytest.fixture(scope="module")
def stamps(tmp_path_factory: pytest.TempPathFactory) -> StampServer:
    return StampServer(tmp_path_factory.mktemp("tsa") / "authority")


@pytest.fixture
def witnesses(witness: WitnessServer, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The setting that names the witness."""
    with serving(witness.answer) as address:
        file = tmp_path / "witnesses"
        file.write_text(f"# ours\n\n{address}/  {witness.verifier_key}  # the only one\n")
        yield {"TALLY_WITNESSES": str(file)}


def test_nobody_is_asked_by_default(log: Log) -> None:
    assert not read_attesters({})
    assert attest(log.objects, "a", read_attesters({})) == []
    assert (newest_cosigned(log.objects, "a"), newest_stamped(log.objects, "a")) == (0, 0)


def test_a_witness_cosigns_each_newer_checkpoint_once(
    log: Log, witness: WitnessServer, witnesses: dict[str, str]
) -> None:
    asked = read_attesters(witnesses)
    for size in (5, 300, 301):
        newest = log.grow(size - log.log.size)
        assert attest(log.objects, "a", asked) == []
        assert attest(log.objects, "a", asked) == []
        assert newest_cosigned(log.objects, "a") == size
        assert witness.signed == newest
    assert witness.asked == 3
    signed = log.kept("cosigned")[-1]
    found, others = read_cosigned(signed, LOG)
    [cosigned] = cosignatures(checkpoint_text(found), others, [parse_witness(witness.verifier_key)])
    assert (found, cosigned.witness.name) == (newest, witness.NAME)


def test_a_witness_that_knows_another_size_is_asked_from_there(
    log: Log, witness: WitnessServer, witnesses: dict[str, str]
) -> None:
    asked = read_attesters(witnesses)
    attest(log.objects, "a", asked)
    log.objects.remove(list(log.objects.list("a/_log/cosigned/")))
    log.grow(10)
    assert attest(log.objects, "a", asked) == []
    assert witness.signed.size == 15


def test_a_witness_that_saw_another_history_signs_nothing(
    log: Log, witness: WitnessServer, witnesses: dict[str, str]
) -> None:
    witness.signed = Checkpoint(LOG.name, 3, bytes(32))
    [problem] = attest(log.objects, "a", read_attesters(witnesses))
    assert isinstance(problem, Refusal)
    assert problem.code == "witness_refuses"
    assert "422" in problem.what
    witness.signed = Checkpoint(LOG.name, 9, bytes(32))
    [problem] = attest(log.objects, "a", read_attesters(witnesses))
    assert "signed for 9 leaves" in problem.what
    assert log.kept("cosigned") == []


def test_a_cosignature_by_another_key_is_not_kept(
    log: Log, witness: WitnessServer, witnesses: dict[str, str]
) -> None:
    asked = read_attesters(witnesses)
    witness.key = Ed25519PrivateKey.generate()
    [problem] = attest(log.objects, "a", asked)
    assert problem.code == "witness_refuses"
    assert log.kept("cosigned") == []


def test_an_attester_that_is_away_is_named_and_stops_nothing(
    log: Log, tmp_path: Path, stamps: StampServer
) -> None:
    with serving(lambda _path, _body: (500, b"")) as gone:
        pass
    file = tmp_path / "witnesses"
    file.write_text(f"{gone} {WitnessServer(LOG).verifier_key}\n")
    asked = read_attesters(
        {
            "TALLY_WITNESSES": str(file),
            "TALLY_TIMESTAMP_URL": gone,
            "TALLY_TIMESTAMP_ROOTS": str(stamps.roots),
        }
    )
    problems = attest(log.objects, "a", asked)
    assert [type(problem) for problem in problems] == [Unavailable, Unavailable]
    assert all(gone in problem.what for problem in problems)


def test_an_authority_stamps_the_newest_checkpoint_and_openssl_agrees(log: Log, stamps: StampServer) -> None:
    with serving(stamps.answer) as address:
        asked = read_attesters({"TALLY_TIMESTAMP_URL": address, "TALLY_TIMESTAMP_ROOTS": str(stamps.roots)})
        assert attest(log.objects, "a", asked) == []
        assert attest(log.objects, "a", asked) == []
    assert newest_stamped(log.objects, "a") == 5
    [reply] = log.kept("timestamp")
    signed = archived_note(log.objects, "a")
    assert signed is not None
    roots = tuple(load_pem_x509_certificates(stamps.roots.read_bytes()))
    assert read_stamp(reply, signed, roots).year >= 2026
    assert stamps.verify(signed, reply)
    with pytest.raises(Refusal, match="no good time stamp"):
        read_stamp(reply, signed + b"x", roots)
    with pytest.raises(Refusal, match="no good time stamp"):
        read_stamp(reply[:-1], signed, roots)


def test_what_is_kept_says_who_vouched_and_when(
    log: Log, witness: WitnessServer, witnesses: dict[str, str], stamps: StampServer
) -> None:
    with serving(stamps.answer) as address:
        asked = read_attesters(
            {**witnesses, "TALLY_TIMESTAMP_URL": address, "TALLY_TIMESTAMP_ROOTS": str(stamps.roots)}
        )
        assert last_vouched(log.objects, "a", asked) == {witness.NAME: None, address: None}
        assert attest(log.objects, "a", asked) == []
    last = last_vouched(log.objects, "a", asked)
    assert last[witness.NAME] == datetime.fromtimestamp(1_791_000_000, UTC)
    stamped = last[address]
    assert stamped is not None
    assert abs(datetime.now(UTC) - stamped) < timedelta(minutes=5)


def test_a_stamp_under_another_root_is_not_kept(log: Log, stamps: StampServer, tmp_path: Path) -> None:
    other = StampServer(tmp_path / "other")
    with serving(other.answer) as address:
        asked = read_attesters({"TALLY_TIMESTAMP_URL": address, "TALLY_TIMESTAMP_ROOTS": str(stamps.roots)})
        [problem] = attest(log.objects, "a", asked)
    assert problem.code == "bad_timestamp"
    assert log.kept("timestamp") == []


def test_the_stamp_of_another_checkpoint_is_not_kept(log: Log, stamps: StampServer) -> None:
    old: list[bytes] = []

    def replay(path: str, body: bytes) -> tuple[int, bytes]:
        if not old:
            old.append(stamps.answer(path, body)[1])
        return 200, old[0]

    with serving(replay) as address:
        asked = read_attesters({"TALLY_TIMESTAMP_URL": address, "TALLY_TIMESTAMP_ROOTS": str(stamps.roots)})
        assert attest(log.objects, "a", asked) == []
        log.grow(1)
        [problem] = attest(log.objects, "a", asked)
    assert problem.code == "bad_timestamp"


@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ("https://w.example", "bad_witnesses"),
        ("https://w.example somebody", "bad_key"),
        ("ftp://w.example KEY", "bad_address"),
        (None, "bad_witnesses"),
    ],
)
def test_a_setting_that_names_no_witness_is_refused(setting: str | None, code: str, tmp_path: Path) -> None:
    file = tmp_path / "witnesses"
    if setting is not None:
        file.write_text(setting.replace("KEY", WitnessServer(LOG).verifier_key))
    with pytest.raises(Refusal) as found:
        read_attesters({"TALLY_WITNESSES": str(file)})
    assert found.value.code == code


def test_an_authority_without_roots_is_refused() -> None:
    with pytest.raises(Refusal, match="TALLY_TIMESTAMP_ROOTS"):
        read_attesters({"TALLY_TIMESTAMP_URL": "https://tsa.example"})


def test_what_somebody_else_has_put_beside_the_notes_is_passed_over(log: Log) -> None:
    log.objects.put([("a/_log/cosigned/README", b"x"), ("a/_log/timestamp/README", b"x")])
    assert (newest_cosigned(log.objects, "a"), newest_stamped(log.objects, "a")) == (0, 0)


def test_a_redirect_leads_to_nobody_whom_the_operator_did_not_name() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as elsewhere,
        socket.create_server(("127.0.0.1", 0)) as witness,
    ):
        address = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/latest/meta-data"
        answer = f"HTTP/1.1 302 Found\r\nLocation: {address}\r\nContent-Length: 0\r\n\r\n"
        threading.Thread(target=answering, args=(witness, answer.encode()), daemon=True).start()
        assert (
            post(f"http://127.0.0.1:{witness.getsockname()[1]}/add-checkpoint", b"x", "text/plain")[0] == 302
        )
        elsewhere.settimeout(0.2)
        with pytest.raises(TimeoutError):
            elsewhere.accept()


def test_an_answer_that_drips_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "_TIMEOUT_S", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as witness:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
        threading.Thread(target=answering, args=(witness, head, 0.1), daemon=True).start()
        began = time.monotonic()
        with pytest.raises(Unavailable, match="took too long"):
            post(f"http://127.0.0.1:{witness.getsockname()[1]}/", b"x", "text/plain")
    assert time.monotonic() - began < 5


def answering(server: socket.socket, head: bytes, drip_s: float | None = None) -> None:
    """Answers one request with `head`; then a byte each `drip_s`, until the client has gone."""
    client, _ = server.accept()
    with client, contextlib.suppress(OSError):
        client.recv(65_536)
        client.sendall(head)
        while drip_s is not None:
            time.sleep(drip_s)
            client.sendall(b"x")
