"""Those whom an operator may ask to vouch for a log, on loopback: a witness that holds to C2SP tlog-witness, and a
time-stamping authority whose answers OpenSSL makes.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering import note
from metering.checkpoint import Checkpoint, checkpoint_text, read_checkpoint
from metering.cosignature import cosign, witness_key
from metering.merkle import EMPTY_ROOT, consistency_holds
from metering.refusal import Refusal

Answer = Callable[[str, bytes], tuple[int, bytes]]  # path and body of a POST -> status and body


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """An HTTP server on loopback that answers each POST with `answer`; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, content = answer(self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Tests say what they see."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class WitnessServer:
    """A witness of one log, which remembers what it signed for."""

    NAME = "witness.example/w1"
    _BODY = re.compile(rb"old (0|[1-9][0-9]*)\n((?:[A-Za-z0-9+/]{43}=\n){0,63})\n(.*)", re.DOTALL)

    def __init__(self, log: note.Verifier) -> None:
        self.log = log
        self.key = Ed25519PrivateKey.generate()
        self.signed = Checkpoint(log.name, 0, EMPTY_ROOT)
        self.asked = 0

    @property
    def verifier_key(self) -> str:
        return witness_key(self.NAME, self.key.public_key().public_bytes_raw())

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        self.asked += 1
        read = self._BODY.fullmatch(body)
        if path != "/add-checkpoint" or read is None:
            return 400, b"malformed\n"
        old, proof = int(read[1]), [base64.b64decode(line) for line in read[2].splitlines()]
        if not read[3].startswith(self.log.name.encode() + b"\n"):
            return 404, b"unknown log\n"
        try:
            found = read_checkpoint(read[3], self.log)
        except Refusal:
            return 403, b"not the log's signature\n"
        if old > found.size:
            return 400, b"old is larger than the checkpoint\n"
        if old != self.signed.size:
            return 409, b"%d\n" % self.signed.size
        if not consistency_holds(old, found.size, self.signed.root, found.root, proof):
            return 422, b"another history\n"
        self.signed = found
        return 200, cosign(checkpoint_text(found), self.NAME, self.key, 1_791_000_000)


_SETTINGS = """
[tsa]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
[req]
distinguished_name = name
[name]
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[stamps]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class StampServer:
    """A time-stamping authority in a folder: a root, a certificate for stamps, and OpenSSL."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl, the time-stamping authority of this test, is not installed")
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "settings").write_text(_SETTINGS.format(folder=folder))
        (folder / "serial").write_text("01\n")
        for name, subject in (("root", "/CN=Root of the test"), ("tsa", "/CN=Stamps of the test")):
            self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
            self._openssl(
                "req",
                "-new",
                "-config",
                "settings",
                "-key",
                f"{name}.key",
                "-subj",
                subject,
                "-out",
                f"{name}.csr",
            )
        sign = ("x509", "-req", "-days", "30", "-extfile", "settings")
        self._openssl(
            *sign, "-in", "root.csr", "-signkey", "root.key", "-extensions", "root", "-out", "root.pem"
        )
        issued_by = ("-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial")
        self._openssl(*sign, "-in", "tsa.csr", *issued_by, "-extensions", "stamps", "-out", "tsa.pem")

    @property
    def roots(self) -> Path:
        return self.folder / "root.pem"

    def answer(self, _path: str, body: bytes) -> tuple[int, bytes]:
        (self.folder / "query").write_bytes(body)
        self._openssl(
            "ts", "-reply", "-config", "settings", "-section", "tsa", "-queryfile", "query", "-out", "reply"
        )
        return 200, (self.folder / "reply").read_bytes()

    def verify(self, stamped: bytes, reply: bytes) -> bool:
        """OpenSSL's own check of a stamp, as an auditor types it."""
        (self.folder / "stamped").write_bytes(stamped)
        (self.folder / "kept").write_bytes(reply)
        return (
            self._run("ts", "-verify", "-data", "stamped", "-in", "kept", "-CAfile", "root.pem").returncode
            == 0
        )

    def _openssl(self, *arguments: str) -> None:
        done = self._run(*arguments)
        assert done.returncode == 0, done.stderr

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, timeout=30
        )
