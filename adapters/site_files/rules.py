"""Rules inside one document that concern several of its keys: days in order, tiers ascending, shares to 100%.

They see what was read without faults, so each asks with `get` and says nothing about keys that were refused
already. Rules between documents are in `adapters.site_files.references`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from adapters.site_files.schema import Path, Reading
from billing import numbering
from billing.money import minor_digits
from billing.tariff import BILLED_OUTCOMES, METERS
from metering.refusal import Refusal


def check_days(found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    begin, end = found.get("valid_from"), found.get("valid_until")
    if begin is not None and end is not None and end <= begin:
        reading.fault(
            (*path, "valid_until"),
            f"{end} is not after valid_from {begin}",
            "the end is exclusive: name a later day",
        )


def check_operator(found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    check_days(found, path, reading)
    least, currency = found.get("smallest_document", "0"), found.get("currency")
    if currency is not None and len(least.partition(".")[2]) > minor_digits(currency):
        digits = minor_digits(currency)
        reading.fault(
            (*path, "smallest_document"), f"{least} has more decimals than {currency}", f"at most {digits}"
        )


def check_numbering(found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    try:
        numbering.check_numbering(found)
    except Refusal as refused:
        reading.fault(path, refused.what, refused.remedy)


def check_pricing(_found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    stand = [key for key in ("graduated", "volume", "package") if reading.stands((*path, key))]
    if len(stand) != 1:
        said = " and ".join(stand) or "no way of pricing"
        reading.fault(
            path, f"{said} where one is needed", "allowed: a price, or {graduated: [{up_to, price}, …]}"
        )


def check_tiers(tiers: list[Any], path: Path, reading: Reading) -> None:
    before = 0
    for at, tier in enumerate(tiers):
        last = at == len(tiers) - 1
        if last and "up_to" in tier:
            reading.fault(
                (*path, at, "up_to"), "the last tier has no end", "leave up_to out, or add a tier after it"
            )
        if not last and "up_to" not in tier:
            reading.fault(
                (*path, at), "up_to is missing: only the last tier has none", "say where this tier ends"
            )
        if "up_to" in tier and int(tier["up_to"]) <= before:
            reading.fault(
                (*path, at, "up_to"), f"{tier['up_to']} is not more than {before}", "tiers ascend by up_to"
            )
        before = int(tier.get("up_to", before))


def check_row(_found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    if not any(reading.stands((*path, meter)) for meter in METERS):
        reading.fault(path, "the row prices no meter", f"allowed: {', '.join(METERS)}")


def check_outcomes(outcomes: list[Any], path: Path, reading: Reading) -> None:
    if sorted(outcomes) != sorted(BILLED_OUTCOMES):
        remedy = f"allowed: the default, [{', '.join(BILLED_OUTCOMES)}]; or leave the key out"
        reading.fault(path, f"[{', '.join(outcomes)}]: not rated yet", remedy)


def check_parts(parts: list[Any], path: Path, reading: Reading) -> None:
    total, seen = Decimal(0), set()
    for at, part in enumerate(parts):
        if part["party"] in seen:
            reading.fault((*path, at, "party"), f"{part['party']} is named twice", "name each party once")
        seen.add(part["party"])
        total += Decimal(part["percent"][:-1])
    if total > 100:
        reading.fault(path, f"the percents sum to {total}%", "at most 100%; the operator keeps the rest")
