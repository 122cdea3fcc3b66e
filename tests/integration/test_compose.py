"""docker-compose.yml without containers: each service's command and environment, on loopback, beside a PostgreSQL of the
operator's own. The images themselves are not built here."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compose_file import COMPOSE_FILE, ROOT, Here, MissingValue, read_compose, ready
from kafka_broker import KafkaBroker, unique_prefix
from outside_postgres import ADMINISTRATOR, OutsideServer, outside_server

from adapters.postgres.roles import ROLES, role_sql

ENVIRONMENT = {
    "POSTGRES_PASSWORD": "of-the-superuser",
    "TALLY_OWNER_PASSWORD": "2c5f0f7a1b",
    "TALLY_INTAKE_PASSWORD": "9f81c2d4e6",
    "TALLY_APP_PASSWORD": "77ab30ce95",
    "TALLY_ENGINE": "http://vllm:8000",
    "TALLY_SITE": "./examples/vilnius",
}
ROLES_FILE = ROOT / "deploy" / "postgres" / "roles.sql"


@pytest.fixture(scope="module")
def server() -> Iterator[OutsideServer]:
    with outside_server() as running:
        yield running


@pytest.fixture
def prepared(server: OutsideServer, tmp_path: Path) -> Iterator[OutsideServer]:
    """An administrator ran what `tally database prepare` prints, as its head says."""
    (tmp_path / "prepare.sql").write_text(role_sql(None))
    typed = [f"\\set {role}_password '{ENVIRONMENT[f'{role}_password'.upper()]}'" for role in ROLES]
    typed.append(f"\\i {tmp_path / 'prepare.sql'}")
    done = server.psql("--set=ON_ERROR_STOP=1", user=ADMINISTRATOR, text="\n".join(typed))
    assert done.returncode == 0, done.stderr
    yield server
    server.forget_tallygrid()


@pytest.fixture
def engine() -> Iterator[str]:
    """Where a simulated engine listens."""
    command = [sys.executable, "-m", "adapters.simulated_engine", "--listen", "127.0.0.1:0", "--any-model"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        yield ready(running)["engine"]
        running.terminate()


def test_every_variable_that_is_missing_is_asked_for_and_only_the_witness_and_kafka_may_be_left_out() -> None:
    named = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE_FILE.read_text()))
    assert named - {"TALLY_ENGINE_LINES", "TALLY_KAFKA"} == set(ENVIRONMENT)
    for name in ENVIRONMENT:
        with pytest.raises(MissingValue, match=name):
            read_compose({**ENVIRONMENT, name: ""})


def test_images_come_from_no_named_registry_and_ports_are_the_machines_own() -> None:
    compose = read_compose(ENVIRONMENT)
    assert set(compose) == {"x-tally", "services", "volumes"}
    services = compose["services"]
    assert {service["image"] for service in services.values()} == {
        "postgres:18",
        "apache/kafka:4.1.0",
        "tallygrid",
    }
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert all(
        "_OWNER_" not in name
        for part in ("sidecar", "intake", "api")
        for name in services[part]["environment"]
    )


def test_the_images_script_is_what_prepare_prints_with_passwords_from_the_environment(
    server: OutsideServer,
) -> None:
    head, _, printed = ROLES_FILE.read_text().partition("-- ----")
    assert printed.partition("\n")[2].strip() == role_sql(None).strip()
    assert head.count("\\getenv") == len(ROLES)
    passwords = {
        name: ENVIRONMENT[name] for name in ENVIRONMENT if name.startswith("TALLY_") and "PASSWORD" in name
    }
    without_one = server.psql("--set=ON_ERROR_STOP=1", f"--file={ROLES_FILE}")
    assert without_one.returncode != 0
    try:
        done = server.psql("--set=ON_ERROR_STOP=1", f"--file={ROLES_FILE}", environment=passwords)
        assert done.returncode == 0, done.stderr
        for role in ROLES:
            secret = {"PGPASSWORD": passwords[f"{role}_password".upper()]}
            greeted = server.psql("--command=SELECT 1", "--dbname=tallygrid", user=role, environment=secret)
            assert greeted.returncode == 0, greeted.stderr
    finally:
        server.forget_tallygrid()


def test_the_services_work_beside_an_outside_postgresql(
    prepared: OutsideServer, engine: str, tmp_path: Path
) -> None:
    services = read_compose(ENVIRONMENT)["services"]
    here = _here(prepared, engine, tmp_path)

    # Before `site` has run, the others say what is missing instead of doing half of it.
    exit_code, refused = here.run(services["intake"], "usage")
    assert (exit_code, refused["error"]["code"]) == (1, "database_behind")
    assert "TALLY_DATABASE_OWNER_URL" in refused["error"]["remedy"]

    exit_code, applied = here.run(services["site"], *services["site"]["command"])
    assert exit_code == 0
    assert "operator/telecentras" in applied["created"]

    with _all_up(here, services) as addresses:
        _, key = here.run(services["intake"], "key", "create", "--customer", "acme")
        answer = _ask(addresses["sidecar"], key["secret"])
        assert here.healthy(services["sidecar"], "127.0.0.1:8080", _port(addresses["sidecar"])) == 0
        assert here.healthy(services["api"], "127.0.0.1:8090", _port(addresses["api"])) == 0

    with ThreadPoolExecutor() as pool:
        doctor = pool.submit(here.healthy, services["intake"])
        # With the application's login alone, since intake has taken what there was.
        exit_code, usage = here.run(services["api"], "usage")
    assert exit_code == 0
    assert usage["rows"] == [{"customer": "acme", **usage["total"]}]
    assert usage["total"]["requests"] == 1
    assert usage["total"]["completion_tokens"] == answer["usage"]["completion_tokens"]
    assert doctor.result() == 0
    assert not (tmp_path / "data" / "postgres").exists()

    # A restart of the sidecar while the database is away: it serves with the keys that it knew.
    away = replace(here, texts={**here.texts, "@postgres:5432/": "@127.0.0.1:1/"})
    sidecar = away.start(services["sidecar"])
    try:
        _ask(ready(sidecar)["sidecar"], key["secret"])
    finally:
        _stop(sidecar)
    _, usage = here.run(services["intake"], "usage")
    assert usage["total"]["requests"] == 2


@pytest.mark.proof
def test_with_the_brokers_named_the_batches_travel_over_kafka(
    prepared: OutsideServer, engine: str, kafka: KafkaBroker, tmp_path: Path
) -> None:
    """`TALLY_KAFKA=… docker compose --profile kafka up`: topics, then sidecar and intake, and a broker between them."""
    services = read_compose({**ENVIRONMENT, "TALLY_KAFKA": "kafka:9092"})["services"]
    prefix = unique_prefix()
    for name in ("topics", "sidecar", "intake"):
        assert services[name]["environment"]["TALLY_KAFKA"] == "kafka:9092"
        services[name]["environment"]["TALLY_KAFKA_PREFIX"] = prefix  # the broker is shared with other tests
    here = _here(prepared, engine, tmp_path)
    here = replace(here, texts={**here.texts, "kafka:9092": kafka.address})
    exit_code, _ = here.run(services["site"], *services["site"]["command"])
    assert exit_code == 0
    exit_code, made = here.run(services["topics"], *services["topics"]["command"])
    assert exit_code == 0, made

    def total() -> Any:
        return here.run(services["api"], "usage")[1]["total"]

    with _all_up(here, services, ("sidecar", "intake"), lambda: total()["requests"] == 1) as addresses:
        _, key = here.run(services["intake"], "key", "create", "--customer", "acme")
        answer = _ask(addresses["sidecar"], key["secret"])
    assert total()["completion_tokens"] == answer["usage"]["completion_tokens"]


def _here(server: OutsideServer, engine: str, folder: Path) -> Here:
    return Here(
        texts={
            "@postgres:5432/": f"@{server.host}:{server.port}/",
            "0.0.0.0:8080": "127.0.0.1:0",
            "0.0.0.0:8090": "127.0.0.1:0",
            "0.0.0.0:9464": "127.0.0.1:0",
            "0.0.0.0:9465": "127.0.0.1:0",
            "http://vllm:8000": engine,
        },
        volumes={"data": folder / "data"},
        home=folder,
    )


@contextmanager
def _all_up(
    here: Here,
    services: dict[str, Any],
    names: Sequence[str] = ("sidecar", "intake", "api"),
    has_arrived: Callable[[], bool] | None = None,
) -> Iterator[dict[str, str]]:
    """These services for the block; then SIGTERM, the sidecar first, the others when what it sealed has arrived (where
    intake reads its spool: when that is empty), and every one of them ends with 0."""
    running = {name: here.start(services[name]) for name in names}
    try:
        addresses: dict[str, str] = {}
        for started in running.values():
            addresses |= ready(started)
        yield addresses
        _stop(running["sidecar"])
        _wait_for(has_arrived or (lambda: not list((here.volumes["data"] / "spool").rglob("*.seal"))))
        for name in names[1:]:
            _stop(running[name])
    finally:
        for started in running.values():
            if started.poll() is None:
                started.kill()
                started.communicate()


def _stop(started: subprocess.Popen[str]) -> None:
    started.send_signal(signal.SIGTERM)
    _, stderr = started.communicate(timeout=30)
    assert started.returncode == 0, stderr


def _ask(sidecar: str, secret: str) -> Any:
    """One request of the customer's; a sidecar knows a new key within some seconds."""
    body = {"model": "qwen3-32b", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
    request = urllib.request.Request(
        f"{sidecar}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"},
    )
    until = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                if refused.code != 401 or time.monotonic() > until:
                    raise
        time.sleep(0.1)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _wait_for(true: Any) -> None:
    until = time.monotonic() + 15
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)
