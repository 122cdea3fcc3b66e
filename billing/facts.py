"""One operator's facts: every version of its nodes, customers, tariffs, contracts and shares, typed.

Facts are kept as site documents in plain form, every scalar the canonical text that `adapters.site_files`
made of the file: "0.4", "15%", "2026-10-01", "true". That form is stored as JSON, shown by `tally get` and
frozen with each close; `facts_from_documents` types it, so 0.1 goes from file to bill without ever being a
binary float.

    StoredDocument("tariff", "vilnius", "telecentras", None,
                   {"currency": "EUR", "prices": [{"models": ["*"], "input": "0.4", "output": "1.6"}]})
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, TypeVar

from billing.money import parse_amount
from billing.site import Address, Customer, Node, Operator, Party, SelfBilling, Share, SharePart
from billing.stored import StoredDocument, read_day
from billing.tariff import Contract, Tariff
from billing.tariff_facts import contract_from, read_percent, tariff_from

KINDS = ("operator", "node", "customer", "tariff", "contract", "party", "share")
"""Every kind of site document, in an order in which each comes after what it refers to (parties aside)."""

EVERYWHERE = "*"
"""The operator under which the installation's own documents (parties) are kept."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one operator's bills rest on. Versions are oldest first, as `billing.site.in_force` wants them."""

    operator: tuple[Operator, ...] = ()
    nodes: Mapping[str, tuple[Node, ...]] = field(default_factory=dict)
    customers: Mapping[str, tuple[Customer, ...]] = field(default_factory=dict)
    tariffs: Mapping[str, tuple[Tariff, ...]] = field(default_factory=dict)
    contracts: Mapping[str, tuple[Contract, ...]] = field(default_factory=dict)  # by customer
    shares: tuple[Share, ...] = ()
    parties: Mapping[str, tuple[Party, ...]] = field(default_factory=dict)
    #: Public holidays by the name of their calendar, of the years that a period needs (`billing.holiday`).
    holidays: Mapping[str, frozenset[date]] = field(default_factory=dict)
    #: What all of them were read from: a close keeps which bodies it went by (`billing.kept_facts`).
    documents: tuple[StoredDocument, ...] = field(default=(), compare=False, repr=False)


def facts_from_documents(documents: Iterable[StoredDocument]) -> Facts:
    """The facts of one operator out of its stored documents (and the installation's parties), in any order.

    A document that `adapters.site_files` would not have accepted is our own bug and shows as an assertion or
    a KeyError; nothing is checked again here.
    """
    by_kind: dict[str, dict[str, list[StoredDocument]]] = {kind: defaultdict(list) for kind in KINDS}
    stored = tuple(documents)
    for document in stored:
        by_kind[document.kind][document.id].append(document)
    operators = [version for versions in by_kind["operator"].values() for version in versions]
    assert len({document.id for document in operators}) <= 1, "facts are of one operator"
    operator = _versions(operators, _operator)

    def tariff(document: StoredDocument) -> Tariff:
        return tariff_from(document, operator[-1])

    def contract(document: StoredDocument) -> Contract:
        return contract_from(document, operator[-1].currency)

    return Facts(
        operator=operator,
        nodes=_each(by_kind["node"], _node),
        customers=_each(by_kind["customer"], _customer),
        tariffs=_each(by_kind["tariff"], tariff),
        contracts=_each(by_kind["contract"], contract),
        shares=_versions([document for each in by_kind["share"].values() for document in each], _share),
        parties=_each(by_kind["party"], _party),
        documents=stored,
    )


def tariff_in_force_at(versions: Sequence[Tariff], instant: datetime) -> Tariff | None:
    """The tariff version that holds at an aware instant; each version begins and ends at midnight of its
    own zone.
    """
    newest: Tariff | None = None
    for version in versions:
        if version.valid_from is None or version.valid_from <= instant.astimezone(version.zone).date():
            newest = version
    if newest is None or newest.valid_until is None:
        return newest
    return newest if instant.astimezone(newest.zone).date() < newest.valid_until else None


T = TypeVar("T")


def _versions(documents: Iterable[StoredDocument], read: Callable[[StoredDocument], T]) -> tuple[T, ...]:
    return tuple(
        read(document) for document in sorted(documents, key=lambda each: each.valid_from or date.min)
    )


def _each(
    documents: Mapping[str, list[StoredDocument]], read: Callable[[StoredDocument], T]
) -> dict[str, tuple[T, ...]]:
    return {identity: _versions(documents[identity], read) for identity in sorted(documents)}


def _address(body: Mapping[str, Any]) -> Address | None:
    address = body.get("address")
    return None if address is None else Address(**address)


def _operator(document: StoredDocument) -> Operator:
    body = document.body
    return Operator(
        id=document.id,
        name=body["name"],
        country=body["country"],
        currency=body["currency"],
        timezone=body["timezone"],
        vat_id=body.get("vat_id"),
        registration=body.get("registration"),
        address=_address(body),
        iban=body.get("iban"),
        bic=body.get("bic"),
        language=body.get("language", "en"),
        routing=dict(body.get("routing", {})),
        numbering=dict(body.get("numbering", {})),
        default_tariff=body.get("default_tariff"),
        payment_terms_days=int(body.get("payment_terms_days", "14")),
        smallest_document_minor=parse_amount(body.get("smallest_document", "0"), body["currency"]),
        late_days=int(body.get("late_days", "90")),
        valid_from=document.valid_from,
        valid_until=document.valid_until,
    )


def _node(document: StoredDocument) -> Node:
    return Node(
        id=document.id,
        operator=document.operator,
        region=document.body["region"],
        valid_from=document.valid_from,
        valid_until=document.valid_until,
    )


def _customer(document: StoredDocument) -> Customer:
    body = document.body
    return Customer(
        id=document.id,
        operator=document.operator,
        name=body["name"],
        country=body["country"],
        vat_id=body.get("vat_id"),
        business=body.get("business", "true" if "vat_id" in body else "false") == "true",
        public_body=body.get("public_body") == "true",
        segment=body.get("segment"),
        address=_address(body),
        email=body.get("email"),
        language=body.get("language"),
        buyer_reference=body.get("buyer_reference"),
        purchase_order=body.get("purchase_order"),
        routing=dict(body.get("routing", {})),
        valid_from=document.valid_from,
        valid_until=document.valid_until,
    )


def _party(document: StoredDocument) -> Party:
    body = document.body
    agreement = body.get("self_billing")
    return Party(
        id=document.id,
        name=body["name"],
        country=body["country"],
        vat_id=body.get("vat_id"),
        registration=body.get("registration"),
        address=_address(body),
        iban=body.get("iban"),
        bic=body.get("bic"),
        language=body.get("language"),
        routing=dict(body.get("routing", {})),
        self_billing=None if agreement is None else _self_billing(agreement),
        valid_from=document.valid_from,
        valid_until=document.valid_until,
    )


def _self_billing(agreement: Mapping[str, str]) -> SelfBilling:
    return SelfBilling(
        agreed=date.fromisoformat(agreement["agreed"]),
        valid_from=date.fromisoformat(agreement["valid_from"]),
        valid_until=read_day(agreement.get("valid_until")),
    )


def _share(document: StoredDocument) -> Share:
    return Share(
        operator=document.id,
        seller=document.body.get("seller", "operator"),
        parties=tuple(
            SharePart(part["party"], read_percent(part["percent"])) for part in document.body["parties"]
        ),
        valid_from=document.valid_from,
        valid_until=document.valid_until,
    )
