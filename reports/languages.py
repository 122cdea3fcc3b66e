"""The languages that documents and reports are written in, and their words.

Words stand in `templates/words.yaml`, each with all languages beside one another, so that a missing one shows; the
public price sheet's, which has more languages, in `templates/price_sheet.yaml`.
A language is asked for by its code (`lt`, `lt-LT`); one that has no words here is answered in English.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import yaml

ENGLISH = "en"
LANGUAGES = ("en", "lt")
SHEET_LANGUAGES = ("en", "lt", "de", "it", "lv", "et", "fi", "sv")
"""Those of price sheets, which are for everybody; invoices and reports have LANGUAGES."""

# English documents write days as 31 Oct 2026, for they go to readers in Europe.
_LOCALES = {language: language for language in SHEET_LANGUAGES} | {"en": "en_GB"}

Words = Mapping[str, str]


def language_of(asked: str | None, written: tuple[str, ...] = LANGUAGES) -> str:
    """The language to write in for what a customer or operator asked for: one of `written`.

    >>> language_of("lt"), language_of("LT-lt"), language_of("fi"), language_of(None)
    ('lt', 'lt', 'en', 'en')
    """
    primary = (asked or ENGLISH).replace("_", "-").partition("-")[0].lower()
    return primary if primary in written else ENGLISH


def locale_of(language: str) -> str:
    """The Babel locale whose marks and names of months a language uses."""
    return _LOCALES[language]


def words(language: str) -> Words:
    """Every word of a language by its name in `words.yaml`."""
    return _all_words("words.yaml", LANGUAGES)[language]


def sheet_words(language: str) -> Words:
    """Every word of the price sheet in one of SHEET_LANGUAGES, by its name in `price_sheet.yaml`."""
    return _all_words("price_sheet.yaml", SHEET_LANGUAGES)[language]


@cache
def _all_words(file: str, languages: tuple[str, ...]) -> Mapping[str, Words]:
    table: dict[str, dict[str, Any]] = yaml.safe_load(
        (files("reports.templates") / file).read_text(encoding="utf-8")
    )
    for name, entry in table.items():
        assert tuple(entry) == languages, f"{file}: {name} has {', '.join(entry)}"
        assert all(isinstance(text, str) for text in entry.values()), f"{file}: {name} is not text"
    return MappingProxyType(
        {
            language: MappingProxyType({name: entry[language] for name, entry in table.items()})
            for language in languages
        }
    )
