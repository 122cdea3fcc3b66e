"""Who stands on a page: names, addresses and legal numbers of seller and buyer, as they are printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from babel import Locale

from billing.document import Document
from billing.site import Address, Customer, Operator
from reports.languages import Words, locale_of, words


@dataclass(frozen=True, slots=True)
class PartyBlock:
    """A party as it is printed: its name, the lines of its address, and (what, value) of its numbers."""

    name: str
    address: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


def seller_block(operator: Operator, language: str) -> PartyBlock:
    """The operator as seller."""
    names = words(language)
    return PartyBlock(
        operator.name,
        address_lines(operator.address, operator.country, language),
        _facts(names, {"registration": operator.registration, "vat_id": operator.vat_id}),
    )


def buyer_block(document: Document, customer: Customer | None, language: str) -> PartyBlock:
    """The buyer under the name and VAT id that the document states; `customer` adds the address."""
    names = words(language)
    address = customer.address if customer else None
    return PartyBlock(
        document.customer_name,
        address_lines(address, document.country, language),
        _facts(names, {"vat_id": document.customer_vat_id, "customer_id": document.customer}),
    )


def address_lines(address: Address | None, country: str, language: str) -> tuple[str, ...]:
    """Street, postcode and city, and the country by its name in the language."""
    if address is None:
        return (country_name(country, language),)
    town = " ".join(part for part in (address.postcode, address.city) if part)
    named = country_name(address.country or country, language)
    return tuple(line for line in (address.street, town, named) if line)


@lru_cache(maxsize=512)
def country_name(code: str, language: str) -> str:
    """The country's name in the language; a code that Babel does not know stays as it is."""
    territories: Mapping[str, str] = Locale.parse(locale_of(language)).territories
    return territories.get(code, code)


def grouped_iban(iban: str) -> str:
    """An IBAN in groups of four, as ISO 13616 prints it."""
    plain = "".join(iban.split())
    return " ".join(plain[at : at + 4] for at in range(0, len(plain), 4))


def _facts(names: Words, values: Mapping[str, str | None]) -> tuple[tuple[str, str], ...]:
    return tuple((names[name], value) for name, value in values.items() if value)
