"""Days and times that people ask for: read in the operator's zone, and refused by name where there are none."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from adapters.answers import Span, instants, read_moment
from adapters.cli.options import read_time
from metering.refusal import Refusal

VILNIUS, NEW_YORK = ZoneInfo("Europe/Vilnius"), ZoneInfo("America/New_York")
AT_THE_ENDS = (
    "0001-01-01",
    "9999-12-31",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+03:00",
    "9999-12-31T23:00:00-03:00",
)


def test_a_day_is_its_local_midnight_and_a_time_is_as_written() -> None:
    assert read_moment("2026-10-05", VILNIUS) == datetime(2026, 10, 4, 21, tzinfo=UTC)
    assert read_moment("2026-10-05T08:00:00Z", VILNIUS) == datetime(2026, 10, 5, 8, tzinfo=UTC)
    assert read_moment("noon", VILNIUS) is None


def test_a_span_may_begin_before_anything_was_metered() -> None:
    start, end = instants(Span(since="1970-01-01", until="2026-10-05"), VILNIUS)
    assert (start.year, end.year) == (1969, 2026)


@pytest.mark.parametrize("zone", [VILNIUS, NEW_YORK])
@pytest.mark.parametrize("text", AT_THE_ENDS)
def test_a_time_at_the_ends_of_the_calendar_is_refused_by_name(text: str, zone: ZoneInfo) -> None:
    assert read_moment(text, zone) is None
    for span in (Span(since=text), Span(until=text)):
        with pytest.raises(Refusal) as refused:
            instants(span, zone)
        assert refused.value.code == "bad_time"


@pytest.mark.parametrize("text", AT_THE_ENDS[2:])
def test_so_is_a_time_with_its_zone(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_time(text, "--as-of")
    assert (refused.value.code, refused.value.where) == ("bad_time", "--as-of")
