"""What an operator watches sidecars and ledger with: metrics, alerts and dashboard, each held to its own schema."""

from __future__ import annotations

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from intake_world import World, Writer, make_world
from prometheus_client import CollectorRegistry, generate_latest
from promtool import promtool

from adapters.ledger_metrics import LedgerCollector, LedgerFigures, ledger_metrics
from adapters.postgres.database import Database
from adapters.postgres.log import Head, Standing
from adapters.sidecar_metrics import SidecarCollector, serve_metrics
from billing.ports import OpenRoots
from metering.figures import EngineFigures, Figures, Latency

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/tallygrid.rules.yml"
DASHBOARD = DEPLOY / "grafana/tallygrid-capture.json"
EXAMPLES = Path(__file__).parent / "alerts.test.yml"
NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    return await make_world(database, tmp_path)


def figures() -> Figures:
    added = Latency()
    for seconds in (0.00005, 0.0002, 0.0009, 0.2, 3.0):
        added.observe(seconds)
    return Figures(
        requests=5,
        events={"finished": 4, "aborted": 1},
        refused={"invalid_api_key": 2},
        usage_unread=0,
        unmetered_requests=0,
        open_requests=1,
        connections=3,
        unsealed_events=5,
        spool_bytes=9_000,
        spool_limit_bytes=10**10,
        spool_oldest_s=1.5,
        faults=("write",),
        engines={"0": EngineFigures(up=True, requests=1), "1": EngineFigures(up=False, requests=0)},
        joined={"joined": 4, "alone": 1},
        join_waiting=1,
        join_lag_s=0.25,
        engine_lines=6,
        engine_lines_missing=0,
        witness="yes",
        unaccounted={("qwen3-32b", "prompt"): 0, ("qwen3-32b", "generated"): 7},
        added=added,
    )


def shown() -> str:
    registry = CollectorRegistry()
    registry.register(SidecarCollector(figures))
    return generate_latest(registry).decode()


def ledger_shown() -> str:
    """What Prometheus would read of a ledger with a forked lane, a lane that lags, and a log that nobody signs."""
    registry, collector = CollectorRegistry(), LedgerCollector()
    lane = {"operator": "telecentras", "node": "vilnius-1", "due": True, "holes": 0, "forks": 0, "held": 0}
    collector.figures = LedgerFigures(
        at=NOON,
        lanes=[
            {**lane, "lane": "sidecar-0", "lag_s": 12, "forks": 1, "held": 2},
            {**lane, "lane": "sidecar-1", "lag_s": 7_200},
            {**lane, "lane": "import-1", "due": False, "lag_s": None},
        ],
        set_aside=3,
        missing_siblings=[],
        roots={"telecentras": OpenRoots(unchecked=4, faults=0, first_fault=None)},
        logs={
            "telecentras": Standing(
                waits=True, numbered=7, head=Head(7, bytes(32), b"", NOON - timedelta(minutes=5))
            )
        },
    )
    registry.register(collector)
    return generate_latest(registry).decode()


def expressions() -> list[str]:
    """Every query of the dashboard, its variable filled in."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"].replace("$instance", ".+") for panel in panels for target in panel["targets"]]


def test_the_metrics_say_what_the_figures_say() -> None:
    text = shown()
    assert 'tallygrid_events_total{outcome="aborted"} 1.0' in text
    assert 'tallygrid_unaccounted_tokens{kind="generated",model="qwen3-32b"} 7.0' in text
    assert 'tallygrid_engine_up{engine="1"} 0.0' in text
    assert 'tallygrid_capture_fault{cause="write"} 1.0' in text
    assert 'tallygrid_added_seconds_bucket{le="0.001"} 3.0' in text
    assert 'tallygrid_added_seconds_bucket{le="+Inf"} 5.0' in text
    assert "tallygrid_added_seconds_count 5.0" in text


def test_the_metrics_are_served_over_http_and_stop() -> None:
    port, stop = serve_metrics(figures, "127.0.0.1", 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert answer.read().decode() == shown()
    stop()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1)


def test_the_ledgers_metrics_name_lanes_holds_and_logs() -> None:
    text = ledger_shown()
    assert (
        'tallygrid_lane_lag_seconds{lane="sidecar-1",node="vilnius-1",operator="telecentras"} 7200.0' in text
    )
    assert 'tallygrid_lane_lag_seconds{lane="import-1"' not in text, "an import is complete by declaration"
    assert 'tallygrid_lane_forks{lane="sidecar-0",node="vilnius-1",operator="telecentras"} 1.0' in text
    assert 'tallygrid_log_checkpoint_age_seconds{operator="telecentras"} 300.0' in text
    assert 'tallygrid_log_unsigned{operator="telecentras"} 1.0' in text


def test_a_ledger_that_does_not_answer_shows_that_and_no_old_figure() -> None:
    registry = CollectorRegistry()
    registry.register(LedgerCollector())
    text = generate_latest(registry).decode()
    assert "tallygrid_ledger_up 0.0" in text
    assert "tallygrid_lane" not in text


@pytest.mark.anyio
async def test_the_ledgers_metrics_are_read_from_the_database_and_served(world: World) -> None:
    await world.enrol(Writer())
    async with ledger_metrics(world.database, "127.0.0.1", 0) as port:
        until = time.monotonic() + 10
        while "tallygrid_lane_forks{" not in (text := await asyncio.to_thread(_metrics_at, port)):
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
    assert 'tallygrid_held_batches{lane="sidecar-0",node="vilnius-1",operator="telecentras"} 0.0' in text
    assert "tallygrid_ledger_up 1.0" in text


@pytest.mark.anyio
async def test_a_fault_that_nobody_foresaw_leaves_no_old_figure_and_ends_no_reading(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []

    async def read(_database: Database, _at: datetime) -> LedgerFigures:
        reads.append(len(reads))
        if len(reads) > 1:
            raise RuntimeError("a bug")
        return LedgerFigures(NOON, [], 0, [], {}, {})

    monkeypatch.setattr("adapters.ledger_metrics.read_figures", read)
    monkeypatch.setattr("adapters.ledger_metrics.READ_EVERY", timedelta(seconds=0.02))
    async with ledger_metrics(database, "127.0.0.1", 0) as port:
        until = time.monotonic() + 10
        while len(reads) < 4:
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        assert "tallygrid_ledger_up 0.0" in await asyncio.to_thread(_metrics_at, port)


def _metrics_at(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return str(answer.read().decode())


def test_prometheus_own_checker_finds_nothing_wrong_with_the_metrics() -> None:
    checked = promtool("check", "metrics", stdin=shown() + ledger_shown())
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_prometheus_own_checker_loads_alerts_and_configuration() -> None:
    checked = promtool("check", "config", DEPLOY / "prometheus/prometheus.yml")
    assert checked.returncode == 0, checked.stderr
    assert "19 rules found" in checked.stdout


def test_each_alert_fires_when_its_example_says_and_not_before(tmp_path: Path) -> None:
    examples = tmp_path / "alerts.test.yml"
    examples.write_text(EXAMPLES.read_text().replace("RULES", str(RULES)))
    tried = promtool("test", "rules", examples)
    assert tried.returncode == 0, tried.stdout + tried.stderr


def test_the_dashboard_is_whole_by_grafanas_own_types() -> None:
    register_default_plugins()
    written = json.loads(DASHBOARD.read_text())
    read: dict[str, Any] = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))
    assert _lost(written, read) == []


def test_a_key_that_grafana_does_not_know_would_be_noticed() -> None:
    register_default_plugins()
    written = json.loads(DASHBOARD.read_text())
    written["panels"][0]["gridPoss"] = {}
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))
    assert _lost(written, read) == ["/panels/0/gridPoss"]


def test_prometheus_reads_each_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"query:{n}", "expr": expression} for n, expression in enumerate(expressions())]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = promtool("check", "rules", path)
    assert checked.returncode == 0, checked.stderr


def test_alerts_and_dashboard_ask_only_for_metrics_that_are_shown() -> None:
    names = set(re.findall(r"^(tallygrid_\w+)", shown() + ledger_shown(), re.MULTILINE))
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = [rule["expr"] for group in groups for rule in group["rules"]]
    asked = set(re.findall(r"tallygrid_\w+", " ".join([*alerts, *expressions()])))
    assert asked - names == set()


def _lost(written: Any, read: Any, path: str = "") -> list[str]:
    """What stands in `written` and not in `read`, by path."""
    if isinstance(written, dict):
        return [
            place
            for key, value in written.items()
            for place in (_lost(value, read[key], f"{path}/{key}") if key in read else [f"{path}/{key}"])
        ]
    if isinstance(written, list):
        return [
            place
            for n, (left, right) in enumerate(zip(written, read, strict=True))
            for place in _lost(left, right, f"{path}/{n}")
        ]
    return [] if written == read else [path]
