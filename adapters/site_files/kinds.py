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
    about: str

    @property
    def outside_body(self) -> frozenset[str]:
        """Keys that are columns of their own where documents are stored, not part of the body."""
        owner = {"operator"} if self.owned else set()
        return frozenset({"kind", self.identity, "valid_from"} | owner)


# -- parts that several kinds have
# ------------------------------------------------------------------------------------


_VERSION = {
    "valid_from": Field(
        DAY, "The local day on which this version begins; absent: from ever, or from tomorrow."
    ),
    "valid_until": Field(DAY, "The local day on which it ends, exclusive."),
    "supersedes": Field(SUPERSEDES, "The version whose place this one takes."),
    "reason": Field(TEXT, "Why that version is superseded; it is kept."),
}
_ADDRESS = Table(
    {
        "street": Field(TEXT, "Street and number."),
        "city": Field(TEXT, "City."),
        "postcode": Field(TEXT, "Postcode."),
        "country": Field(COUNTRY),
    }
)
_ROUTING = Table(
    {
        "peppol": Field(TEXT, "Peppol participant, scheme and id.", examples=("9937:100001234510",)),
        "sdi": Field(TEXT, "Italian SDI code."),
        "finvoice": Field(TEXT, "Finvoice address."),
    }
)
_LEGAL_ENTITY = {
    "name": Field(TEXT, "As printed on documents.", required=True),
    "country": Field(COUNTRY, "Where it is registered.", required=True),
    "vat_id": Field(VAT_ID, "Absent: it has none.", examples=("LT100001234510",)),
    "registration": Field(TEXT, "Number in the register of companies."),
    "address": Field(_ADDRESS, "As printed on documents."),
    "iban": Field(IBAN, "Its account."),
    "bic": Field(BIC),
    "language": Field(LANGUAGE, "Of its documents.", examples=("lt",)),
    "routing": Field(_ROUTING, "Electronic addresses."),
}
_OWNER = Field(ID, "The operator that it belongs to.", required=True)


def _kind(
    name: str,
    about: str,
    head: Mapping[str, Field],
    fields: Mapping[str, Field],
    check: Any = check_version,
) -> Kind:
    """`head`: the key that names it, and `operator` where it is owned."""
    said = Scalar("the kind", name, lambda text: text, {"const": name})
    identity, *owner = head
    table = Table({"kind": Field(said, about, required=True), **head, **fields, **_VERSION}, check)
    return Kind(name, identity, bool(owner), table, about)


OPERATOR = _kind(
    "operator",
    "A legal entity that owns nodes and sells their tokens.",
    {"id": Field(ID, "Of the operator.", required=True)},
    {
        **_LEGAL_ENTITY,
        "currency": Field(CURRENCY, "Of its prices and documents; never changes.", required=True),
        "timezone": Field(ZONE, "In which its days and months begin; never changes.", required=True),
        "numbering": Field(
            Table(
                {
                    "invoice": Field(NUMBERING, "Of invoices.", examples=("TLC-{yyyy}-{n:06}",)),
                    "credit_note": Field(NUMBERING, "Of credit notes.", examples=("TLCK-{yyyy}-{n:06}",)),
                    "self_billed_invoice": Field(NUMBERING, "Of self-billed invoices."),
                    "self_billed_credit_note": Field(NUMBERING, "Of self-billed credit notes."),
                    "start": Field(FIRST_NUMBER, "The first n of each kind in the first year here."),
                },
                check_numbering,
            ),
            "How documents are numbered.",
        ),
        "default_tariff": Field(ID, "Of customers without a contract."),
        "payment_terms_days": Field(DAYS, "Days from issue to due date; default 14."),
        "smallest_document": Field(AMOUNT, "A smaller |net| waits for a later close of the period."),
        "late_days": Field(
            DAYS, "Usage accepted later than this after the period's first issue is not billed."
        ),
    },
    check_operator,
)
NODE = _kind(
    "node",
    "One engine at a site.",
    {"id": Field(ID, "Of the node.", required=True), "operator": _OWNER},
    {"region": Field(REGION, "What regions of price rows match.", required=True, examples=("LT-VL",))},
)
CUSTOMER = _kind(
    "customer",
    "Whoever is billed.",
    {"id": Field(ID, "Unique in the installation.", required=True), "operator": _OWNER},
    {
        "name": Field(TEXT, "As printed on documents.", required=True),
        "country": Field(COUNTRY, "Where it is.", required=True),
        "vat_id": Field(VAT_ID, "Absent: a private person, or a body without one."),
        "business": Field(BOOLEAN, "Default: whether it has a vat_id."),
        "public_body": Field(BOOLEAN, "Whether it is a public body."),
        "segment": Field(SEGMENT, "What a tariff's segments match."),
        "address": Field(_ADDRESS, "As printed on documents."),
        "email": Field(EMAIL, "Kept; nothing is sent."),
        "language": Field(LANGUAGE, "Of its documents."),
        "buyer_reference": Field(TEXT, "Printed on its documents (EN 16931 BT-10)."),
        "purchase_order": Field(TEXT, "Printed on its documents (BT-13)."),
        "routing": Field(_ROUTING, "Electronic addresses."),
    },
)
TARIFF = _kind(
    "tariff",
    "A price list of an operator.",
    {"id": Field(ID, "Of the tariff.", required=True), "operator": _OWNER},
    {
        "currency": Field(CURRENCY, "The operator's.", required=True),
        "timezone": Field(ZONE, "Of its days and windows; default: the operator's."),
        "bill_output": Field(
            BILLED_OUTPUT,
            "What of an answer is charged: what was delivered (default), or all that was generated.",
        ),
        **TARIFF_KEYS,
    },
    check_tariff,
)
CONTRACT = _kind(
    "contract",
    "What is agreed with one customer.",
    {"customer": Field(ID, "The customer.", required=True)},
    {"tariff": Field(ID, "The tariff that it is on.", required=True), **CONTRACT_KEYS},
)
PARTY = _kind(
    "party",
    "Who shares in revenue; belongs to no operator.",
    {"id": Field(ID, "Of the party.", required=True)},
    {
        **_LEGAL_ENTITY,
        "self_billing": Field(
            Table(
                {
                    "agreed": Field(DAY, "When it was agreed.", required=True),
                    "valid_from": Field(DAY, "First day.", required=True),
                    "valid_until": Field(DAY, "Its end, exclusive."),
                },
                check_days,
            ),
            "An agreement by which its invoices are made for it.",
        ),
    },
)
SHARE = _kind(
    "share",
    "Who gets what of an operator's net revenue; the operator keeps the rest.",
    {"operator": Field(ID, "Whose revenue.", required=True)},
    {
        "seller": Field(SELLER, "Who invoices customers; default operator."),
        "parties": Field(
            Listing(
                Table(
                    {
                        "party": Field(ID, "Its id.", required=True),
                        "percent": Field(PERCENT, "Of the net revenue.", required=True),
                    }
                ),
                "party",
                check_parts,
                "write who shares: [{party: embedded-llm, percent: 12%}]; without a share the operator keeps all",
            ),
            "Together at most 100%.",
            required=True,
        ),
    },
)

KINDS_BY_NAME = {kind.name: kind for kind in (OPERATOR, NODE, CUSTOMER, TARIFF, CONTRACT, PARTY, SHARE)}
