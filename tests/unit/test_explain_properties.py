"""Whatever was used, taken back and closed in whatever steps: every line of the newest document is worked out from its
hours and ends in its own amount, and every older one still ends in its own.
"""

from __future__ import annotations

from typing import Any

from explained import check_explained
from hypothesis import given, settings
from hypothesis import strategies as st
from priced_month import SITE, WITHOUT_FLOOR, Month, stated, used
from small_books import close
from usage_cells import usage_table

COMMON = {
    "outcome": st.sampled_from(["finished", "finished", "aborted", "failed"]),
    "prompt_tokens": st.integers(-400_000, 3_000_000),
    "completion_tokens": st.integers(-2_000_000, 40_000_000),
}
DAYS, HOURS = st.integers(1, 30), st.integers(0, 23)
CHATS = st.builds(
    used,
    DAYS,
    HOURS,
    st.sampled_from(["qwen3-32b", "qwen3-8b"]),
    cached_tokens=st.integers(0, 300_000),
    reasoning_tokens=st.integers(0, 200_000),
    **COMMON,
)
TRANSCRIPTS = st.builds(
    used, DAYS, HOURS, st.just("whisper-3"), audio_seconds=st.integers(0, 90_000), **COMMON
)
BATCHES = st.lists(st.lists(CHATS | TRANSCRIPTS, min_size=1, max_size=6), min_size=1, max_size=3)


@settings(max_examples=25)
@given(BATCHES, st.booleans(), st.booleans())
def test_every_line_ends_in_its_own_amount(
    batches: list[list[dict[str, Any]]], floor: bool, superseded: bool
) -> None:
    site = SITE if floor else WITHOUT_FLOOR
    month = Month([], site)
    for number, batch in enumerate(batches):
        month.usage += batch
        if superseded and number:
            changed = site.replace("price: 1.20", f"price: 1.2{number}")
            month.site = changed.replace("factor: 0.5", "factor: 0.45")
        facts, rows = stated(month.site), usage_table(month.usage)
        month.book.stated, month.book.rows = facts, rows
        before = set(month.book.papers)
        close(month.books, issue=True)
        for name, document in month.book.papers.items():
            check_explained(month.book, facts, rows, document, fresh=name not in before)
