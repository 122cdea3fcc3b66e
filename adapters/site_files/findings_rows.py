"""Price rows beside each other: rows and models that are never reached, rows that cross, usage that no row prices.

The first row that matches prices all meters, so a row's box (models by glob, regions by glob, prompts over so many tokens)
is never reached where one earlier box covers it: what no glob spells out can only be matched by a star. Two rows
cross where they share usage and neither lies within the other; which one wins is then an accident of the order.
A row whose models and regions narrow those of one after it (qwen3-* before *) is how tariffs are meant to be written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from adapters.site_files.findings_globs import covers, shared
from billing.tariff import PriceRow
from metering.refusal import Fault

Place = Callable[..., str]
"""`place("prices", 0, "models", 2)`: the `file:line` of a path in the document, or of what is around it."""

MOST_PAIRS = 500_000
"""How many pairs of boxes are compared in one list of rows: a few seconds' worth."""


@dataclass(frozen=True, slots=True)
class Box:
    """What one model glob and one region glob of a row match, of prompts in `band` and above."""

    model: str
    region: str
    band: int

    def covers(self, other: Box) -> bool:
        return (
            self.band <= other.band and covers(self.model, other.model) and covers(self.region, other.region)
        )

    def within(self, other: Box) -> bool:
        """Whether `other` holds for all of this box's models and regions, whatever the prompts."""
        return covers(other.model, self.model) and covers(other.region, self.region)

    def example(self, other: Box) -> str | None:
        """Usage that both match, in words; None: there is none."""
        model, region = shared(self.model, other.model), shared(self.region, other.region)
        if model is None or region is None:
            return None
        return in_words(model, region, max(self.band, other.band))


def in_words(model: str, region: str, band: int) -> str:
    """`qwen3-* in LT-* with prompts over 128000`."""
    where = "" if region == "*" else f" in {region}"
    return f"{model}{where}" + (f" with prompts over {band}" if band else "")


def boxes(row: PriceRow) -> list[Box]:
    return [
        Box(model, region, row.prompt_over or 0) for model in row.models for region in (row.regions or ("*",))
    ]


def _too_many(rows: Sequence[PriceRow], others: Sequence[PriceRow]) -> bool:
    def count(listed: Sequence[PriceRow]) -> int:
        return sum(len(row.models) * max(1, len(row.regions)) for row in listed)

    return count(rows) * count(others) > MOST_PAIRS


def odd_rows(rows: Sequence[PriceRow], place: Place) -> Iterator[Fault]:
    """Rows and models of one list that are never reached, and rows that cross earlier ones."""
    if _too_many(rows, rows):
        what = f"{len(rows)} rows are too many to be compared with each other"
        yield Fault(
            what, place("prices"), "look for rows that are never reached by hand, or write wider globs"
        )
        return
    known = [boxes(row) for row in rows]
    for at, row in enumerate(rows):
        yield from _repeated_globs(row, at, place)
        never = [_covering(box, known[:at]) for box in known[at]]
        if all(number is not None for number in never):
            numbers = sorted({number + 1 for number in never if number is not None})
            said = " and ".join(f"row {number}" for number in numbers[:3])
            what = f"row {at + 1} is never reached: {said} before it matches all that it matches"
            yield Fault(what, place("prices", at), "put it first, narrow the earlier row, or leave it out")
            continue
        shadowed = list(_shadowed_models(row, at, known, place))
        yield from shadowed
        if not shadowed:
            yield from _crossed(rows, at, known, place)


def _covering(box: Box, earlier: Sequence[Sequence[Box]]) -> int | None:
    """The first earlier row with a box that covers this one."""
    for number, found in enumerate(earlier):
        if any(each.covers(box) for each in found):
            return number
    return None


def _repeated_globs(row: PriceRow, at: int, place: Place) -> Iterator[Fault]:
    for key, globs in (("models", row.models), ("regions", row.regions)):
        for index, glob in enumerate(globs):
            others = [
                other
                for number, other in enumerate(globs)
                if number != index and covers(other, glob) and (number < index or not covers(glob, other))
            ]
            if others:
                what = f"{glob} adds nothing: {others[0]} of the same row matches all that it matches"
                yield Fault(what, place("prices", at, key, index), "leave one of them out")


def _shadowed_models(row: PriceRow, at: int, known: Sequence[Sequence[Box]], place: Place) -> Iterator[Fault]:
    for index, model in enumerate(row.models):
        own = [box for box in known[at] if box.model == model]
        by = [_covering(box, known[:at]) for box in own]
        if len(row.models) > 1 and all(number is not None for number in by):
            number = next(number for number in by if number is not None)
            winner = next(box for box in known[number] if box.covers(own[0]))
            what = f"{model} is never reached here: row {number + 1} ({winner.model}) comes first"
            yield Fault(
                what, place("prices", at, "models", index), "leave it out here, or put this row first"
            )


def _crossed(
    rows: Sequence[PriceRow], at: int, known: Sequence[Sequence[Box]], place: Place
) -> Iterator[Fault]:
    """The first earlier row that takes part of what this row matches without lying within it."""
    for number in range(at):
        if rows[number].prices == rows[at].prices:
            continue
        if all(any(each.within(box) for box in known[at]) for each in known[number]):
            continue
        both = (one.example(other) for one in known[number] for other in known[at])
        example = next((text for text in both if text is not None), None)
        if example is not None:
            what = f"row {at + 1} and row {number + 1} both match {example}: row {number + 1} wins, as it stands first"
            remedy = f"put row {at + 1} first if it shall win, or name models so that only one matches"
            yield Fault(what, place("prices", at), remedy)
            return


def odd_regions(
    rows: Sequence[PriceRow], regions: Sequence[str], place: Place, every: bool
) -> Iterator[Fault]:
    """Region globs that no declared node is in and, of a tariff (`every`), nodes' regions that no row prices."""
    if not regions:
        return
    for at, row in enumerate(rows):
        for index, glob in enumerate(row.regions):
            if not any(covers(glob, region) for region in regions):
                what = f"{glob} is the region of no node (nodes are in {_listed(regions)})"
                yield Fault(what, place("prices", at, "regions", index), "mend it, or declare the node")
    for region in regions if every else ():
        if not any(covers(glob, region) for row in rows for glob in row.regions or ("*",)):
            what = f"no row prices anything in {region}, where a node is: a close would stop at its usage"
            yield Fault(
                what, place("prices"), f"add a row whose regions match {region}, or one without regions"
            )


def odd_gaps(rows: Sequence[PriceRow], place: Place) -> Iterator[Fault]:
    """Rows for long prompts whose models no row prices when the prompt is short, and meters without their parent."""
    known = [] if _too_many(rows, rows) else [boxes(row) for row in rows]
    for at, row in enumerate(rows):
        short = [Box(box.model, box.region, 0) for box in known[at]] if known and row.prompt_over else []
        without = [box for box in short if _covering(box, known) is None]
        if without:
            what = f"{in_words(without[0].model, without[0].region, 0)}: only prompts over {row.prompt_over} have a price"
            remedy = "add a row without prompt_over for these models: a close would stop at shorter prompts"
            yield Fault(what, place("prices", at, "prompt_over"), remedy)
        for meter, needed in (("cached_input", "input"), ("output", "input"), ("reasoning", "output")):
            if meter in row.prices and needed not in row.prices:
                what = f"{meter} has a price and {needed} has none: a close would stop at usage with {needed}"
                yield Fault(what, place("prices", at, meter), f"state a price for {needed}; 0 makes it free")


def odd_beside_earlier(
    rows: Sequence[PriceRow], earlier: Sequence[PriceRow], name: str, place: Place
) -> Iterator[Fault]:
    """Models and meters that an earlier version, `name`, priced and this one does not."""
    if _too_many(rows, earlier):
        return  # `odd_rows` says that there are too many
    known = [boxes(row) for row in rows]
    lost: set[tuple[str, str]] = set()
    for number, row in enumerate(earlier, 1):
        for box in boxes(row):
            at = _covering(box, known)
            if at is None:
                text = in_words(box.model, box.region, box.band)
                if ("", text) not in lost:
                    what = f"no row prices {text}, as row {number} of {name} did: a close would stop at its usage"
                    yield Fault(what, place("prices"), "add a row for it if it is still served")
                lost.add(("", text))
                continue
            for meter in ("input", "output", "audio_seconds"):
                if meter in row.prices and meter not in rows[at].prices and (meter, str(at)) not in lost:
                    lost.add((meter, str(at)))
                    what = f"{meter} has no price for {box.model}, as it had in {name}: a close would stop at its usage"
                    yield Fault(what, place("prices", at), f"state a price for {meter}; 0 makes it free")


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:5]) + (", …" if len(words) > 5 else "")
