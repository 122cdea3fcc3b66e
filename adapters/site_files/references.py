"""Rules between documents: references to what is declared, and agreement of what belongs together.

They look at the files beside what is stored, as the whole will stand once applied. A document that was
refused for its own faults still counts as declared, so that one mistake is not listed twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date

from adapters.site_files.reading import SiteDocument
from adapters.site_files.schema import allowed_words, near_miss
from adapters.site_files.tariff_references import check_amounts, check_once_fees
from adapters.site_files.versions import Identity, Placed, begin, end, identity_of, merged, shown, timelines
from billing.stored import StoredDocument
from billing.tariff import METERS, PriceRow, hidden_row
from billing.tariff_facts import price_rows
from metering.refusal import Fault

FIXED_FOR_EVER = ("timezone", "country", "currency")

NEAR_MISSES = 20
"""Undeclared ids for which a similar one is looked for: each is held against every declared one, so that the
time would go with the square of a file of ten thousand mistakes.
"""


class Declared:
    """Which ids there are, per kind, with the operators that they belong to."""

    def __init__(self, documents: Sequence[SiteDocument], stored: Sequence[StoredDocument]) -> None:
        self._owners: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for version in stored:
            self._owners[version.kind][version.id].add(version.operator)
        for document in documents:
            self._owners[document.kind][document.id].add(document.operator)
        self._ids: dict[tuple[str, str | None], list[str]] = {}
        self._remedies: dict[tuple[str, str | None, str], str] = {}

    def owners(self, kind: str, identity: str) -> frozenset[str]:
        return frozenset(self._owners[kind].get(identity, ()))

    def remedy(self, kind: str, operator: str | None, identity: str) -> str:
        """What to do about an id that is not declared (of `operator`, where that matters); the first NEAR_MISSES of
        them are told which one is meant perhaps.
        """
        known = self._known(kind, operator)
        if not known:
            return f"declare it: kind: {kind}"
        asked = (kind, operator, identity)
        if asked not in self._remedies:
            if len(self._remedies) == NEAR_MISSES:
                return allowed_words(known)
            self._remedies[asked] = near_miss(identity, known)
        return self._remedies[asked]

    def _known(self, kind: str, operator: str | None) -> list[str]:
        if (kind, operator) not in self._ids:
            self._ids[kind, operator] = sorted(
                identity
                for identity, owners in self._owners[kind].items()
                if operator is None or operator in owners
            )
        return self._ids[kind, operator]


def check_references(
    documents: Sequence[SiteDocument],
    placed: Sequence[Placed],
    stored: Sequence[StoredDocument],
    faults: list[Fault],
) -> None:
    """Add a fault for each reference to something undeclared and each disagreement between documents."""
    declared = Declared(documents, stored)
    operators = _operators(documents, stored)
    for document in documents:
        _check_one(document, declared, operators, faults)
    _check_contract_rows(placed, stored, faults)
    check_once_fees(placed, faults)


def _check_one(
    document: SiteDocument,
    declared: Declared,
    operators: Mapping[str, Sequence[tuple[str, Mapping[str, str]]]],
    faults: list[Fault],
) -> None:
    body = document.body
    match document.kind:
        case "operator":
            _check_fixed(document, operators[document.id], faults)
            _check_apart(document, "party", declared, faults)
            if "default_tariff" in body:
                _refer(
                    document,
                    ("default_tariff",),
                    "tariff",
                    body["default_tariff"],
                    document.id,
                    declared,
                    faults,
                )
        case "node":
            _refer(document, ("operator",), "operator", document.operator, None, declared, faults)
        case "customer":
            _refer(document, ("operator",), "operator", document.operator, None, declared, faults)
            others = sorted(declared.owners("customer", document.id) - {document.operator})
            if others:
                what = f"customer {document.id} belongs to operator {others[0]}"
                remedy = "ids of customers are unique in an installation: take another id"
                faults.append(Fault(what, document.place("id"), remedy))
        case "tariff":
            _refer(document, ("operator",), "operator", document.operator, None, declared, faults)
            for _, operator in operators.get(document.operator, ())[:1]:
                own, theirs = body.get("currency"), operator.get("currency")
                if own and theirs and own != theirs:
                    what = f"currency: {own} is not the operator's"
                    faults.append(Fault(what, document.place("currency"), f"allowed: {theirs}"))
        case "contract":
            _refer(document, ("customer",), "customer", document.id, None, declared, faults)
            for operator_id in sorted(declared.owners("customer", document.id))[:1]:
                if "tariff" in body:
                    _refer(document, ("tariff",), "tariff", body["tariff"], operator_id, declared, faults)
                for _, operator in operators.get(operator_id, ())[:1]:
                    check_amounts(document, operator, faults)
        case "party":
            _check_apart(document, "operator", declared, faults)
        case "share":
            _refer(document, ("operator",), "operator", document.id, None, declared, faults)
            for at, part in enumerate(body.get("parties", ())):
                if "party" in part:
                    place = ("parties", at, "party")
                    _refer(document, place, "party", part["party"], None, declared, faults)


def _refer(
    document: SiteDocument,
    path: tuple[str | int, ...],
    kind: str,
    identity: str,
    operator: str | None,
    declared: Declared,
    faults: list[Fault],
) -> None:
    """A fault unless `identity` is declared as a `kind` (of `operator`, where that matters)."""
    owners = declared.owners(kind, identity)
    if owners and (operator is None or operator in owners):
        return
    key = next(step for step in reversed(path) if isinstance(step, str))
    what = f"{key}: {kind} {identity} is not declared"
    if owners:
        what = f"{key}: {kind} {identity} belongs to operator {min(owners)}, not to {operator}"
    faults.append(Fault(what, document.place(*path), declared.remedy(kind, operator, identity)))


def _check_apart(document: SiteDocument, other: str, declared: Declared, faults: list[Fault]) -> None:
    """Operators and parties stand side by side in a settlement, told apart by their ids."""
    if declared.owners(other, document.id):
        article = "an" if other == "operator" else "a"
        what = f"{document.kind} {document.id} has the id of {article} {other}"
        remedy = "take another id; an operator keeps what its parties leave, without a share of its own"
        faults.append(Fault(what, document.place("id"), remedy))


def _operators(
    documents: Sequence[SiteDocument], stored: Sequence[StoredDocument]
) -> dict[str, list[tuple[str, Mapping[str, str]]]]:
    """Each operator's versions, stored ones first, as (where it is stated, body)."""
    found: dict[str, list[tuple[str, Mapping[str, str]]]] = defaultdict(list)
    for version in stored:
        if version.kind == "operator":
            found[version.id].append(("what is applied already", version.body))
    for document in documents:
        if document.kind == "operator":
            found[document.id].append((document.where, document.body))
    return found


def _check_fixed(
    document: SiteDocument, versions: Sequence[tuple[str, Mapping[str, str]]], faults: list[Fault]
) -> None:
    first_where, first = versions[0]
    for key in FIXED_FOR_EVER:
        own, before = document.body.get(key), first.get(key)
        if own and before and own != before:
            what = f"{key}: {own} differs from {before} ({first_where})"
            remedy = f"an operator's {key} never changes: keep {before}, or declare another operator"
            faults.append(Fault(what, document.place(key), remedy))


def _check_contract_rows(
    placed: Sequence[Placed], stored: Sequence[StoredDocument], faults: list[Fault]
) -> None:
    """A contract's row hides the first tariff row whose glob matches its own glob's text, and must price
    every meter that this one prices, unless it says `only: true`. Asked of every pair of versions that hold
    at the same time. Each version is parsed once, however many contracts are on a tariff."""
    known = timelines(merged(placed, stored))
    parsed: dict[tuple[Identity, date | None], tuple[PriceRow, ...]] = {}

    def rows(version: StoredDocument) -> tuple[PriceRow, ...]:
        key = identity_of(version), version.valid_from
        if key not in parsed:
            parsed[key] = price_rows(version.body)
        return parsed[key]

    in_files = {(identity_of(each.version), each.version.valid_from): each.document for each in placed}
    for (operator, kind, _), contracts in known.items():
        for contract in contracts if kind == "contract" else ():
            if not contract.body.get("prices"):
                continue
            tariffs = known.get((operator, "tariff", contract.body["tariff"]), [])
            for tariff in tariffs:
                documents = [
                    in_files.get((identity_of(version), version.valid_from)) for version in (contract, tariff)
                ]
                begins = max(begin(contract), begin(tariff))
                if any(documents) and begins < min(end(contract, contracts), end(tariff, tariffs)):
                    _check_pair((contract, rows(contract)), (tariff, rows(tariff)), documents, faults)


def _check_pair(
    priced_contract: tuple[StoredDocument, tuple[PriceRow, ...]],
    priced_tariff: tuple[StoredDocument, tuple[PriceRow, ...]],
    documents: Sequence[SiteDocument | None],
    faults: list[Fault],
) -> None:
    (contract, contract_rows), (tariff, tariff_rows) = priced_contract, priced_tariff
    of_contract, of_tariff = documents
    for at, row in enumerate(contract_rows):
        for glob in () if row.only else row.models:
            hidden = hidden_row(tariff_rows, glob)
            lacking = [] if hidden is None else _lacking(row, hidden)
            if not lacking or hidden is None:
                continue
            number = tariff_rows.index(hidden) + 1
            what = (
                f"row {at + 1} of {shown(contract)} hides row {number} of {shown(tariff)} for {glob}, "
                f"but has no price for {', '.join(lacking)}"
            )
            if of_contract is not None:
                where = of_contract.place("prices", at)
            else:
                assert of_tariff is not None, "one of the two is in the files"
                where = of_tariff.place("prices", number - 1)
            faults.append(Fault(what, where, "price these meters in the contract's row, or say `only: true`"))


def _lacking(row: PriceRow, hidden: PriceRow) -> list[str]:
    return [meter for meter in METERS if meter in hidden.prices and meter not in row.prices]
