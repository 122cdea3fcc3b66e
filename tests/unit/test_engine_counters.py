"""What the engine's /metrics says, and whether it is still the same engine."""

from __future__ import annotations

import pytest

from metering.engine_counters import Counts, Scrape, increase, is_same_engine, read_counters
from metering.refusal import Refusal

SHOWN = """\
# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.7600000005e+09
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 2.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 2.0
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 4711.0
vllm:prompt_tokens_total{engine="1",model_name="tiny"} 289.0
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{engine="0",model_name="tiny"} 1.760000001e+09
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="tiny"} 7.322e+03
vllm:request_success_total{engine="0",finished_reason="stop",model_name="tiny"} 12.0
"""


def test_counts_are_summed_over_the_engines_of_a_model() -> None:
    scrape = read_counters(SHOWN)
    assert scrape == Scrape({"tiny": Counts(5000, 7322)}, 3, (1760000000.5, 1760000001.0))
    assert Scrape.from_json(scrape.to_json()) == scrape


def test_a_server_that_shows_no_gauges_and_no_births_says_so() -> None:
    lines = [line for line in SHOWN.splitlines() if line.startswith(("vllm:prompt_tokens_total", "vllm:gen"))]
    assert read_counters("\n".join(lines)) == Scrape({"tiny": Counts(5000, 7322)}, None, ())


@pytest.mark.parametrize(
    "text",
    [
        'vllm:prompt_tokens_total{model_name="tiny"} many\n',
        'vllm:prompt_tokens_total{model_name="tiny"} NaN\n',
        'vllm:prompt_tokens_total{model_name="tiny"} -1\n',
        'vllm:prompt_tokens_total{model_name="tiny"} 0.5\n',
        'vllm:prompt_tokens_total{model_name="tiny"} 1e300\n',
        "vllm:prompt_tokens_total 7\n",
        'vllm:prompt_tokens_total{model_name="ti 7\n',
    ],
)
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_counters(text)
    assert caught.value.code == "bad_metrics"


def test_another_birth_or_a_count_that_fell_or_a_model_that_went_is_another_engine() -> None:
    before = Scrape({"tiny": Counts(10, 20)}, 0, (1.0,))
    assert is_same_engine(before, Scrape({"tiny": Counts(10, 21), "more": Counts()}, 0, (1.0,)))
    assert not is_same_engine(before, Scrape({"tiny": Counts(99, 99)}, 0, (2.0,)))
    asked_first = Scrape({"tiny": Counts(10, 20), "more": Counts(1, 1)}, 0, (1.0, 3.0))
    assert is_same_engine(before, asked_first), "the counters of a model are born when it is first asked for"
    unborn = Scrape({"tiny": Counts(10, 20)}, 0, ())
    assert is_same_engine(unborn, Scrape({"tiny": Counts(10, 20)}, 0, (2.0,)))
    assert not is_same_engine(unborn, Scrape({"tiny": Counts(11, 19)}, 0, ()))
    assert not is_same_engine(unborn, Scrape({"other": Counts(99, 99)}, 0, ()))


def test_what_grew_is_a_difference_and_what_did_not_is_left_out() -> None:
    before = Scrape({"tiny": Counts(10, 20), "idle": Counts(1, 1)}, 0, ())
    now = Scrape({"tiny": Counts(15, 20), "idle": Counts(1, 1), "new": Counts(2, 3)}, 0, ())
    assert increase(before, now) == {"tiny": Counts(5, 0), "new": Counts(2, 3)}
