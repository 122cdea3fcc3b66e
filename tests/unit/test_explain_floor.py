"""`invoice explain` of a floor: where its minimum is stated."""

from __future__ import annotations

from priced_month import USED, WITHOUT_FLOOR, month

from reports.explain import WHOLE_DOCUMENT


def test_a_floor_names_the_tariff_that_states_it_though_nothing_was_used_on_its_days() -> None:
    site = WITHOUT_FLOOR.split("---\nkind: contract")[0]
    later = (
        site[site.index("kind: tariff") :]
        .split("\n---")[0]
        .replace("id: vilnius\n", "id: vilnius\nvalid_from: 2026-10-16\nminimum: 1000.00\n")
    )
    books = month(USED[:1], f"{site}\n---\n{later}\n")
    assert books.explained(books.close())[WHOLE_DOCUMENT]["floor"][0] == (
        "file unknown, tariff vilnius@2026-10-16: minimum 0.00 on 15 days, minimum 1000.00 on 16 days;"
        " a day's average, rounded"
    )
