"""Every kind of site document as one table of keys: what docs/site-files.md lists, in one place.

Keys that the language has and rating has not yet are `NotRated`, so that files which use them are refused
by name instead of being billed as if they didn't.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.site_files.rules import (
    check_days,
    check_numbering,
    check_operator,
    check_outcomes,
    check_parts,
    check_pricing,
    check_row,
    check_tiers,
)
from adapters.site_files.scalars import (
    AMOUNT,
    BIC,
    BOOLEAN,
    COUNTRY,
    CURRENCY,
    DAY,
    DAYS,
    EMAIL,
    FIRST_NUMBER,
    IBAN,
    ID,
    LANGUAGE,
    MODEL_GLOB,
    NUMBERING,
    OUTCOME,
    PERCENT,
    PRICE,
    REGION,
    REGION_GLOB,
    SEGMENT,
    SELLER,
    TEXT,
    UP_TO,
    VAT_ID,
    ZONE,
    Scalar,
    WrongTextError,
)
from adapters.site_files.schema import Either, Field, Listing, NotRated, Table
from billing.tariff import METERS


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of document. `identity`: the key that names it. `owned`: it has an `operator` key beside
    that.
    """

    name: str
    identity: str
    owned: bool
    table: Table

    @property
    def outside_body(self) -> frozenset[str]:
        """Keys that are columns of their own where documents are stored, not part of the body."""
        owner = {"operator"} if self.owned else set()
        return frozenset({"kind", self.identity, "valid_from"} | owner)


# -- parts that several kinds have
# ------------------------------------------------------------------------------------


def _billed_output(text: str) -> str:
    if text == "generated":
        raise WrongTextError("is not rated yet")
    if text != "delivered":
        raise WrongTextError("is not what output is billed by")
    return text


_VERSION = {
    "valid_from": Field(DAY),
    "valid_until": Field(DAY),
    "supersedes": Field(NotRated("leave it out; let a later version follow")),
    "reason": Field(NotRated("leave it out; let a later version follow")),
}
_ADDRESS = Table(
    {"street": Field(TEXT), "city": Field(TEXT), "postcode": Field(TEXT), "country": Field(COUNTRY)}
)
_ROUTING = Table({"peppol": Field(TEXT), "sdi": Field(TEXT), "finvoice": Field(TEXT)})
_LEGAL_ENTITY = {
    "name": Field(TEXT, required=True),
    "country": Field(COUNTRY, required=True),
    "vat_id": Field(VAT_ID),
    "registration": Field(TEXT),
    "address": Field(_ADDRESS),
    "iban": Field(IBAN),
    "bic": Field(BIC),
    "language": Field(LANGUAGE),
    "routing": Field(_ROUTING),
}
_TIER = Table({"up_to": Field(UP_TO), "price": Field(PRICE, required=True)})
_PRICING = Either(
    PRICE,
    Table(
        {
            "graduated": Field(Listing(_TIER, "tier", check_tiers)),
            "volume": Field(NotRated("allowed: a price, or graduated")),
            "package": Field(NotRated("allowed: a price, or graduated")),
        },
        check_pricing,
    ),
)
_ROW = {
    "models": Field(Listing(MODEL_GLOB, "model"), required=True),
    "regions": Field(Listing(REGION_GLOB, "region")),
    "prompt_over": Field(NotRated()),
    **{meter: Field(_PRICING) for meter in METERS},
}
_TARIFF_ROWS = Listing(Table(_ROW, check_row), "price row")
_CONTRACT_ROWS = Listing(Table({**_ROW, "only": Field(BOOLEAN)}, check_row), "price row")


def _kind(
    name: str, identity: str, owned: bool, fields: Mapping[str, Field], check: Any = check_days
) -> Kind:
    said = Scalar("the kind", name, lambda text: text)
    owner = {"operator": Field(ID, required=True)} if owned else {}
    head = {"kind": Field(said), identity: Field(ID, required=True), **owner}
    return Kind(name, identity, owned, Table({**head, **fields, **_VERSION}, check))


OPERATOR = _kind(
    "operator",
    "id",
    False,
    {
        **_LEGAL_ENTITY,
        "currency": Field(CURRENCY, required=True),
        "timezone": Field(ZONE, required=True),
        "numbering": Field(
            Table(
                {
                    "invoice": Field(NUMBERING),
                    "credit_note": Field(NUMBERING),
                    "self_billed_invoice": Field(NUMBERING),
                    "self_billed_credit_note": Field(NUMBERING),
                    "start": Field(FIRST_NUMBER),
                },
                check_numbering,
            )
        ),
        "default_tariff": Field(ID),
        "payment_terms_days": Field(DAYS),
        "smallest_document": Field(AMOUNT),
        "late_days": Field(DAYS),
    },
    check_operator,
)
NODE = _kind("node", "id", True, {"region": Field(REGION, required=True)})
CUSTOMER = _kind(
    "customer",
    "id",
    True,
    {
        "name": Field(TEXT, required=True),
        "country": Field(COUNTRY, required=True),
        "vat_id": Field(VAT_ID),
        "business": Field(BOOLEAN),
        "public_body": Field(BOOLEAN),
        "segment": Field(SEGMENT),
        "address": Field(_ADDRESS),
        "email": Field(EMAIL),
        "language": Field(LANGUAGE),
        "buyer_reference": Field(TEXT),
        "purchase_order": Field(TEXT),
        "routing": Field(_ROUTING),
    },
)
TARIFF = _kind(
    "tariff",
    "id",
    True,
    {
        "currency": Field(CURRENCY, required=True),
        "timezone": Field(ZONE),
        "bill_output": Field(Scalar("what output is billed by", "delivered", _billed_output)),
        "bill_outcomes": Field(Listing(OUTCOME, "outcome", check_outcomes)),
        "prices": Field(_TARIFF_ROWS, required=True),
        "windows": Field(NotRated()),
        "holidays": Field(NotRated()),
        "segments": Field(NotRated()),
        "included": Field(NotRated()),
        "minimum": Field(NotRated()),
    },
)
CONTRACT = _kind(
    "contract",
    "customer",
    False,
    {
        "tariff": Field(ID, required=True),
        "prices": Field(_CONTRACT_ROWS),
        "discount": Field(NotRated()),
        "commitment": Field(NotRated()),
        "included": Field(NotRated()),
        "fees": Field(NotRated()),
    },
)
PARTY = _kind(
    "party",
    "id",
    False,
    {
        **_LEGAL_ENTITY,
        "self_billing": Field(
            Table(
                {
                    "agreed": Field(DAY, required=True),
                    "valid_from": Field(DAY, required=True),
                    "valid_until": Field(DAY),
                },
                check_days,
            )
        ),
    },
)
SHARE = _kind(
    "share",
    "operator",
    False,
    {
        "seller": Field(SELLER),
        "parties": Field(
            Listing(
                Table({"party": Field(ID, required=True), "percent": Field(PERCENT, required=True)}),
                "party",
                check_parts,
            ),
            required=True,
        ),
    },
)

KINDS_BY_NAME = {kind.name: kind for kind in (OPERATOR, NODE, CUSTOMER, TARIFF, CONTRACT, PARTY, SHARE)}
