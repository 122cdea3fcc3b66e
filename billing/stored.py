"""A site document as it is stored: one version of one declared thing, every scalar canonical text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """One version of one declared thing. A contract's id is its customer, a share's its operator.

    `body` holds the file's other keys but `valid_from`, canonical text throughout; maps and lists as they
    stood. `places` says where they stood when the version was applied: path -> `file:line`, "" for the document
    itself, `minimum`, `prices.1`, `windows.2.factor` (from 1). No part of what the version says.
    """

    kind: str
    id: str
    operator: str
    valid_from: date | None
    body: Mapping[str, Any]
    places: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def valid_until(self) -> date | None:
        return read_day(self.body.get("valid_until"))


def read_day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)
