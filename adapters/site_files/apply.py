"""`tally apply`, `check`: files, beside what is stored, become versions; all of them or none.

Reading, placing and checking are pure; the store is asked once for what there is and once to save what is
new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from adapters.site_files.reading import SiteFiles, refuse_faults
from adapters.site_files.references import check_references
from adapters.site_files.store import SiteStore
from adapters.site_files.versions import Placed, check_issued, place_versions, shown
from billing.facts import StoredDocument


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did, as `kind/version` texts in file order: `tariff/vilnius@2026-10-01`."""

    created: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]

    def to_json(self) -> dict[str, list[str]]:
        return {
            "created": list(self.created),
            "changed": list(self.changed),
            "unchanged": list(self.unchanged),
        }


async def check_site(store: SiteStore, files: SiteFiles, now: datetime) -> tuple[Placed, ...]:
    """What applying `files` at the aware instant `now` would do; `bad_site_files` with every fault
    otherwise.
    """
    stored = await store.load()
    faults = list(files.faults)
    placed = place_versions(files.documents, stored, now, faults)
    check_references(files.documents, placed, stored, faults)
    check_issued(placed, stored, await store.issued(), faults)
    refuse_faults(faults)
    return tuple(placed)


async def apply_site(store: SiteStore, files: SiteFiles, now: datetime) -> Applied:
    """Apply all of `files` or none of them. Applying them again changes nothing."""
    placed = await check_site(store, files, now)
    await store.save([each.version for each in placed if each.state != "unchanged"])
    return summary(placed)


def summary(placed: Sequence[Placed]) -> Applied:
    def those(state: str) -> tuple[str, ...]:
        return tuple(shown(each.version) for each in placed if each.state == state)

    return Applied(those("created"), those("changed"), those("unchanged"))


def private_customer(identity: str, operator: str, country: str) -> StoredDocument:
    """The customer that an import makes for an id nobody declared: private, in the operator's country."""
    return StoredDocument("customer", identity, operator, None, {"name": identity, "country": country})
