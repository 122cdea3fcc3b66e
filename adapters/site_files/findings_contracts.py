"""A contract's rows beside those of the tariff that it is on, and both beside the days on which they hold.

A contract's row hides the first tariff row that covers its glob. Lacking a meter which that one prices is refused
(`references`); what hides nothing, changes nothing or overreaches is legal and told here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Generic, TypeVar

from adapters.site_files.findings_globs import covers, meeting
from adapters.site_files.findings_rows import Place
from billing.tariff import METERS, Contract, PriceRow, Tariff, hidden_row
from metering.refusal import Fault


def odd_contract_rows(contract: Contract, tariff: Tariff, place: Place) -> Iterator[Fault]:
    for at, row in enumerate(contract.rows):
        hidden = [hidden_row(tariff.rows, glob) for glob in row.models]
        for index, (glob, under) in enumerate(zip(row.models, hidden, strict=True)):
            if under is None:
                yield _hides_nothing(row, glob, tariff, place("prices", at, "models", index))
        found = [under for under in hidden if under is not None]
        if len(found) == len(hidden) and all(_same(row, under) for under in found):
            number = tariff.rows.index(found[0]) + 1
            what = f"row {at + 1} has the same prices as row {number} of tariff {tariff.version}"
            yield Fault(what, place("prices", at), "leave it out, or state what was agreed")
        if row.only and not any(set(under.prices) - set(row.prices) for under in found):
            what = "only: true has no effect: the row prices all that the tariff's row prices"
            yield Fault(what, place("prices", at, "only"), "leave it out")


def _hides_nothing(row: PriceRow, glob: str, tariff: Tariff, where: str) -> Fault:
    """The row still comes first for what it matches, so a tariff row that it only meets loses meters unnoticed."""
    for number, under in enumerate(tariff.rows, 1):
        example = next((text for model in under.models if (text := meeting(glob, model)) is not None), None)
        if example is None:
            continue
        lacking = [meter for meter in METERS if meter in under.prices and meter not in row.prices]
        what = f"{glob} hides no row of tariff {tariff.version}, but takes models such as {example} from row {number}"
        if lacking:
            what += f" without a price for {', '.join(lacking)}"
        return Fault(what, where, "write a glob that the tariff's row covers, or price the same meters")
    what = f"{glob} hides no row of tariff {tariff.version}: it has none for such models"
    return Fault(what, where, "mend the glob unless the contract alone prices these models")


def _same(row: PriceRow, under: PriceRow) -> bool:
    """Whether a contract's row charges what the tariff's row would have charged for all that it matches."""
    regions = all(any(covers(wide, own) for wide in under.regions or ("*",)) for own in row.regions or ("*",))
    return regions and row.prices == under.prices and (under.prompt_over or 0) <= (row.prompt_over or 0)


V = TypeVar("V", Tariff, Contract)


@dataclass(frozen=True, slots=True)
class Span(Generic[V]):
    """The local days [begin, end) on which a version holds; date.max: it has no end."""

    version: V
    begin: date
    end: date


def spans(timeline: Sequence[V]) -> list[Span[V]]:
    """When each version holds. `timeline`: all versions, oldest first."""
    begins: list[date] = [version.valid_from or date.min for version in timeline]
    return [
        Span(version, begin, min(following, version.valid_until or date.max))
        for version, begin, following in zip(timeline, begins, [*begins[1:], date.max], strict=True)
    ]


def beside(contract: Span[Contract], tariffs: Sequence[Span[Tariff]]) -> list[Tariff]:
    """The tariff versions that hold on some day of the contract's version."""
    return [each.version for each in tariffs if max(contract.begin, each.begin) < min(contract.end, each.end)]


def odd_days_of_contract(
    contract: Span[Contract], tariffs: Sequence[Span[Tariff]], place: Place
) -> Iterator[Fault]:
    """Days of the contract on which no version of its tariff holds: a close stops at usage then."""
    name = contract.version.tariff
    if tariffs and date.min < contract.begin < tariffs[0].begin:
        what = f"tariff {name} begins {tariffs[0].begin}, after this contract"
        yield Fault(
            what, place("valid_from"), "a close would stop at usage before: let the contract begin then"
        )
    for gap, until in holes(tariffs):
        if gap < contract.end and (until is None or until > contract.begin):
            said = f"until {until}" if until else "and nothing follows it"
            what = f"tariff {name} ends {gap}, before this contract, {said}"
            yield Fault(
                what,
                place("tariff"),
                "a close would stop at usage then: end the contract, or let the tariff go on",
            )


def holes(tariffs: Sequence[Span[Tariff]]) -> Iterator[tuple[date, date | None]]:
    """Days [from, to) after the first version on which none holds; None: for good."""
    for at, each in enumerate(tariffs):
        following = tariffs[at + 1].begin if at + 1 < len(tariffs) else None
        if each.end < (following or date.max):
            yield each.end, following


def odd_fees_of_earlier(contract: Contract, contracts: Sequence[Contract], place: Place) -> Iterator[Fault]:
    """A fee that is due once, which an earlier version charged by the month: by its name it is no new one."""
    for at, fee in enumerate(contract.fees):
        for earlier in contracts[: contracts.index(contract)]:
            monthly = any(other.name == fee.name and other.every == "month" for other in earlier.fees)
            if fee.every == "once" and monthly:
                what = f"fee {fee.name} is never charged: {earlier.version} stated a fee of that name already"
                yield Fault(what, place("fees", at), "give it another name")
                break
