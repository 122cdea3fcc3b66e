"""A real Apache Kafka for tests: one broker that all tests of a machine share, or one of their own to kill.

    with broker() as kafka:                       KafkaBroker: .address "127.0.0.1:PORT" and, with TLS and SASL, .secure
        prefix = unique_prefix()                  topics `<prefix>.batches` …: tests never meet one another's

    with own_broker(tmp_path) as kafka:           kafka.kill(), kafka.start(): the same port, the same log
        ...

The shared broker is started by the first who wants it and ends ten seconds after the last one has gone, also when that
one was killed: its users hold a shared flock on one file, and a watcher beside the broker waits to have that file for
itself. pytest's fixture for it is `kafka` (tests/conftest.py).

Both are single KRaft nodes on loopback with Kafka's defaults, except where a default makes a test slow or hides a
mistake: topics are not made by asking for them. The jars come by `make kafka`; without them, or without Java, a test
that asks for a broker is skipped and says so.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import make_certificate

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tallygrid" / "kafka"
SHARED = Path(tempfile.gettempdir()) / f"tallygrid-kafka-{os.getuid()}"
LINGERS_S = 10.0
UP_WITHIN_S = 60.0
#: SASL's user of every broker here; PLAIN and SCRAM-SHA-512 know it.
USER, PASSWORD = "site", "open-sesame"

#: Python warns of a child that still runs when its object goes; these are meant to.
_OUTLIVE_US: list[object] = []


@dataclass(frozen=True, slots=True)
class KafkaBroker:
    """Where a running broker is. `secure` wants TLS (trust `ca`) and SASL (USER, PASSWORD)."""

    address: str
    secure: str
    ca: Path


def unique_prefix() -> str:
    """A prefix of topic names that nobody else uses."""
    return f"t{secrets.token_hex(6)}"


@contextlib.contextmanager
def broker() -> Iterator[KafkaBroker]:
    """The shared broker, for as long as it is wanted."""
    _require()
    SHARED.mkdir(mode=0o700, exist_ok=True)
    with _locked(SHARED / "users") as users:
        with _locked(SHARED / "starting", fcntl.LOCK_EX):
            fcntl.flock(users, fcntl.LOCK_SH)
            found = _running()
            if found is None:
                shutil.rmtree(SHARED / "broker", ignore_errors=True)
                started = OwnBroker(SHARED / "broker")
                started.start()
                found = started.place
                _write_running(started)
                watcher = subprocess.Popen(
                    [sys.executable, __file__, str(started.pid)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
                _OUTLIVE_US.extend([started, watcher])
        yield found


@contextlib.contextmanager
def own_broker(folder: Path, properties: Mapping[str, str] | None = None) -> Iterator[OwnBroker]:
    """A broker of the test's own in `folder`, started; killed and its log deleted at the end."""
    _require()
    own = OwnBroker(folder / "kafka", properties)
    try:
        own.start()
        yield own
    finally:
        own.kill()
        shutil.rmtree(own.folder, ignore_errors=True)


class OwnBroker:
    """A broker with a life: start, kill (SIGKILL), stop (SIGTERM), and start again on the same port and log."""

    def __init__(self, folder: Path, properties: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self._process: subprocess.Popen[bytes] | None = None
        if not (folder / "server.properties").exists():
            folder.mkdir(parents=True)
            chain, key = make_certificate(folder, "kafka")
            (folder / "keystore.pem").write_bytes(key.read_bytes() + chain.read_bytes())
            ports = _free_ports(3)
            self.place = KafkaBroker(f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", chain)
            settings = _settings(folder, self.logs, ports) | dict(properties or {})
            lines = "".join(f"{name}={value}\n" for name, value in settings.items())
            (folder / "server.properties").write_text(lines)
            self._format()

    @property
    def address(self) -> str:
        return self.place.address

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers."""
        assert self._process is None
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [*_java(), "kafka.Kafka", str(self.folder / "server.properties")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        until = time.monotonic() + UP_WITHIN_S
        while not _answers(self.address):
            ended = self._process.poll() is not None
            if ended or time.monotonic() > until:
                said = (self.folder / "output").read_text(errors="replace")[-4_000:]
                self.kill()
                raise RuntimeError(f"Kafka did not start: {said}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL. What it had not written to its files is the kernel's."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def _format(self) -> None:
        # Its first bit is 0: an id that began with "-" would be taken for an option.
        chance = uuid.uuid4().int >> 1
        cluster = base64.urlsafe_b64encode(chance.to_bytes(16, "big")).decode().rstrip("=")
        properties = str(self.folder / "server.properties")
        scram = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
        done = subprocess.run(
            [
                *_java(),
                "kafka.tools.StorageTool",
                "format",
                "-t",
                cluster,
                "-c",
                properties,
                "--add-scram",
                scram,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _settings(folder: Path, logs: Path, ports: list[int]) -> dict[str, str]:
    plain, secure, controller = ports
    login = f'required username="{USER}" password="{PASSWORD}" user_{USER}="{PASSWORD}";'
    kafka = "org.apache.kafka.common.security"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{plain},SECURE://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.secure.plain.sasl.jaas.config": f"{kafka}.plain.PlainLoginModule {login}",
        "listener.name.secure.scram-sha-512.sasl.jaas.config": f"{kafka}.scram.ScramLoginModule required;",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "keystore.pem"),
        "log.dirs": str(logs),
        "auto.create.topics.enable": "false",
        "default.replication.factor": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "log.cleaner.dedupe.buffer.size": "4194304",
        "log.segment.delete.delay.ms": "1000",
    }


def _java() -> list[str]:
    return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{CACHE / 'libs'}/*"]


def _require() -> None:
    if shutil.which("java") is None:
        pytest.skip("Apache Kafka needs Java (bash deploy/system-packages.sh kafka)")
    if not any(CACHE.glob("libs/kafka_*.jar")):
        pytest.skip("Apache Kafka is not there (make kafka)")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1.0).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path, how: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if how is not None:
            fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)


def _write_running(started: OwnBroker) -> None:
    place = started.place
    said = {"pid": started.pid, "address": place.address, "secure": place.secure, "ca": str(place.ca)}
    (SHARED / "running").write_text(json.dumps(said))


def _running() -> KafkaBroker | None:
    """The shared broker, if the one that was written down is alive and is one."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        said = json.loads((SHARED / "running").read_text())
        if _is_ours(said["pid"]) and _answers(said["address"]):
            return KafkaBroker(said["address"], said["secure"], Path(said["ca"]))
    return None


def _is_ours(pid: int) -> bool:
    """Whether the process is the shared broker: pids are used again."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return str(SHARED / "broker").encode() in line


def _watch(pid: int) -> None:
    """Ends the shared broker when nobody has used it for a while."""
    with _locked(SHARED / "users") as users:
        while _is_ours(pid):
            fcntl.flock(users, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_UN)
            time.sleep(LINGERS_S)
            with _locked(SHARED / "starting", fcntl.LOCK_EX):
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                if _is_ours(pid):
                    os.kill(pid, signal.SIGKILL)
                (SHARED / "running").unlink(missing_ok=True)
                shutil.rmtree(SHARED / "broker", ignore_errors=True)
                return


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
