"""Where applied site documents are kept, as a small port, and its twin in memory.

One `SiteStore` is one database transaction over the whole installation: what `load` returned holds until the
transaction ends (no other apply runs beside it), and what `save` wrote is visible to nobody before its end.
`adapters.postgres.site` is the real one; both pass `tests/integration/test_site_store.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Protocol

from billing.period import Period
from billing.stored import StoredDocument


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose documents were issued: (operator, kind, id) of a site document, whichever version."""

    operator: str
    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class Span:
    """Local days [first, end) that issued documents of a subject speak about: from the first day of the first
    billing period to the last period's end, or the day after it was last issued if that is earlier."""

    first: date
    end: date


@dataclass(frozen=True, slots=True)
class Superseded:
    """A version as it stood until another took its place, when that was (an aware instant), and why."""

    document: StoredDocument
    at: datetime
    reason: str


class SiteStore(Protocol):
    """The installation's site documents, all operators' and the installation's own."""

    async def load(self) -> Sequence[StoredDocument]:
        """Every stored version, and the right to be the only apply until the transaction ends."""
        ...

    async def load_superseded(self) -> Sequence[Superseded]:
        """Every version whose place another took, each operator's in the order in which that happened."""
        ...

    async def issued(self, concerned: Collection[str]) -> Mapping[Subject, Span]:
        """Subjects that issued documents of these operators rest on, with the days: what these used can't be
        changed any more. `*` among them stands for all operators.

        Until the transaction ends nobody else issues or settles for them. Nodes are not among the subjects; they
        go by their operator.
        """
        ...

    async def closed(self, operators: Collection[str]) -> Mapping[str, Sequence[Period]]:
        """Each operator's periods that were closed at least once, oldest first."""
        ...

    async def save(self, documents: Sequence[StoredDocument]) -> None:
        """Add versions, replacing those with the same operator, kind, id and `valid_from`. What a version that
        `supersedes` replaces is kept beside it, with its reason, for ever; each correction has a reason of its own, so
        one that has its former's is that version with more hours.

        A new operator enters the registry, a new customer gets its random subject id; both keep theirs for
        ever.
        """
        ...

    async def save_places(self, documents: Sequence[StoredDocument]) -> None:
        """Keep where stored versions stand in their files now; nothing else of them changes."""
        ...


class MemorySiteStore:
    """The twin: the same promises without a database. `operators` shows what `save` registered, `superseded` what it
    kept.
    """

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str, str, date | None], StoredDocument] = {}
        self.superseded: list[Superseded] = []
        self.spans: dict[Subject, Span] = {}
        self.closes: dict[str, list[Period]] = {}

    @property
    def operators(self) -> set[str]:
        return {document.operator for document in self.documents.values() if document.kind == "operator"}

    async def load(self) -> Sequence[StoredDocument]:
        return list(self.documents.values())

    async def load_superseded(self) -> Sequence[Superseded]:
        return list(self.superseded)

    async def issued(self, concerned: Collection[str]) -> Mapping[Subject, Span]:  # noqa: ARG002 - spans are few
        return dict(self.spans)

    async def closed(self, operators: Collection[str]) -> Mapping[str, Sequence[Period]]:
        return {operator: sorted(self.closes.get(operator, ())) for operator in operators}

    async def save(self, documents: Sequence[StoredDocument]) -> None:
        for document in documents:
            key = (document.operator, document.kind, document.id, document.valid_from)
            former = self.documents.get(key)
            takes_its_place = "supersedes" in document.body
            if (
                former is not None
                and takes_its_place
                and former.body.get("reason") != document.body["reason"]
            ):
                self.superseded.append(Superseded(former, datetime.now(UTC), document.body["reason"]))
            self.documents[key] = document

    async def save_places(self, documents: Sequence[StoredDocument]) -> None:
        for document in documents:
            key = (document.operator, document.kind, document.id, document.valid_from)
            self.documents[key] = replace(self.documents[key], places=document.places)
