"""A charge: one line of a bill, and the key by which two bills' lines are the same line.

Arithmetic rule 6: a line is one (tariff version, contract version, price row, model, meter, window, tier);
its amount is round(quantity × unit price ÷ price base). Rule 10 matches the lines of successive documents
by that key and the unit price.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from billing.money import format_minor

FREE = "free"
UNBILLED = "unbilled"
FEE = "fee"
"""The meter of a contract's fees; what is not a fee is a line of usage."""
BASE_WINDOW = "base"
NO_FACTOR = Decimal(1)
TOKEN_METERS = ("input", "cached_input", "output", "reasoning")
"""Meters that count tokens."""

Tier = int | str | None
"""None: a plain price; 1…n: of tiered ones; `free`: included; `unbilled`: an outcome that is not billed."""

PACKAGE_UNIT = "package"
"""What a package line's quantity counts: started packages, `tokens` beside them."""
UNITS = {
    "input": "token",
    "cached_input": "token",
    "output": "token",
    "reasoning": "token",
    "requests": "request",
    "audio_seconds": "second",
}
"""What a quantity of each meter counts."""


class LineKey(NamedTuple):
    """Rule 6's key, and the unit price beside it; decimals are equal by value: 0.4 and 0.40 are one price."""

    tariff_version: str | None
    contract_version: str | None
    price_row: str | None
    model: str | None
    meter: str
    window: str
    tier: Tier
    unit_price: Decimal
    item: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a bill. `amount` is in minor units; `tokens` is the quantity of a token meter, else 0.

    `item` is a fee's name, of two fees of one version and price too; usage has none.
    `price_row` is "tariff:1" or "contract:1", from 1 in file order. `list_price` is the price as the tariff
    states it, `unit_price` = `list_price` × `factor`, both for `price_base` units.
    """

    tariff_version: str | None
    contract_version: str | None
    price_row: str | None
    model: str | None
    meter: str
    window: str
    tier: Tier
    quantity: int
    unit: str
    price_base: int
    list_price: Decimal
    factor: Decimal
    unit_price: Decimal
    amount: int
    tokens: int
    item: str | None = None

    @property
    def key(self) -> LineKey:
        return LineKey(
            self.tariff_version,
            self.contract_version,
            self.price_row,
            self.model,
            self.meter,
            self.window,
            self.tier,
            self.unit_price,
            self.item,
        )


def item_line(
    meter: str, amount: int, currency: str, *, contract_version: str | None = None, item: str | None = None
) -> Line:
    """A fixed amount as a line: a quantity of ±1 at a price that is not negative (EN 16931 BR-27)."""
    price = Decimal(format_minor(abs(amount), currency))
    return Line(
        tariff_version=None,
        contract_version=contract_version,
        price_row=None,
        model=None,
        meter=meter,
        window=BASE_WINDOW,
        tier=None,
        quantity=-1 if amount < 0 else 1,
        unit="item",
        price_base=1,
        list_price=price,
        factor=NO_FACTOR,
        unit_price=price,
        amount=amount,
        tokens=0,
        item=item,
    )
