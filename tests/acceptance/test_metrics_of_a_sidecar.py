"""An operator watches a sidecar: its metrics beside what clients did, and a taken port said before anything starts."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

from command import EXAMPLE, over, simulated_engine
from promtool import promtool
from test_keys_at_the_sidecar import ask

from adapters.postgres.database import DatabaseUrls


def test_what_clients_did_is_shown_and_nothing_about_them(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    tally = over(fresh_urls(), tmp_path / "data", EXAMPLE)
    secret = tally("key", "create", "--customer", "acme")["secret"]
    with simulated_engine() as engine:
        command = ("sidecar", "--engine", engine["engine"], "--listen", "127.0.0.1:0")
        with tally.serving(*command, "--metrics-listen", "127.0.0.1:0") as told:
            assert ask(told["sidecar"], secret)[0] == 200
            assert ask(told["sidecar"], "tg_unknown")[0] == 401
            with urllib.request.urlopen(told["metrics"]) as answer:
                text = answer.read().decode()
    shown = dict(re.findall(r"^(tallygrid_\S+) (\S+)$", text, re.MULTILINE))
    assert shown["tallygrid_requests_total"] == "1.0"
    assert shown['tallygrid_events_total{outcome="finished"}'] == "1.0"
    assert shown['tallygrid_refused_total{reason="invalid_api_key"}'] == "1.0"
    assert shown['tallygrid_engine_up{engine="0"}'] == "1.0"
    assert shown['tallygrid_witness{state="no"}'] == "1.0"
    assert shown["tallygrid_added_seconds_count"] == "1.0"
    assert float(shown["tallygrid_added_seconds_sum"]) > 0
    assert "tallygrid_capture_fault{" not in text
    assert "acme" not in text
    checked = promtool("check", "metrics", stdin=text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_taken_port_for_metrics_is_refused_before_anything_starts(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    tally = over(fresh_urls(), tmp_path / "data", EXAMPLE)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        command = ("sidecar", "--engine", "http://127.0.0.1:9", "--listen", "127.0.0.1:0")
        refused = tally.refused(*command, "--metrics-listen", where)
    assert (refused["code"], refused["where"]) == ("cannot_listen", "--metrics-listen")
    assert tally("streams")["lanes"] == []
