"""How Kafka is reached, from the environment: `TALLY_KAFKA` and the variables whose names begin like it.

    TALLY_KAFKA                     brokers to begin with: HOST:PORT[,HOST:PORT…]; unset: no Kafka, the spool is read
    TALLY_KAFKA_PREFIX              of the topics' names: `tally` makes `tally.batches` and `tally.accepted`
    TALLY_KAFKA_SECURITY_PROTOCOL   PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
    TALLY_KAFKA_CA_FILE             PEM: who may sign the brokers' certificates (unset: the system's)
    TALLY_KAFKA_CERT_FILE           PEM: the certificate to show to brokers that want one, and its key
    TALLY_KAFKA_KEY_FILE
    TALLY_KAFKA_SASL_MECHANISM      PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
    TALLY_KAFKA_USER                SASL's user
    TALLY_KAFKA_PASSWORD_FILE       a file that holds the user's password, and nothing else

A password stands in a file because an environment is shown by `docker inspect`, /proc and crash reports. It is read when
a client begins, which keeps it as long as it lives (kafka-python needs it for each new connection); nothing of ours does. A
client ends with whatever fails, and the next one reads the file again, so a changed password counts from then on.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metering.refusal import Refusal

DEFAULT_PREFIX = "tally"
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

#: A broker that has not answered after so long is away, for now.
FOUND_WITHIN_MS = 5_000

_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:,\[\]/@]+):[0-9]{1,5}")
# Of a topic's 249 characters, "." and the longer of our two names want eight; "." and "_" would collide in metrics.
_PREFIX = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9-]{0,99}")


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where the brokers are, what the topics are called, and how one proves who one is. Holds no secret."""

    brokers: tuple[str, ...]
    prefix: str = DEFAULT_PREFIX
    protocol: str = "PLAINTEXT"
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    mechanism: str | None = None
    user: str | None = None
    password_file: Path | None = None

    @property
    def batches(self) -> str:
        """The topic of sealed batches."""
        return f"{self.prefix}.batches"

    @property
    def accepted(self) -> str:
        """The topic of intake's acknowledgements."""
        return f"{self.prefix}.accepted"

    def client(self, name: str) -> dict[str, Any]:
        """What every client of kafka-python is given, under the name that brokers log. Refusals: bad_kafka_settings."""
        found: dict[str, Any] = {
            "bootstrap_servers": list(self.brokers),
            "client_id": name,
            "security_protocol": self.protocol,
            # A broker that is back is found within a second or two, not after half a minute.
            "reconnect_backoff_max_ms": 2_000,
            "bootstrap_timeout_ms": FOUND_WITHIN_MS,
            "request_timeout_ms": 15_000,
        }
        if self.protocol.endswith("SSL"):
            found["ssl_context"] = self._trust()
        if self.protocol.startswith("SASL"):
            found["sasl_mechanism"] = self.mechanism
            found["sasl_plain_username"] = self.user
            found["sasl_plain_password"] = self._password()
        return found

    def _trust(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                # Without a password an encrypted key would have OpenSSL ask at the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
        except OSError as problem:  # ssl.SSLError is one
            files = ", ".join(str(path) for path in (self.ca_file, self.cert_file, self.key_file) if path)
            raise _bad(f"the certificates cannot be used: {problem.strerror or problem}", files) from None
        return context

    def _password(self) -> str:
        assert self.password_file is not None
        try:
            return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as problem:
            why = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8"
            raise _bad(f"the password cannot be read: {why}", str(self.password_file)) from None


def kafka_settings(environ: Mapping[str, str]) -> KafkaSettings | None:
    """What the environment says, checked; None where it names no Kafka. Refusals: bad_kafka_settings."""
    named = environ.get("TALLY_KAFKA", "")
    if not named.strip():
        return None
    brokers = tuple(part.strip() for part in named.split(","))
    for broker in brokers:
        if not _BROKER.fullmatch(broker) or not 1 <= int(broker.rpartition(":")[2]) <= 65_535:
            raise _bad("not HOST:PORT[,HOST:PORT…]", "TALLY_KAFKA", "for instance TALLY_KAFKA=kafka-1:9092")
    settings = KafkaSettings(
        brokers,
        environ.get("TALLY_KAFKA_PREFIX") or DEFAULT_PREFIX,
        (environ.get("TALLY_KAFKA_SECURITY_PROTOCOL") or PROTOCOLS[0]).upper(),
        _path(environ, "TALLY_KAFKA_CA_FILE"),
        _path(environ, "TALLY_KAFKA_CERT_FILE"),
        _path(environ, "TALLY_KAFKA_KEY_FILE"),
        environ.get("TALLY_KAFKA_SASL_MECHANISM") or None,
        environ.get("TALLY_KAFKA_USER") or None,
        _path(environ, "TALLY_KAFKA_PASSWORD_FILE"),
    )
    _check(settings)
    return settings


def _check(settings: KafkaSettings) -> None:
    if not _PREFIX.fullmatch(settings.prefix):
        raise _bad(
            f"no prefix for a topic: {settings.prefix[:120]!r}",
            "TALLY_KAFKA_PREFIX",
            "letters, digits and dashes",
        )
    if settings.protocol not in PROTOCOLS:
        raise _bad(
            f"unknown: {settings.protocol[:40]}",
            "TALLY_KAFKA_SECURITY_PROTOCOL",
            f"one of {', '.join(PROTOCOLS)}",
        )
    signs_in = settings.protocol.startswith("SASL")
    if signs_in and settings.mechanism not in MECHANISMS:
        raise _bad(
            f"unknown: {str(settings.mechanism)[:40]}",
            "TALLY_KAFKA_SASL_MECHANISM",
            f"one of {', '.join(MECHANISMS)}",
        )
    if signs_in and (settings.user is None or settings.password_file is None):
        raise _bad(
            f"{settings.protocol} wants a user and a password",
            "TALLY_KAFKA_USER",
            "set TALLY_KAFKA_USER and TALLY_KAFKA_PASSWORD_FILE",
        )
    if not signs_in and (settings.mechanism or settings.user or settings.password_file):
        raise _bad(
            f"with {settings.protocol} nobody signs in, and a user or password is given",
            "TALLY_KAFKA_SECURITY_PROTOCOL",
            "SASL_SSL",
        )
    has_tls = settings.protocol.endswith("SSL")
    if not has_tls and (settings.ca_file or settings.cert_file or settings.key_file):
        raise _bad(
            f"{settings.protocol} is not encrypted, and certificates are given",
            "TALLY_KAFKA_SECURITY_PROTOCOL",
            "SSL or SASL_SSL",
        )
    if settings.key_file is not None and settings.cert_file is None:
        raise _bad("a key without its certificate", "TALLY_KAFKA_KEY_FILE", "set TALLY_KAFKA_CERT_FILE too")


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    found = environ.get(name)
    return Path(found) if found else None


def _bad(what: str, where: str, remedy: str = "") -> Refusal:
    return Refusal("bad_kafka_settings", what, where=where, remedy=remedy or "see docs/kafka.md")
