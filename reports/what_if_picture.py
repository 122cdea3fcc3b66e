"""A what-if as a picture: SVG or PNG, by matplotlib, which only this module imports.

Four panels: net revenue by period, worth by hour of the operator's day, its change by model and region, and the
customers whose bills change most. Figures become floats only here, as places on paper; the numbers that are written
come from exact text. Fonts are those that matplotlib brings; the same comparison gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from billing.money import format_minor, minor_digits, round_half_away
from billing.what_if_compared import Comparison, Pair
from metering.refusal import Refusal
from reports.what_if import by_change, percent_text

_NOW, _THEN, _UP, _DOWN = "#9aa5b1", "#1f6feb", "#1a7f37", "#cf222e"
_MOST = 8
_LONGEST = 22
_MOST_PERIODS = 36
_FEWEST_PLACES = 6
"""Side by side a panel has room for so many at least: the bars of a single period are no wider than that."""

Row = tuple[str, Pair | None]
"""A bar's name and amounts; or a heading, over the bars that follow."""

_PANELS = (
    "Four panels: net revenue by period, now and then; worth of usage by hour of day, now and then; change of worth "
    "by model and region; customers whose bills change most."
)

KINDS = {".svg": "svg", ".png": "png"}


def picture_kind(name: str) -> str:
    """`svg` or `png`, by the file's suffix. Refusals: unknown_format."""
    kind = KINDS.get(PurePath(name).suffix.lower())
    if kind is None:
        raise Refusal(
            "unknown_format",
            f"{name} ends neither in .svg nor in .png",
            where="--out",
            remedy="name it so.svg or so.png",
        )
    return kind


def what_if_picture(title: str, currency: str, shown: Comparison, kind: str) -> bytes:
    """The picture's bytes; `kind` as `picture_kind` says."""
    with mpl.rc_context({"svg.hashsalt": "tallygrid", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(11, 8), layout="constrained")
        panels = figure.subplots(2, 2)
        net = shown.parts["net"]
        said = percent_text(net)
        change = f" ({'+' if net.change > 0 else ''}{said}%)" if said else ""
        totals = f"net {_text(net.now, currency)} → {_text(net.then, currency)} {currency}{change}"
        figure.suptitle(f"{title}\n{totals}")
        _beside(
            panels[0][0],
            f"Net revenue by period, {currency}",
            list(shown.by_period.items())[-_MOST_PERIODS:],
            currency,
        )
        hours = [(str(hour), pair) for hour, pair in enumerate(shown.by_hour)]
        _beside(panels[0][1], f"Worth of usage by hour of day, {currency}", hours, currency)
        # One legend for both upper panels, above them: no bar is ever under it.
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper right", frameon=False)
        _places(panels[1][0], shown, currency)
        _customers(panels[1][1], shown, currency)
        held = io.BytesIO()
        if kind == "svg":
            canvas: Any = FigureCanvasSVG(figure)
            canvas.print_svg(held, metadata={"Date": None, "Title": title})
            return _described(held.getvalue(), f"{totals}. {_PANELS}")
        canvas = FigureCanvasAgg(figure)
        canvas.print_png(held, metadata={"Software": None})
        return held.getvalue()


def _described(svg: bytes, text: str) -> bytes:
    """The picture with a `<desc>` after its `<title>`, for who can't see it; matplotlib writes only the title."""
    return svg.replace(b"</title>", b"</title>\n <desc>" + escape(text).encode() + b"</desc>", 1)


def _beside(axes: Any, title: str, rows: Sequence[tuple[str, Pair]], currency: str) -> None:
    """Bars now and then, side by side."""
    at = range(len(rows))
    axes.bar([x - 0.2 for x in at], [_place(p.now, currency) for _, p in rows], 0.4, color=_NOW, label="now")
    axes.bar(
        [x + 0.2 for x in at], [_place(p.then, currency) for _, p in rows], 0.4, color=_THEN, label="then"
    )
    every = -(-len(rows) // 12)
    axes.set_xticks(
        list(at)[::every],
        [_short(name) for name, _ in rows][::every],
        rotation=0 if len(rows) > 12 else 30 if len(rows) > 4 else 0,
    )
    spare = max(_FEWEST_PLACES - len(rows), 0) / 2
    axes.set_xlim(-0.6 - spare, len(rows) - 0.4 + spare)
    _plain(axes, title)
    axes.yaxis.set_major_formatter("{x:,.0f}" if _large(rows, currency) else "{x:,.2f}")


def _places(axes: Any, shown: Comparison, currency: str) -> None:
    """The change of worth by model, of packages, which have none, and of worth by region."""
    packages = shown.undivided["packages"]
    models = [
        *_largest(shown.by_model.items()),
        *([("packages", packages)] if packages.now or packages.then else []),
    ]
    regions = [(name or "none", pair) for name, pair in _largest(shown.by_region.items())]
    rows: list[Row] = []
    for heading, of in (("by model", models), ("by region", regions)):
        rows += [(heading, None), *of] if of else []
    _changes(axes, f"Change of worth by model and region, {currency}", rows, currency)


def _largest(pairs: Iterable[tuple[str, Pair]]) -> list[tuple[str, Pair]]:
    return sorted(pairs, key=lambda each: -abs(each[1].change))[:_MOST]


def _customers(axes: Any, shown: Comparison, currency: str) -> None:
    changed = [each for each in by_change(shown.customers) if each[1].change]
    rows = changed if len(changed) <= 2 * _MOST else [*changed[:_MOST], *changed[-_MOST:]]
    up, down, same = shown.count()
    _changes(axes, f"Customers: {up:,} pay more, {down:,} less, {same:,} the same", rows, currency)


def _changes(axes: Any, title: str, rows: Sequence[Row], currency: str) -> None:
    """Bars of changes, the first on top, each with its amount; a heading has a line of its own."""
    drawn = [(at, pair) for at, (_, pair) in enumerate(rows) if pair is not None]
    if not any(pair.change for _, pair in drawn):
        # An axis around nothing but zeros would have made-up figures.
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no change", ha="center", transform=axes.transAxes)
        _plain(axes, title)
        return
    values = [_place(pair.change, currency) for _, pair in drawn]
    bars = axes.barh([at for at, _ in drawn], values, color=[_UP if value > 0 else _DOWN for value in values])
    axes.bar_label(bars, [_text(pair.change, currency) for _, pair in drawn], padding=3, fontsize=7)
    axes.set_yticks(range(len(rows)), [_short(name) for name, _ in rows])
    for label, (_, pair) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("normal" if pair is not None else "bold")
    axes.set_ylim(max(len(rows), _FEWEST_PLACES) - 0.4, -0.6)
    axes.margins(x=0.2)
    large = _large([(name, pair) for name, pair in rows if pair is not None], currency)
    axes.xaxis.set_major_formatter("{x:,.0f}" if large else "{x:,.2f}")
    axes.locator_params(axis="x", nbins=5)
    _plain(axes, title)


def _plain(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _place(minor: Any, currency: str) -> float:
    """Where on the paper; no figure is made of it."""
    place: float = float(minor) / 10 ** minor_digits(currency)
    return place


def _large(rows: Sequence[tuple[str, Pair]], currency: str) -> bool:
    return any(abs(_place(side, currency)) >= 100 for _, pair in rows for side in (pair.now, pair.then))


def _text(minor: Any, currency: str) -> str:
    whole, point, fraction = format_minor(round_half_away(minor), currency).partition(".")
    return f"{int(whole):,}{point}{fraction}" if whole not in ("-0",) else f"-0{point}{fraction}"


def _short(name: str) -> str:
    """A name of at most `_LONGEST` characters: names that begin alike mostly end otherwise, so the middle goes."""
    plain = "".join(character if character.isprintable() else "?" for character in name)
    if len(plain) > _LONGEST:
        plain = f"{plain[: _LONGEST // 2]}…{plain[_LONGEST // 2 + 1 - _LONGEST :]}"
    return plain.replace("$", r"\$")  # matplotlib would read what is between two as mathematics
