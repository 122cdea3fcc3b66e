"""`GET /metrics`: the counters in Prometheus' text format, under vLLM's names, labels and help texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from adapters.simulated_engine.counters import Counters, Histogram, ModelCounters

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
_LABELS = ("model_name", "engine")
_ENGINE = "0"

Reading = Callable[[ModelCounters], Mapping[str, int]]

_GAUGES: tuple[tuple[str, str, Callable[[ModelCounters], int]], ...] = (
    (
        "vllm:num_requests_running",
        "Number of requests in model execution batches.",
        lambda counters: counters.running,
    ),
    ("vllm:num_requests_waiting", "Number of requests waiting to be processed.", lambda _: 0),
)

# name, help, the label beside model and engine, and what to read: {its value: count}
_COUNTERS: tuple[tuple[str, str, str | None, Reading], ...] = (
    (
        "vllm:prefix_cache_queries",
        "Prefix cache queries, in terms of number of queried tokens.",
        None,
        lambda counters: {"": counters.queried_tokens},
    ),
    (
        "vllm:prefix_cache_hits",
        "Prefix cache hits, in terms of number of cached tokens.",
        None,
        lambda counters: {"": counters.cached_tokens},
    ),
    (
        "vllm:prompt_tokens",
        "Number of prefill tokens processed.",
        None,
        lambda counters: {"": counters.prompt_tokens},
    ),
    (
        "vllm:prompt_tokens_by_source",
        "Number of prompt tokens by source.",
        "source",
        lambda counters: {
            "local_compute": counters.prompt_tokens - counters.cached_tokens,
            "local_cache_hit": counters.cached_tokens,
            "external_kv_transfer": 0,
        },
    ),
    (
        "vllm:prompt_tokens_cached",
        "Number of cached prompt tokens (local + external).",
        None,
        lambda counters: {"": counters.cached_tokens},
    ),
    (
        "vllm:generation_tokens",
        "Number of generation tokens processed.",
        None,
        lambda counters: {"": counters.generation_tokens},
    ),
    (
        "vllm:request_success",
        "Count of successfully processed requests.",
        "finished_reason",
        lambda counters: counters.finished,
    ),
)

_HISTOGRAMS: tuple[tuple[str, str, Callable[[ModelCounters], Histogram]], ...] = (
    (
        "vllm:request_prompt_tokens",
        "Number of prefill tokens processed.",
        lambda counters: counters.request_prompt_tokens,
    ),
    (
        "vllm:request_generation_tokens",
        "Number of generation tokens processed.",
        lambda counters: counters.request_generation_tokens,
    ),
    (
        "vllm:request_params_n",
        "Histogram of the n request parameter.",
        lambda counters: counters.choices,
    ),
    (
        "vllm:request_params_max_tokens",
        "Histogram of the max_tokens request parameter.",
        lambda counters: counters.max_tokens,
    ),
    (
        "vllm:time_to_first_token_seconds",
        "Histogram of time to first token in seconds.",
        lambda counters: counters.first_token_s,
    ),
    (
        "vllm:e2e_request_latency_seconds",
        "Histogram of e2e request latency in seconds.",
        lambda counters: counters.latency_s,
    ),
    (
        "vllm:request_prefill_kv_computed_tokens",
        "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
        lambda counters: counters.request_computed_tokens,
    ),
)


def exposition(counters: Counters, started: float) -> bytes:
    """The text that a scrape gets. `started` (seconds) is when the counters began at zero."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(counters, started))
    return generate_latest(registry)


@dataclass(frozen=True, slots=True)
class _Families(Collector):
    counters: Counters
    started: float

    def collect(self) -> Iterator[Metric]:
        models = self.counters.by_model.items()
        for name, text, value in _GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=_LABELS)
            for model, counters in models:
                gauge.add_metric((model, _ENGINE), value(counters))
            yield gauge
        for name, text, label, reading in _COUNTERS:
            counter = CounterMetricFamily(name, text, labels=(*_LABELS, label) if label else _LABELS)
            for model, counters in models:
                for key, count in reading(counters).items():
                    values = (model, _ENGINE, key) if label else (model, _ENGINE)
                    counter.add_metric(values, count, created=self.started)
            yield counter
        for name, text, pick in _HISTOGRAMS:
            histogram = HistogramMetricFamily(name, text, labels=_LABELS)
            for model, counters in models:
                self._add_histogram(histogram, model, pick(counters))
            yield histogram
        started = "Start time of the process since unix epoch in seconds."
        yield GaugeMetricFamily("process_start_time_seconds", started, value=self.started)

    def _add_histogram(self, family: HistogramMetricFamily, model: str, histogram: Histogram) -> None:
        buckets = [
            ("+Inf" if bound == float("inf") else repr(bound), float(count))
            for bound, count in histogram.cumulative()
        ]
        family.add_metric((model, _ENGINE), buckets=buckets, sum_value=histogram.sum)
        labels = {"model_name": model, "engine": _ENGINE}
        family.add_sample(f"{family.name}_created", labels, self.started)
