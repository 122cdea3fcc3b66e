"""The second half of reconciliation: what was rated at the close, what usage rates to now, what stands on paper."""

from __future__ import annotations

from small_books import NOW, OCTOBER, OPERATOR, add_usage, books_with, close, credit, event, run

from billing.rated_now import RatedPeriod, invoiced_tokens, summed
from billing.rating import rate


def rated_period(books: object, at_close: dict[str, int] | None) -> RatedPeriod:
    book = books.books[OPERATOR]  # type: ignore[attr-defined]  # a twin of the tests
    now = rate(book.rows, book.stated, OCTOBER).tokens
    papers = invoiced_tokens(book.papers.values())
    return RatedPeriod(OPERATOR, OCTOBER, None if at_close is None else NOW, at_close, now, papers)


def test_after_a_close_with_issue_all_three_are_equal() -> None:
    books = books_with(event(100, cached_tokens=30), event(3, customer="beta", completion_tokens=5))
    found = rated_period(books, close(books, issue=True)["rated"])
    assert found.differences == {}
    assert found.rated == found.now == found.invoiced
    assert found.rated["input"] + found.rated["cached_input"] == 103


def test_usage_since_the_close_is_a_difference_by_meter_until_the_next_one() -> None:
    books = books_with(event(100))
    at_close = close(books, issue=True)["rated"]
    add_usage(books, event(100), event(7, day=6, completion_tokens=2))
    assert rated_period(books, at_close).differences == {"input": (100, 107), "output": (0, 2)}
    found = rated_period(books, close(books)["rated"])
    assert (found.differences, found.rated["input"], found.invoiced["input"]) == ({}, 107, 100)


def test_a_period_that_was_never_closed_has_no_difference_and_says_what_would_be_rated() -> None:
    found = rated_period(books_with(event(100)), None)
    assert (found.differences, found.rated["input"], found.invoiced["input"]) == ({}, 100, 0)


def test_a_credit_note_over_all_of_an_invoice_takes_its_tokens_back() -> None:
    books = books_with(event(100))
    [issued] = close(books, issue=True)["issued"]
    add_usage(books)
    close(books, issue=True)
    assert invoiced_tokens(books.books[OPERATOR].papers.values())["input"] == 0
    books = books_with(event(100))
    [issued] = close(books, issue=True)["issued"]
    run(credit(books, issued["id"], 500))
    assert invoiced_tokens(books.books[OPERATOR].papers.values())["input"] == 100, "goodwill is no usage"


def test_periods_sum_by_meter() -> None:
    assert summed([{"input": 1, "output": 2}, {"input": 3}]) == {"input": 4, "output": 2}
    assert summed([]) == {}
