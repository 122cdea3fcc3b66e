"""Globs, which row prices a model, and which row a contract's hides."""

from __future__ import annotations

import fnmatch
import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.tariff import Plain, PriceRow, glob_matches, hidden_row


def row(*models: str, regions: tuple[str, ...] = ()) -> PriceRow:
    return PriceRow(models, regions, {"input": Plain(Decimal(1))})


@pytest.mark.parametrize(
    ("glob", "text", "matches"),
    [
        ("qwen3-*", "qwen3-32b", True),
        ("qwen3-*", "qwen3-", True),
        ("qwen3-*", "Qwen3-32b", False),  # case counts
        ("*", "", True),
        ("a*a", "a", False),  # two letters need two
        ("a*b*c", "a-b-b-c", True),
        ("[a]?", "[a]?", True),  # only * is special
        ("[a]?", "a1", False),
        ("LT-*", "LT-VL", True),
        ("qwen", "qwen3", False),
    ],
)
def test_only_the_star_is_special_and_case_counts(glob: str, text: str, matches: bool) -> None:
    assert glob_matches(glob, text) is matches


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_a_glob_matches_as_the_standard_librarys_does(glob: str, text: str) -> None:
    assert glob_matches(glob, text) is (re.fullmatch(fnmatch.translate(glob), text) is not None)


def test_a_glob_of_many_stars_is_decided_at_once() -> None:
    assert not glob_matches("a*" * 5000 + "b", "a" * 20_000)


def test_a_row_without_regions_prices_every_region() -> None:
    assert row("*").matches("qwen3-32b", "IT-62", 0)
    assert row("*", regions=("LT-*", "LV")).matches("qwen3-32b", "LT-VL", 0)
    assert not row("*", regions=("LT-*", "LV")).matches("qwen3-32b", "IT-62", 0)


def test_a_contracts_glob_hides_the_first_row_that_matches_its_own_text() -> None:
    family, rest = row("qwen3-*", regions=("LT-*",)), row("*")
    assert hidden_row((family, rest), "qwen3-*") is family
    assert hidden_row((family, rest), "qwen3-32b") is family
    assert hidden_row((family, rest), "qwen*") is rest
    assert hidden_row((family,), "llama-*") is None
