"""A sidecar's figures in Prometheus' words (https://prometheus.io/docs/practices/naming/).

They are read when Prometheus asks, by a thread of its own: counting costs a request nothing. `deploy/prometheus` has the
alerts over them, `deploy/grafana` a dashboard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from metering.figures import BOUNDS_S, Figures, Latency

#: Each is shown, the one that holds as 1.
WITNESS_STATES = ("yes", "no", "aside")


class SidecarCollector(Collector):
    """Shows the figures that `read` gives at the moment of asking."""

    def __init__(self, read: Callable[[], Figures]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        now = self._read()
        yield from _requests(now)
        yield from _spool(now)
        yield from _engines(now)
        yield from _witness(now)
        yield _latency(now.added)


def serve_metrics(read: Callable[[], Figures], host: str, port: int) -> tuple[int, Callable[[], None]]:
    """Show the figures at `http://host:port/metrics` (port 0: a free one); the port, and how to stop.

    OSError if the address is taken.
    """
    registry = CollectorRegistry()
    registry.register(SidecarCollector(read))
    server, thread = start_http_server(port, addr=host, registry=registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop


def _requests(now: Figures) -> Iterator[Metric]:
    yield _count("requests", "Requests that were let through to an engine", now.requests)
    yield _counts("events", "Usage events written down", "outcome", now.events)
    yield _counts("refused", "Requests that the sidecar itself refused", "reason", now.refused)
    yield _count("usage_unread", "Finished answers in which no usage could be read", now.usage_unread)
    yield _count(
        "unmetered_requests", "Requests served while nothing could be written", now.unmetered_requests
    )
    yield _gauge("open_requests", "Requests without their event yet", now.open_requests)
    yield _gauge("connections", "Connections of clients", now.connections)
    faults = GaugeMetricFamily(
        "tallygrid_capture_fault", "1 for each cause for which requests are not captured", labels=["cause"]
    )
    for cause in now.faults:
        faults.add_metric([cause], 1)
    yield faults


def _spool(now: Figures) -> Iterator[Metric]:
    yield _gauge("unsealed_events", "Events that no seal holds yet", now.unsealed_events)
    yield _gauge("spool_bytes", "Sealed batches that intake has not accepted", now.spool_bytes)
    yield _gauge("spool_limit_bytes", "Where the spool is full", now.spool_limit_bytes)
    yield _gauge("spool_oldest_seconds", "Age of the oldest batch in the spool", now.spool_oldest_s)


def _engines(now: Figures) -> Iterator[Metric]:
    up = GaugeMetricFamily("tallygrid_engine_up", "1 while the engine answers GET /health", labels=["engine"])
    busy = GaugeMetricFamily(
        "tallygrid_engine_requests", "Requests in the air at the engine", labels=["engine"]
    )
    for name, engine in now.engines.items():
        up.add_metric([name], int(engine.up))
        busy.add_metric([name], engine.requests)
    yield up
    yield busy


def _witness(now: Figures) -> Iterator[Metric]:
    yield _gauge("join_waiting", "Requests that wait for the engine's line", now.join_waiting)
    yield _gauge("join_lag_seconds", "How long the oldest of them has waited", now.join_lag_s)
    yield _counts("joined", "Events by what the engine's line gave them", "result", now.joined)
    yield _count("engine_lines", "Lines of the engine's witness", now.engine_lines)
    yield _count(
        "engine_lines_missing", "Lines that the witness numbered and nobody found", now.engine_lines_missing
    )
    witness = GaugeMetricFamily(
        "tallygrid_witness", "1 for the state of the engine's witness", labels=["state"]
    )
    for state in WITNESS_STATES:
        witness.add_metric([state], int(state == now.witness))
    yield witness
    unaccounted = GaugeMetricFamily(
        "tallygrid_unaccounted_tokens",
        "Tokens of the last settled span in the engine's counters and in no event",
        labels=["model", "kind"],
    )
    for (model, kind), tokens in now.unaccounted.items():
        unaccounted.add_metric([model, kind], tokens)
    yield unaccounted


def _latency(added: Latency) -> Metric:
    buckets, total = [], 0
    for bound, count in zip([*map(str, BOUNDS_S), "+Inf"], added.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return HistogramMetricFamily(
        "tallygrid_added_seconds",
        "What the sidecar adds to a request",
        buckets=buckets,
        sum_value=added.sum_s,
    )


def _count(name: str, what: str, value: int) -> Metric:
    return CounterMetricFamily(f"tallygrid_{name}", what, value=value)


def _counts(name: str, what: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"tallygrid_{name}", what, labels=[label])
    for value, count in sorted(dict(values).items()):
        family.add_metric([value], count)
    return family


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"tallygrid_{name}", what, value=value)
