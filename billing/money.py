"""Exact money: whole minor units beside a currency, decimal prices, and the one way an amount is rounded.

An amount is an `int` of the currency's minor unit (cents); a price is a `Decimal` of the major unit; what
lies between them is a `Fraction`. Nothing here makes a binary fraction, and no result depends on the decimal
context's precision: rounding and formatting work on integers. Currencies with more than two decimals are
refused, because EN 16931 amounts have at most two (BR-DEC).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from functools import lru_cache

from metering.refusal import Refusal

# ISO 4217's active codes of currencies with no decimals, and with two. Those with three or four are left out.
_WITHOUT_DECIMALS = frozenset(
    re.findall(
        "[A-Z]{3}",
        """
        BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF
        """,
    )
)
_WITH_TWO_DECIMALS = frozenset(
    re.findall(
        "[A-Z]{3}",
        """
        AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF
        CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD
        HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK
        MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD
        RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS
        UAH USD UYU UZS VES WST XCD XCG YER ZAR ZMW ZWG
        """,
    )
)
# Wide enough for every sum of documents, each of which is at most MAX_MINOR: what was written is read again.
_AMOUNT = re.compile(r"(-?)([0-9]{1,30})(?:\.([0-9]{1,2}))?")
_EXACT = Context(prec=1000, traps=[Inexact])
MAX_MINOR = 10**17
"""The most, in minor units, that any amount on a document may be; far below what the ledger's columns hold."""


def minor_digits(currency: str) -> int:
    """Decimals of `currency` (ISO 4217): 2 for EUR, 0 for ISK. Else: `unsupported_currency`."""
    if currency in _WITH_TWO_DECIMALS:
        return 2
    if currency in _WITHOUT_DECIMALS:
        return 0
    raise Refusal(
        "unsupported_currency",
        f"{currency!r} is not an ISO 4217 currency with at most two decimals",
        remedy="use a code such as EUR, SEK or ISK",
    )


def round_half_away(value: Decimal | Fraction) -> int:
    """`value`, a number of minor units, as a whole number of them; halves go away from zero.

    >>> round_half_away(Fraction(5, 2)), round_half_away(Decimal("-2.5")), round_half_away(Decimal("2.49"))
    (3, -3, 2)
    """
    return _rounded(*value.as_integer_ratio())


def _rounded(numerator: int, denominator: int) -> int:
    rounded = (2 * abs(numerator) + denominator) // (2 * denominator)
    return -rounded if numerator < 0 else rounded


def exact_minor(value: Decimal | Fraction, currency: str) -> Fraction:
    """`value` in major units as an exact number of minor units."""
    return Fraction(value) * Fraction(10 ** minor_digits(currency))


def line_amount(quantity: int, unit_price: Decimal, price_base: int, currency: str) -> int:
    """Arithmetic rule 6: round(quantity × unit price ÷ price base) in minor units."""
    numerator, denominator = minor_per_unit(unit_price, price_base, currency)
    return _rounded(quantity * numerator, denominator)


def exact_product(price: Decimal, factor: Decimal) -> Decimal:
    """price × factor with all its digits, whatever the decimal context."""
    return _EXACT.multiply(price, factor)


@lru_cache(maxsize=4096)
def minor_per_unit(unit_price: Decimal, price_base: int, currency: str) -> tuple[int, int]:
    """Minor units of one unit of a quantity, as numerator and denominator in lowest terms."""
    return exact_minor(Fraction(unit_price) * Fraction(1, price_base), currency).as_integer_ratio()


def format_minor(minor: int, currency: str) -> str:
    """The amount as text with the currency's digits: −5 cents of EUR is "-0.05", 123 ISK is "123"."""
    digits = minor_digits(currency)
    sign = "-" if minor < 0 else ""
    if digits == 0:
        return f"{sign}{abs(minor)}"
    text = str(abs(minor)).rjust(digits + 1, "0")
    return f"{sign}{text[:-digits]}.{text[-digits:]}"


def parse_amount(text: str, currency: str) -> int:
    """The minor units of an amount as a person writes it: "12", "12.3", "-0.05". Else: `bad_amount`."""
    digits = minor_digits(currency)
    match = _AMOUNT.fullmatch(text.strip())
    decimals = (match[3] or "") if match else ""
    if match is None or len(decimals) > digits:
        raise Refusal(
            "bad_amount",
            f"{text!r} is not an amount in {currency}",
            remedy=f"write a number with at most {digits} decimals, such as {format_minor(1250, currency)}",
        )
    minor = int(match[2] + decimals.ljust(digits, "0"))
    return -minor if match[1] else minor


def format_price(price: Decimal) -> str:
    """The shortest text of an exact decimal, never an exponent: 0.40 -> "0.4", 1E+2 -> "100", -0.0 -> "0"."""
    text = format(price, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def split(total: int, weights: Sequence[Decimal]) -> tuple[int, ...]:
    """`total` minor units in parts by `weights` (percent points that sum to 100), by largest remainder.

    The magnitude is split and the sign put back; a unit left over goes to the largest remainder, of equal
    ones to the weight named first. Parts sum to `total` exactly.

    >>> split(-100, [Decimal("33.3"), Decimal("33.3"), Decimal("33.4")])
    (-33, -33, -34)
    """
    exact = [Fraction(weight) for weight in weights]
    assert sum(exact) == 100, "percents sum to 100"
    assert min(exact) >= 0, "percents are not negative"
    sign = -1 if total < 0 else 1
    shares = [weight * Fraction(abs(total), 100) for weight in exact]
    parts = [share.numerator // share.denominator for share in shares]
    by_remainder = sorted(range(len(parts)), key=lambda i: (parts[i] - shares[i], i))
    for i in by_remainder[: abs(total) - sum(parts)]:
        parts[i] += 1
    return tuple(sign * part for part in parts)
