"""Who takes part: operators, their nodes and customers, the parties that share in revenue, and the shares.

These are facts as declared in site files (docs/site-files.md), typed, without I/O. Each is one
*version*: it holds from local midnight of `valid_from` (None: from ever) until the next version of that id
begins or its `valid_until`, exclusive, is reached. `in_force` is that rule, for every kind alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol, TypeVar
from zoneinfo import ZoneInfo


class Version(Protocol):
    """What every kind has: the local day from which it holds (None: ever), and the first when it doesn't."""

    @property
    def valid_from(self) -> date | None: ...
    @property
    def valid_until(self) -> date | None: ...


V = TypeVar("V", bound=Version)


def version_name(identity: str, valid_from: date | None) -> str:
    """`vilnius@2026-10-01`, or `vilnius` for a first version that holds from ever."""
    return identity if valid_from is None else f"{identity}@{valid_from.isoformat()}"


def in_force(versions: Sequence[V], day: date) -> V | None:
    """The version that holds on a local `day`: the newest that has begun, unless its `valid_until` has come.

    `versions` are of one id, oldest first. An older version never comes back when a newer one ends: a version
    ends where the next begins.
    """
    newest: V | None = None
    for version in versions:
        if version.valid_from is None or version.valid_from <= day:
            newest = version
    if newest is not None and newest.valid_until is not None and newest.valid_until <= day:
        return None
    return newest


def in_force_at(versions: Sequence[V], instant: datetime, zone: ZoneInfo) -> V | None:
    """The version that holds at an aware `instant`: they change at midnight of `zone`, so its day decides."""
    return in_force(versions, instant.astimezone(zone).date())


@dataclass(frozen=True, slots=True)
class Address:
    """A postal address as printed on documents; `country` is ISO 3166-1 alpha-2."""

    street: str = ""
    city: str = ""
    postcode: str = ""
    country: str = ""


@dataclass(frozen=True, slots=True)
class Operator:
    """A legal entity that owns nodes and sells their tokens. Zone, country and currency never change."""

    id: str
    name: str
    country: str
    currency: str
    timezone: str
    vat_id: str | None = None
    registration: str | None = None
    address: Address | None = None
    iban: str | None = None
    bic: str | None = None
    language: str = "en"
    routing: Mapping[str, str] = field(default_factory=dict)
    # Kind of document -> pattern such as "TLC-{yyyy}-{n:06}"; `start` -> the first n, as text.
    numbering: Mapping[str, str] = field(default_factory=dict)
    default_tariff: str | None = None
    payment_terms_days: int = 14
    smallest_document_minor: int = 0
    late_days: int = 90
    valid_from: date | None = None
    valid_until: date | None = None

    @property
    def version(self) -> str:
        return version_name(self.id, self.valid_from)

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


@dataclass(frozen=True, slots=True)
class Node:
    """One engine's machine at a site; `region` (for instance LT-VL) is what price rows match."""

    id: str
    operator: str
    region: str
    valid_from: date | None = None
    valid_until: date | None = None

    @property
    def version(self) -> str:
        return version_name(self.id, self.valid_from)


@dataclass(frozen=True, slots=True)
class Customer:
    """Who is billed. Without a `vat_id`: a private person, or a body without one."""

    id: str
    operator: str
    name: str
    country: str
    vat_id: str | None = None
    business: bool = False
    public_body: bool = False
    segment: str | None = None
    address: Address | None = None
    email: str | None = None
    language: str | None = None
    buyer_reference: str | None = None  # EN 16931 BT-10
    purchase_order: str | None = None  # EN 16931 BT-13
    routing: Mapping[str, str] = field(default_factory=dict)
    valid_from: date | None = None
    valid_until: date | None = None

    @property
    def version(self) -> str:
        return version_name(self.id, self.valid_from)


@dataclass(frozen=True, slots=True)
class SelfBilling:
    """The prior agreement to write a party's invoices in its name; local days, the end exclusive."""

    agreed: date
    valid_from: date
    valid_until: date | None = None


@dataclass(frozen=True, slots=True)
class Party:
    """Who shares in revenue. Parties belong to the installation, not to one operator."""

    id: str
    name: str
    country: str
    vat_id: str | None = None
    registration: str | None = None
    address: Address | None = None
    iban: str | None = None
    bic: str | None = None
    language: str | None = None
    routing: Mapping[str, str] = field(default_factory=dict)
    self_billing: SelfBilling | None = None
    valid_from: date | None = None
    valid_until: date | None = None

    @property
    def version(self) -> str:
        return version_name(self.id, self.valid_from)


@dataclass(frozen=True, slots=True)
class SharePart:
    """One party's part of an operator's net revenue, in percent points: Decimal("2.5") is 2.5 %."""

    party: str
    percent: Decimal


@dataclass(frozen=True, slots=True)
class Share:
    """Who gets what of an operator's net revenue, in the order named; percents sum to at most 100."""

    operator: str
    seller: str  # operator | platform: who invoices customers
    parties: tuple[SharePart, ...]
    valid_from: date | None = None
    valid_until: date | None = None

    @property
    def version(self) -> str:
        return version_name(self.operator, self.valid_from)
