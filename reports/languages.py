"""The languages that documents and reports are written in, and their words.

Words stand in `templates/words.yaml`, each with all languages beside one another, so that a missing one shows.
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

# English documents write days as 31 Oct 2026, for they go to readers in Europe.
_LOCALES = {"en": "en_GB", "lt": "lt"}

Words = Mapping[str, str]


def language_of(asked: str | None) -> str:
    """The language to write in for what a customer or operator asked for: one of LANGUAGES.

    >>> language_of("lt"), language_of("LT-lt"), language_of("fi"), language_of(None)
    ('lt', 'lt', 'en', 'en')
    """
    primary = (asked or ENGLISH).replace("_", "-").partition("-")[0].lower()
    return primary if primary in LANGUAGES else ENGLISH


def locale_of(language: str) -> str:
    """The Babel locale whose marks and names of months a language uses."""
    return _LOCALES[language]


def words(language: str) -> Words:
    """Every word of a language by its name in `words.yaml`."""
    return _all_words()[language]


@cache
def _all_words() -> Mapping[str, Words]:
    table: dict[str, dict[str, Any]] = yaml.safe_load(
        (files("reports.templates") / "words.yaml").read_text(encoding="utf-8")
    )
    for name, entry in table.items():
        assert tuple(entry) == LANGUAGES, f"words.yaml: {name} has {', '.join(entry)}"
        assert all(isinstance(text, str) for text in entry.values()), f"words.yaml: {name} is not text"
    return MappingProxyType(
        {
            language: MappingProxyType({name: entry[language] for name, entry in table.items()})
            for language in LANGUAGES
        }
    )
