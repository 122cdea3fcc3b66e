"""`tally apply`, `check`: files, beside what is stored, become versions; all of them or none.

Reading, placing and checking are pure; the store is asked once for what there is and once to save what is
new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from adapters.site_files.findings import odd_things
from adapters.site_files.issued import agreed_after_billing, changes, check_issued
from adapters.site_files.reading import SiteFiles, faults_to_json, in_order, refuse_faults
from adapters.site_files.references import check_references
from adapters.site_files.scalars import ID, WrongTextError
from adapters.site_files.schema import shorten
from adapters.site_files.store import SiteStore
from adapters.site_files.superseding import ReRate, re_rates
from adapters.site_files.versions import Placed, check_not_taken_back, place_versions, shown
from billing.stored import StoredDocument
from metering.refusal import Fault, Refusal


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did, as `kind/version` texts in file order (`tariff/vilnius@2026-10-01`), what is legal in the
    files and odd, and which closed periods are rated otherwise by their next close."""

    created: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    warnings: tuple[Fault, ...] = ()
    re_rates: tuple[ReRate, ...] = ()

    def to_json(self) -> dict[str, list[str] | list[dict[str, str]]]:
        return {
            "created": list(self.created),
            "changed": list(self.changed),
            "unchanged": list(self.unchanged),
            "warnings": faults_to_json(self.warnings),
            "re_rates": [each.to_json() for each in self.re_rates],
        }


@dataclass(frozen=True, slots=True)
class Checked:
    """What applying files would do to each version, what is legal in them and odd, and which closed periods it would
    rate otherwise."""

    placed: tuple[Placed, ...]
    warnings: tuple[Fault, ...]
    re_rates: tuple[ReRate, ...]


async def check_site(store: SiteStore, files: SiteFiles, now: datetime) -> Checked:
    """What applying `files` at the aware instant `now` would do; `bad_site_files` with every fault
    otherwise.
    """
    stored = await store.load()
    faults = list(files.faults)
    placed = place_versions(files.documents, stored, now, faults)
    if any(each.supersedes for each in placed):
        check_not_taken_back(placed, await store.load_superseded(), faults)
    check_references(files.documents, placed, stored, faults)
    concerned = {each.version.operator for each in placed if each.state != "unchanged"}
    issued = await store.issued(concerned) if concerned else {}
    check_issued(placed, stored, issued, faults)
    odd = [*odd_things(placed, stored, faults, now), *agreed_after_billing(placed, issued)]
    warnings = in_order([*files.warnings, *odd])
    refuse_faults(faults, warnings)
    days = changes(placed, stored, issued)
    closed = await store.closed({change.operator for change in days}) if days else {}
    return Checked(tuple(placed), tuple(warnings), re_rates(days, closed))


async def apply_site(store: SiteStore, files: SiteFiles, now: datetime) -> Applied:
    """Apply all of `files` or none of them. Applying them again changes nothing."""
    checked = await check_site(store, files, now)
    await store.save([each.version for each in checked.placed if each.state != "unchanged"])
    await store.save_places([each.version for each in checked.placed if each.state == "unchanged"])
    return summary(checked)


def summary(checked: Checked) -> Applied:
    def those(state: str) -> tuple[str, ...]:
        return tuple(shown(each.version) for each in checked.placed if each.state == state)

    return Applied(those("created"), those("changed"), those("unchanged"), checked.warnings, checked.re_rates)


async def add_private_customers(store: SiteStore, operator: str, ids: Sequence[str]) -> tuple[str, ...]:
    """Declare those of `ids` that nobody has declared as private customers in the operator's country.

    Returns the new ones in the order given. Refusals: `unknown_operator`; `bad_customer_ids` with a fault
    for each id that is no id, or is another operator's customer.
    """
    stored = await store.load()
    countries = [each.body["country"] for each in stored if each.kind == "operator" and each.id == operator]
    if not countries:
        raise Refusal("unknown_operator", f"no operator {operator!r}", remedy="declare it with tally apply")
    owners = {each.id: each.operator for each in stored if each.kind == "customer"}
    faults: list[Fault] = []
    new: list[StoredDocument] = []
    for identity in dict.fromkeys(ids):
        if owners.get(identity, operator) != operator:
            faults.append(Fault(f"{identity} is a customer of operator {owners[identity]}", identity))
        elif identity not in owners:
            try:
                body = {"name": ID.read(identity), "country": countries[0]}
            except WrongTextError as wrong:
                faults.append(Fault(f"{shorten(identity)} {wrong}", identity, f"allowed: {ID.allowed}"))
                continue
            new.append(StoredDocument("customer", identity, operator, None, body))
    if faults:
        what = "not every customer can be created; none was"
        raise Refusal("bad_customer_ids", what, remedy="change the ids in the file", faults=faults)
    await store.save(new)
    return tuple(each.id for each in new)
