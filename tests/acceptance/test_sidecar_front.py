"""The sidecar's front from the command line: TLS, a gateway that vouches, two engines; and options that are refused."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from certificates import make_certificate, trusting
from command import EXAMPLE, Json, Tally, over, simulated_engine

from adapters.postgres.database import DatabaseUrls

ASK = json.dumps({"model": "qwen3-32b", "messages": [{"role": "user", "content": "Labas!"}], "max_tokens": 5})


def ask(url: str, chain: Path, headers: dict[str, str]) -> tuple[int, Json]:
    """One chat request over TLS: status and JSON of the answer."""
    connection = http.client.HTTPSConnection(urlsplit(url).netloc, timeout=30, context=trusting(chain))
    connection.request("POST", "/v1/chat/completions", ASK, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    document: Json = json.loads(answer.read())
    connection.close()
    return answer.status, document


def shown_name(url: str, chain: Path) -> str | None:
    """The common name of the certificate that the server shows; None if it is not the trusted one."""
    parts = urlsplit(url)
    try:
        with (
            socket.create_connection((str(parts.hostname), int(str(parts.port))), timeout=30) as plain,
            trusting(chain).wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
        ):
            shown: Any = wrapped.getpeercert()
    except ssl.SSLCertVerificationError:
        return None
    (((_, name),),) = shown["subject"]
    return str(name)


def test_tls_a_gateway_and_two_engines_from_the_command_line(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    tally = over(fresh_urls(), tmp_path / "data", EXAMPLE)
    key = tally("key", "create", "--customer", "acme")
    chain, secret = make_certificate(tmp_path, "first")
    with simulated_engine() as one, simulated_engine() as two:
        server = tally.start(
            *("sidecar", "--listen", "127.0.0.1:0", "--engine", one["engine"], "--engine", two["engine"]),
            *("--tls-cert", str(chain), "--tls-key", str(secret)),
            *("--trust-header", "X-Tally-Key", "--trust-peer", "127.0.0.1"),
        )
        url = server.ready()["sidecar"]
        assert url.startswith("https://")
        for headers in (
            {"Authorization": f"Bearer {key['secret']}"},
            {"x-api-key": key["secret"]},
            {"X-Tally-Key": key["id"]},
        ):
            assert ask(url, chain, headers)[0] == 200
        assert ask(url, chain, {"X-Tally-Key": key["id"], "x-api-key": key["secret"]})[0] == 401
        assert shown_name(url, chain) == "first"

        make_certificate(tmp_path, "second")
        os.kill(server.pid, signal.SIGHUP)
        ends = time.monotonic() + 10
        while shown_name(url, chain) != "second":
            assert time.monotonic() < ends
            time.sleep(0.05)
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait().exit_code == 0
    assert tally("usage", "--by", "customer")["rows"][0]["requests"] == 3


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--tls-cert", "cert.pem"], "half_an_option"),
        (["--tls-key", "key.pem"], "half_an_option"),
        (["--trust-header", "X-Key"], "half_an_option"),
        (["--trust-peer", "10.0.0.1"], "half_an_option"),
        (["--tls-cert", "nothing", "--tls-key", "nothing"], "bad_certificate"),
        (["--trust-header", "Authorization", "--trust-peer", "10.0.0.1"], "bad_trust_header"),
        (["--trust-header", "X-Key", "--trust-peer", "everybody"], "bad_trust_peer"),
        (["--engine-key-file", "nothing"], "bad_engine_key"),
        (["--engine", "http://127.0.0.1:8000"], "bad_engine_url"),
        (["--engine", "127.0.0.1:8001"], "bad_engine_url"),
    ],
)
@pytest.mark.parametrize("command", ["sidecar", "up"])
def test_an_option_that_cannot_be_is_refused_before_anything_starts(
    tmp_path: Path, command: str, options: list[str], code: str
) -> None:
    tally = Tally(tmp_path / "data", folder=tmp_path)
    assert tally.refused(command, "--engine", "http://127.0.0.1:8000", *options)["code"] == code
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("lane", ["Sidecar-2", "../x", "", ".", "import-a", "a" * 64, "a b", "ž"])
def test_a_name_that_no_seal_can_carry_is_refused_before_anything_is_made(
    lane: str, fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    tally = over(fresh_urls(), tmp_path / "data", EXAMPLE)
    for command in ("sidecar", "up"):
        refused = tally.refused(command, "--engine", "http://127.0.0.1:9", "--lane", lane)
        assert (refused["code"], refused["where"]) == ("bad_lane", "--lane")
    assert tally("streams")["lanes"] == []


def test_a_folder_of_lines_that_is_not_there_is_refused(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    tally = over(fresh_urls(), tmp_path / "data", EXAMPLE)
    (tmp_path / "file").touch()
    for where in (tmp_path / "nowhere", tmp_path / "file"):
        refused = tally.refused("sidecar", "--engine", "http://127.0.0.1:9", "--engine-lines", str(where))
        assert (refused["code"], refused["where"]) == ("no_engine_lines", str(where))
