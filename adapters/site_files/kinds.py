"""Every kind of site document as one table of keys: what docs/site-files.md lists, in one place. The pricing
language is in `tariff_kinds`. The text beside a key is what editors show (`tally tariff schema`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.site_files.legal_scalars import (
    BIC,
    COUNTRY,
    CURRENCY,
    IBAN,
    LANGUAGE,
    NUMBERING,
    VAT_ID,
    ZONE,
)
from adapters.site_files.rules import (
    check_days,
    check_numbering,
    check_operator,
    check_parts,
    check_version,
)
from adapters.site_files.scalars import (
    AMOUNT,
    BOOLEAN,
    DAY,
    DAYS,
    EMAIL,
    FIRST_NUMBER,
    ID,
    PERCENT,
    REGION,
    SEGMENT,
    SELLER,
    TEXT,
    Scalar,
)
from adapters.site_files.schema import Field, Listing, Table
from adapters.site_files.tariff_kinds import CONTRACT_KEYS, TARIFF_KEYS
from adapters.site_files.tariff_rules import check_tariff
from adapters.site_files.tariff_scalars import BILLED_OUTPUT, SUPERSEDES


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


_VERSION = {
    "valid_from": Field(DAY, "The local day on which this version begins."),
    "valid_until": Field(DAY, "The local day on which it ends, exclusive."),
    "supersedes": Field(SUPERSEDES, "The version whose place this one takes, by its valid_from, or first."),
    "reason": Field(TEXT, "Why a version is superseded."),
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


def _kind(
    name: str, identity: str, owned: bool, fields: Mapping[str, Field], check: Any = check_version
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
        "bill_output": Field(
            BILLED_OUTPUT, "What of an answer is charged: delivered (default), or generated."
        ),
        **TARIFF_KEYS,
    },
    check_tariff,
)
CONTRACT = _kind(
    "contract",
    "customer",
    False,
    {"tariff": Field(ID, "The tariff that it is on.", required=True), **CONTRACT_KEYS},
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
