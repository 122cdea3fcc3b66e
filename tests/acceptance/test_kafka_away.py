"""Capture while Kafka is away: `tally up` before a simulated engine, over a broker of the test's own."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from command import EXAMPLE, Json, Tally, over, simulated_engine
from kafka_broker import KafkaBroker, OwnBroker, own_broker, unique_prefix

from adapters.postgres.database import DatabaseUrls
from metering.spool import Backlog, Spool

CLIENTS = 2
PAUSE_S = 0.01


class Load:
    """Clients that ask one request after another, on connections that they keep; counts what they are answered."""

    def __init__(self, sidecar: str, secret: str) -> None:
        self._where = urlsplit(sidecar).netloc
        self._secret = secret
        self.answers: Counter[int] = Counter()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._where, timeout=30)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._secret}"}
        body = json.dumps(
            {"model": "qwen3-32b", "messages": [{"role": "user", "content": "Labas!"}], "max_tokens": 3}
        )
        while not self._is_over.wait(PAUSE_S):
            connection.request("POST", "/v1/chat/completions", body, headers)
            answer = connection.getresponse()
            answer.read()
            self.answers[answer.status] += 1
        connection.close()


def backlog(tally: Tally) -> Backlog:
    return Spool(tally.data / "spool").backlog()


def wait(holds: Callable[[], bool], within_s: float) -> float:
    """Until it holds; how long that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within_s
        time.sleep(0.1)
    return time.monotonic() - began


def up(tally: Tally, engine: Json) -> AbstractContextManager[Json]:
    listen = ("--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0")
    return tally.serving("up", "--engine", engine["engine"], *listen)


def requests(tally: Tally) -> int:
    """What the ledger counts, whatever the time."""
    usage = tally("usage", "--from", "2020-01-01T00:00:00Z", "--to", "2099-01-01T00:00:00Z")
    return int(usage["total"]["requests"])


def kafka_is_away_for(seconds: float, kafka: OwnBroker, tally: Tally) -> None:
    """Under load; nobody is refused, and every request is in the ledger afterwards."""
    tally("kafka", "prepare", "--partitions", "2")
    secret = tally("key", "create", "--customer", "acme")["secret"]
    with (
        simulated_engine() as engine,
        up(tally, engine) as told,
        Load(told["sidecar"], secret) as load,
    ):
        wait(lambda: load.answers[200] > 100, 30)
        wait(lambda: backlog(tally).batches > 0, 30)
        wait(lambda: backlog(tally).batches == 0, 30)  # the road is open: sealed, sent, accepted, deleted
        kafka.kill()
        answered = load.answers[200]
        time.sleep(seconds)
        assert load.answers[200] > answered
        waited = backlog(tally)
        assert waited.batches >= seconds / 10 - 1
        kafka.start()
        caught_up_s = wait(
            lambda: (backlog(tally).oldest_us or 1 << 62) > time.time_ns() // 1_000 - 15_000_000, 60
        )
        print(f"away {seconds:.0f} s, {waited.batches} batches waited, caught up in {caught_up_s:.1f} s")
    assert set(load.answers) == {200}
    asked = load.answers[200]

    with tally.serving("shipper"), tally.serving("intake"):  # what the drain sealed last
        wait(lambda: backlog(tally).batches == 0, 60)
    assert requests(tally) == asked


@pytest.fixture
def tally(fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path) -> Tally:
    return over(fresh_urls(), tmp_path / "data", EXAMPLE)


@pytest.mark.proof
def test_up_brings_a_shipper_and_its_spool_empties_by_intakes_word(tally: Tally, kafka: KafkaBroker) -> None:
    tally.environment |= {"TALLY_KAFKA": kafka.address, "TALLY_KAFKA_PREFIX": unique_prefix()}
    tally("kafka", "prepare", "--partitions", "2")
    secret = tally("key", "create", "--customer", "acme")["secret"]
    with simulated_engine() as engine, up(tally, engine) as told:
        with Load(told["sidecar"], secret) as load:
            wait(lambda: load.answers[200] > 20, 30)
        wait(lambda: backlog(tally).batches > 0, 30)
        wait(lambda: backlog(tally).batches == 0, 30)
        assert requests(tally) == load.answers[200]
    assert set(load.answers) == {200}


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_no_request_is_refused_and_none_is_lost_while_kafka_is_away_for_five_minutes(
    tally: Tally, tmp_path: Path
) -> None:
    with own_broker(tmp_path) as kafka:
        tally.environment["TALLY_KAFKA"] = kafka.address
        kafka_is_away_for(300, kafka, tally)
