"""The second half of reconciliation: what was rated at the close, what usage rates to now, what stands on paper."""

from __future__ import annotations

from books_in_memory import BookInMemory, BooksInMemory
from small_books import BASE, NOW, OCTOBER, OPERATOR, add_usage, books_with, close, credit, event, run
from usage_cells import site_facts, usage_table

from billing.rated_now import Arrived, RatedPeriod, invoiced_tokens, summed
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


def test_usage_that_changed_since_the_close_is_a_difference_by_meter_until_the_next_one() -> None:
    books = books_with(event(100))
    at_close = close(books, issue=True)["rated"]
    add_usage(books, event(100), event(7, day=6, completion_tokens=2))
    assert rated_period(books, at_close).differences == {"input": (100, 107), "output": (0, 2)}
    found = rated_period(books, close(books)["rated"])
    assert (found.differences, found.rated["input"], found.invoiced["input"]) == ({}, 107, 100)


def test_what_batches_brought_since_is_not_billed_yet_and_anything_beyond_it_is_a_difference() -> None:
    def period(now: dict[str, int], **arrived: tuple[int, int]) -> RatedPeriod:
        before = {"input": 100, "cached_input": 10, "output": 5}
        return RatedPeriod(OPERATOR, OCTOBER, NOW, before, {**before, **now}, {}, Arrived(**arrived))

    late = period({"input": 107, "output": 7}, prompt=(0, 7), completion=(0, 2))
    assert (late.differences, late.not_billed_yet) == ({}, {"input": (100, 107), "output": (5, 7)})
    taken_back = period({"input": 90}, prompt=(-10, 0))
    assert (taken_back.differences, taken_back.not_billed_yet) == ({}, {"input": (100, 90)})
    for changed in (
        period({"input": 108}, prompt=(0, 7)),
        period({"input": 99}, prompt=(0, 7)),
        period({"input": 105, "cached_input": 15}, prompt=(0, 7)),
        period({"input": 95, "cached_input": 15}, prompt=(0, 7)),
        period({"input": 107, "output": 6}, prompt=(0, 7)),
    ):
        assert (changed.differences != {}, changed.not_billed_yet) == (True, {})


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


def test_tokens_within_a_package_that_was_asked_for_are_invoiced_and_free_ones_too() -> None:
    tariff = (
        "kind: tariff\nid: vilnius\noperator: telecentras\ncurrency: EUR\nincluded: {input: 10}\nprices:\n"
    )
    rows = '  - {models: ["*"], input: {package: {size: 100, price: 10.00}}, output: {package: {size: 10, price: 1}}}\n'
    books = BooksInMemory(
        {OPERATOR: BookInMemory(site_facts(BASE + tariff + rows), usage_table([event(150)]))}
    )
    close(books, issue=True)
    papers = list(books.books[OPERATOR].papers.values())
    assert [(each.line.unit, each.line.quantity, each.line.tokens) for each in papers[0].lines] == [
        ("token", 10, 10),
        ("package", 2, 140),
    ]
    assert invoiced_tokens(papers)["input"] == 150
    add_usage(books, event(150), event(30, day=6), event(5, customer="beta", completion_tokens=1))
    assert [each["customer"] for each in close(books, issue=True)["issued"]] == ["beta"]
    book = books.books[OPERATOR]
    rated = rate(book.rows, book.stated, OCTOBER)
    assert invoiced_tokens(book.papers.values())["input"] == 155, "no line names the 30"
    assert invoiced_tokens(book.papers.values(), rated.lines) == dict(rated.tokens)
