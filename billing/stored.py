"""A site document as it is stored: one version of one declared thing, every scalar canonical text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """One version of one declared thing. A contract's id is its customer, a share's its operator.

    `body` holds the file's other keys but `valid_from`, canonical text throughout; maps and lists as they
    stood.
    """

    kind: str
    id: str
    operator: str
    valid_from: date | None
    body: Mapping[str, Any]

    @property
    def valid_until(self) -> date | None:
        return read_day(self.body.get("valid_until"))


def read_day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)
