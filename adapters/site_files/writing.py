"""`tally get`: stored documents as YAML that `apply` takes and finds unchanged.

Every scalar that another YAML reader could take for something else than text (numbers, dates, truth values
of any YAML version, `15%`) is quoted; words stand bare. Comments and layout of the applied files are not
kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC
from typing import Any

import yaml

from adapters.site_files.kinds import KINDS_BY_NAME
from adapters.site_files.schema import Either, Listing, Table, Type, near_miss
from adapters.site_files.store import SiteStore
from adapters.site_files.tariff_kinds import SERIES_PRICES
from adapters.site_files.versions import begin
from billing.facts import KINDS
from billing.stored import StoredDocument
from metering.refusal import Refusal

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./@-]*(?: [A-Za-z][A-Za-z0-9_./@-]*)*")
_RESERVED = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf"})


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # libyaml where it is there
    """Writes text only; nothing else reaches it."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature; anchors are never written
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    bare = _PLAIN.fullmatch(text) is not None and text.lower() not in _RESERVED
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if bare else '"')


class _InOneLine(list[str]):
    """A list without end (the hours of a series), which fills lines instead of having one for each item."""


def _represent_line(dumper: yaml.SafeDumper, items: _InOneLine) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(_InOneLine, _represent_line)


async def get_documents(
    store: SiteStore, kind: str | None = None, identity: str | None = None
) -> list[dict[str, Any]]:
    """Every version of the named documents in plain form, keys as files have them; kinds in the order of
    `KINDS`, then by id, oldest version first. Refusals: `unknown_kind`, `unknown_id`."""
    if kind is not None and kind not in KINDS_BY_NAME:
        raise Refusal("unknown_kind", f"{kind!r} is no kind", where=kind, remedy=near_miss(kind, list(KINDS)))
    stored = await store.load()
    chosen = [
        version for version in stored if kind in (None, version.kind) and identity in (None, version.id)
    ]
    if identity is not None and not chosen:
        known = sorted({version.id for version in stored if kind in (None, version.kind)})
        remedy = near_miss(identity, known) if known else "apply a file that declares it"
        raise Refusal("unknown_id", f"no {kind or 'document'} {identity!r}", where=identity, remedy=remedy)
    chosen.sort(key=lambda each: (KINDS.index(each.kind), each.operator, each.id, begin(each)))
    return [plain_form(version) for version in chosen]


async def get_superseded(
    store: SiteStore, kind: str | None = None, identity: str | None = None
) -> list[dict[str, Any]]:
    """Former versions of the named documents, whose place others took, in the order in which that happened:
    `{at, reason, document}`, the document in plain form. Refusals: `unknown_kind`, `unknown_id`."""
    await get_documents(store, kind, identity)
    return [
        {
            "at": f"{each.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "reason": each.reason,
            "document": plain_form(each.document),
        }
        for each in sorted(await store.load_superseded(), key=lambda each: each.at)
        if kind in (None, each.document.kind) and identity in (None, each.document.id)
    ]


def plain_form(version: StoredDocument) -> dict[str, Any]:
    """A version with its kind, ids and days; keys in the order of the kind's tables, whatever JSON made of
    it.
    """
    kind = KINDS_BY_NAME[version.kind]
    whole: dict[str, Any] = {**version.body, "kind": version.kind, kind.identity: version.id}
    if kind.owned:
        whole["operator"] = version.operator
    if version.valid_from is not None:
        whole["valid_from"] = version.valid_from.isoformat()
    ordered: dict[str, Any] = _ordered(kind.table, whole)
    return ordered


def _ordered(expected: Type, value: Any) -> Any:
    match expected, value:
        case Table(), dict():
            return {
                key: _ordered(known.type, value[key])
                for key, known in expected.fields.items()
                if key in value
            }
        case Listing(), list() if expected is SERIES_PRICES:
            return _InOneLine(value)
        case Listing(), list():
            return [_ordered(expected.item, item) for item in value]
        case Either(), dict():
            return _ordered(expected.table, value)
        case _:
            return value


def superseded_to_yaml(former: Sequence[dict[str, Any]]) -> str:
    """What `get_superseded` found, each document below a comment: `# superseded 2026-11-03T09:12:00Z: a wrong price`."""
    return "---\n".join(
        f"# superseded {each['at']}: {' '.join(each['reason'].split())}\n{to_yaml([each['document']])}"
        for each in former
    )


def to_yaml(documents: Sequence[dict[str, Any]]) -> str:
    """The documents as one YAML text."""
    return yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False
    )
