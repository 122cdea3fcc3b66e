"""Rules inside one document that concern several of its keys: days in order, numbering, shares to 100%.

They see what was read without faults, so each asks with `get` and says nothing about keys that were refused
already. The pricing language has its own in `tariff_rules`; rules between documents are in `adapters.site_files.references`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from adapters.site_files.schema import Path, Reading
from billing import numbering
from billing.money import minor_digits
from metering.refusal import Refusal


def check_version(found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    """What every kind says of its version: days in order, and a reason where it takes another's place."""
    check_days(found, path, reading)
    begin, former = found.get("valid_from"), found.get("supersedes")
    if reading.stands((*path, "supersedes")) and not reading.stands((*path, "reason")):
        remedy = "add `reason: …`: it is kept, and told to whoever asks why a price changed"
        reading.fault((*path, "supersedes"), "the reason is missing", remedy)
    if reading.stands((*path, "reason")) and not reading.stands((*path, "supersedes")):
        remedy = "add `supersedes: …`, or leave the reason out"
        reading.fault((*path, "reason"), "a reason for superseding no version", remedy)
    if begin is not None and former is not None and begin != former:
        what = f"{begin} is not the version that is superseded, {former}"
        reading.fault((*path, "valid_from"), what, "leave valid_from out: the version keeps its own")


def check_days(found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    begin, end = found.get("valid_from"), found.get("valid_until")
    if begin is not None and end is not None and end <= begin:
        reading.fault(
            (*path, "valid_until"),
            f"{end} is not after valid_from {begin}",
            "the end is exclusive: name a later day",
        )


def check_operator(found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    check_version(found, path, reading)
    check_decimals(found, "smallest_document", found.get("currency"), path, reading)


def check_decimals(
    found: Mapping[str, Any], key: str, currency: str | None, path: Path, reading: Reading
) -> None:
    """An amount has no more decimals than its currency."""
    said = too_fine(found.get(key, "0"), currency)
    if said is not None:
        reading.fault((*path, key), *said)


def too_fine(amount: str, currency: str | None) -> tuple[str, str] | None:
    """What is wrong with an amount that has more decimals than its currency, and what is allowed."""
    if currency is None or len(amount.partition(".")[2]) <= minor_digits(currency):
        return None
    return f"{amount} has more decimals than {currency}", f"at most {minor_digits(currency)}"


def check_numbering(found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    try:
        numbering.check_numbering(found)
    except Refusal as refused:
        reading.fault(path, refused.what, refused.remedy)


def check_parts(parts: list[Any], path: Path, reading: Reading) -> None:
    total, seen = Decimal(0), set()
    for at, part in enumerate(parts):
        if part["party"] in seen:
            reading.fault((*path, at, "party"), f"{part['party']} is named twice", "name each party once")
        seen.add(part["party"])
        total += Decimal(part["percent"][:-1])
    if total > 100:
        reading.fault(path, f"the percents sum to {total}%", "at most 100%; the operator keeps the rest")
