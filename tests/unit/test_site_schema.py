"""The published JSON Schema takes what `tally check` takes, refuses what is built wrong, and says what each key means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from adapters.site_files.json_schema import site_file_schema
from adapters.site_files.kinds import KINDS_BY_NAME

ROOT = Path(__file__).parents[2]
SCHEMA = site_file_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FILES = [
    *sorted((ROOT / "examples" / "vilnius").glob("*.yaml")),
    *sorted((ROOT / "tests" / "vectors" / "rating").glob("*.yaml")),
    ROOT / "docs" / "site-files.md",
]


class _Editor(yaml.SafeLoader):
    """YAML 1.2 as editors read it: NO is a word, a day is a text, 0.40 is a number."""


_Editor.yaml_implicit_resolvers = {}
for tag, expression, first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Editor.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{expression})$"), list(first))


def documents(file: Path) -> list[Any]:
    """The YAML documents of a site file, of the accepted examples of a page, or in a vector of rating."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        text = "---\n".join(re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[:-1])
    found = [each for each in yaml.load_all(text, Loader=_Editor) if each]
    return [each for one in found for each in _sites(one)]


def _sites(document: Any) -> list[Any]:
    """A document itself, or the site documents which a vector holds as text, at its beginning and in its steps."""
    if "kind" in document:
        return [document]
    texts = [document["site"]] if "site" in document else []
    texts += [step["site"] for step in document.get("steps", ()) if "site" in step]
    return [each for text in texts for each in yaml.load_all(text, Loader=_Editor) if each]


def refused(text: str) -> bool:
    return any(
        True for document in yaml.load_all(text, Loader=_Editor) for _ in VALIDATOR.iter_errors(document)
    )


def test_it_is_a_schema_of_the_draft_that_it_names() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_accepted_fits_the_schema_as_an_editor_reads_it(file: Path) -> None:
    for document in documents(file):
        VALIDATOR.validate(document)


TARIFF = """\
kind: tariff
id: t
operator: o
currency: EUR
prices:
  - models: ["*"]
    input: 0.40
    output: {volume: [{up_to: 5, price: 1}, {price: 0.5}]}
windows: [{name: night, hours: 22:00-06:00, factor: 0.5}]
"""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("kind: tariff", "kind: tarif"),
        ("kind: tariff", "knd: tariff"),
        ("currency: EUR", "currency: euro"),
        ("currency: EUR", "curency: EUR"),
        ("operator: o\n", ""),
        ("id: t", "id: [t]"),
        ("input: 0.40", "input: 0,40"),
        ("input: 0.40", "input: -0.40"),
        ("input: 0.40", "inptu: 0.40"),
        ("input: 0.40", "input: {}"),
        ('["*"]', '"*"'),
        ('["*"]', "[]"),
        ("volume", "volumes"),
        ("{volume: [{up_to: 5, price: 1}, {price: 0.5}]}", "{volume: [{price: 1}], graduated: [{price: 1}]}"),
        ("up_to: 5", "up_to: 5.5"),
        (", factor: 0.5", ""),
        ("factor: 0.5", "factor: 0.5, series: a.csv, steps: [{factor: 1}]"),
        ("factor: 0.5", "series: a.csv"),
        ("factor: 0.5", "series: /a.csv, steps: [{factor: 1}]"),
        ("factor: 0.5", "series: ../a.csv, steps: [{factor: 1}]"),
        ("22:00-06:00", "22:30-06:00"),
        ("name: night", "name: base"),
    ],
)
def test_a_structural_mistake_is_marked_in_the_editor(right: str, wrong: str) -> None:
    assert not refused(TARIFF)
    assert TARIFF.count(right) == 1
    assert refused(TARIFF.replace(right, wrong))


@pytest.mark.parametrize(
    ("right", "legal"),
    [
        ("id: t", "id: true"),
        ("id: t", "id: 7"),
        ("name: night", "name: true"),
        ("windows:", "segments: {sme: 1_0%}\nwindows:"),
        ("factor: 0.5", "series: ' a.csv', steps: [{factor: 1}]"),
    ],
)
def test_what_check_takes_is_not_marked(right: str, legal: str) -> None:
    assert not refused(TARIFF.replace(right, legal, 1))


def test_every_kind_has_its_definition_and_every_key_of_it_a_text() -> None:
    assert set(KINDS_BY_NAME) <= set(SCHEMA["$defs"])
    assert [path for path, key in keys_of(SCHEMA["$defs"]) if "description" not in key] == []


def keys_of(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, list):
        for each in schema:
            yield from keys_of(each, path)
    elif isinstance(schema, dict):
        for key, value in schema.get("properties", {}).items():
            yield f"{path}.{key}", value
        for key, value in schema.items():
            if key not in ("not", "oneOf"):
                yield from keys_of(value, f"{path}.{key}")
