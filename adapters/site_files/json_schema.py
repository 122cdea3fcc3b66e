"""The JSON Schema (draft 2020-12) of site files, made of the tables that read them, so that the two can't drift apart.

One schema for every kind: `kind` chooses the definition. It holds for one YAML document as an editor reads it, with
YAML's numbers and truth values, or with texts as `tally get` writes them:

    # yaml-language-server: $schema=./tally.schema.json
    kind: tariff
    …

What it refuses, `tally check` refuses; the reverse is not so: sums, dates in order, references to other documents and
the like are beyond a schema.
"""

from __future__ import annotations

from typing import Any

from adapters.site_files.kinds import KINDS_BY_NAME, Kind
from adapters.site_files.legal_scalars import COUNTRY, ZONE
from adapters.site_files.scalars import Scalar
from adapters.site_files.schema import Either, Field, Listing, Table, Type

DRAFT = "https://json-schema.org/draft/2020-12/schema"

_SHARED = {COUNTRY.name: "country", ZONE.name: "zone"}
"""Long lists, which stand in the schema once."""


def site_file_schema() -> dict[str, Any]:
    """The whole schema, as JSON takes it."""
    return {
        "$schema": DRAFT,
        "title": "Tallygrid site files",
        "description": "One document of a site file: `tally apply`, docs/site-files.md.",
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(KINDS_BY_NAME), "description": "What the document declares."}},
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": name}}, "required": ["kind"]},
                "then": {"$ref": f"#/$defs/{name}"},
            }
            for name in KINDS_BY_NAME
        ],
        "$defs": {
            **{name: _of_kind(kind) for name, kind in KINDS_BY_NAME.items()},
            **{_SHARED[scalar.name]: dict(scalar.schema) for scalar in (COUNTRY, ZONE)},
        },
    }


def _of_kind(kind: Kind) -> dict[str, Any]:
    return {"description": kind.about, **_of_type(kind.table)}


def _of_field(field: Field) -> dict[str, Any]:
    schema = _of_type(field.type)
    allowed = field.type.allowed if isinstance(field.type, Scalar) else ""
    about = " ".join(each for each in (field.about, f"Allowed: {allowed}." if allowed else "") if each)
    if about:
        schema = {"description": about, **schema}
    if field.examples:
        schema["examples"] = list(field.examples)
    return schema


def _of_type(expected: Type) -> dict[str, Any]:
    match expected:
        case Scalar():
            shared = _SHARED.get(expected.name)
            return {"$ref": f"#/$defs/{shared}"} if shared else dict(expected.schema)
        case Listing():
            return {"type": "array", "items": _of_type(expected.item), "minItems": 1}
        case Either():
            either: dict[str, Any] = {"anyOf": [_of_type(expected.scalar), _of_type(expected.table)]}
            return {**either, "examples": list(expected.examples)} if expected.examples else either
        case Table():
            required = [key for key, field in expected.fields.items() if field.required]
            return {
                "type": "object",
                "properties": {key: _of_field(field) for key, field in expected.fields.items()},
                **({"required": required} if required else {}),
                "additionalProperties": False,
                **expected.schema,
            }
