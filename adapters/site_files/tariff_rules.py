"""Rules of the pricing language inside one tariff or contract: tiers ascend, windows are told apart, series have no gap.

As in `rules`, each sees what was read without faults and says nothing about keys that were refused already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from adapters.site_files.rules import check_decimals, check_version
from adapters.site_files.schema import Path, Reading
from adapters.site_files.tariff_scalars import MOST_HOURS
from billing.tariff import METERS

PRICINGS = ("graduated", "volume", "package")


def check_tariff(found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    check_version(found, path, reading)
    check_decimals(found, "minimum", found.get("currency"), path, reading)


def check_pricing(_found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    stand = [key for key in PRICINGS if reading.stands((*path, key))]
    if len(stand) != 1:
        said = " and ".join(stand) or "no way of pricing"
        remedy = (
            "allowed: a price, {graduated: [{up_to, price}, …]}, {volume: [{up_to, price}, …]} "
            "or {package: {size, price}}"
        )
        reading.fault(path, f"{said} where one is needed", remedy)


def check_tiers(tiers: list[Any], path: Path, reading: Reading) -> None:
    _check_steps(tiers, "tier", path, reading)


def check_steps(steps: list[Any], path: Path, reading: Reading) -> None:
    _check_steps(steps, "step", path, reading)


def _check_steps(steps: Sequence[Mapping[str, str]], single: str, path: Path, reading: Reading) -> None:
    """`up_to` ascends, and only the last has none, so that every quantity (or price) falls in exactly one."""
    before: Decimal | None = None
    for at, step in enumerate(steps):
        last = at == len(steps) - 1
        if last and "up_to" in step:
            remedy = f"leave up_to out, or add a {single} after it"
            reading.fault((*path, at, "up_to"), f"the last {single} has no end", remedy)
        if not last and "up_to" not in step:
            what = f"up_to is missing: only the last {single} has none"
            reading.fault((*path, at), what, f"say where this {single} ends")
        if "up_to" in step:
            bound = Decimal(step["up_to"])
            if before is not None and bound <= before:
                what = f"{step['up_to']} is not more than {before:f}"
                reading.fault((*path, at, "up_to"), what, f"{single}s ascend by up_to")
            before = bound


def check_row(_found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    if not any(reading.stands((*path, meter)) for meter in METERS):
        reading.fault(path, "the row prices no meter", f"allowed: {', '.join(METERS)}")


def check_named(found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    """A map that is stated says something."""
    if not found and reading.empty(path):
        reading.fault(path, "the map is empty", "name at least one key, or leave it out")


def check_once(words: list[Any], path: Path, reading: Reading) -> None:
    for at, word in enumerate(words):
        if word in words[:at]:
            reading.fault((*path, at), f"{word} is named twice", "name each once")


def check_window(_found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    """A factor, or a series with steps."""
    stands = {key: reading.stands((*path, key)) for key in ("factor", "series", "steps")}
    remedy = "allowed: `factor: 0.5`, or `series: FILE` with `steps: [{up_to: 40, factor: 0.6}, {factor: 1}]`"
    if stands["factor"] and (stands["series"] or stands["steps"]):
        other = "series" if stands["series"] else "steps"
        reading.fault((*path, other), "a window has either a factor or a series with steps, not both", remedy)
    elif stands["series"] != stands["steps"]:
        has, lacks = ("series", "steps") if stands["series"] else ("steps", "series")
        reading.fault((*path, has), f"{has} without {lacks}", remedy)
    elif not any(stands.values()):
        reading.fault(path, "the window has no factor", remedy)


def check_windows(windows: list[Any], path: Path, reading: Reading) -> None:
    _check_names(windows, "window", path, reading)


def check_fees(fees: list[Any], path: Path, reading: Reading) -> None:
    _check_names(fees, "fee", path, reading)


def check_series(found: Mapping[str, Any], path: Path, reading: Reading) -> None:
    if len(found.get("prices", ())) > MOST_HOURS:
        what = f"{len(found['prices']):_} hours"
        reading.fault((*path, "prices"), what, f"at most {MOST_HOURS:_}")


def _check_names(items: Sequence[Mapping[str, Any]], single: str, path: Path, reading: Reading) -> None:
    first: dict[str, int] = {}
    for at, item in enumerate(items):
        known = first.setdefault(item["name"], at)
        if known != at:
            what = f"the {single} {item['name']} stands twice"
            reading.fault((*path, at, "name"), what, f"{single} {known + 1} has that name: take another")
