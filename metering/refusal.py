"""The three ways in which something goes wrong, two of them as exceptions.

Bad input is a `Refusal`: it says what was wrong, where, and how to mend it; nothing was changed. A failing dependency
is `Unavailable`: the caller may try again. Our own bug is an `assert`. The command line prints both as
`{error: {code, what, where, remedy, faults}}` and exits with 1 or 4; the HTTP servers answer 4xx or 503.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an input. `where` is `file:line`, a row, a field or an id; `remedy` says how to mend it."""

    what: str
    where: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head} ({self.remedy})" if self.remedy else head


class Refusal(Exception):
    """Bad input or a wrong state, refused by name; nothing was changed.

    `code` is a stable word in snake_case that scripts may test (`unknown_customer`, `period_not_over`).
    `extra` holds further JSON keys of the error object (docs/commands.md), for instance `unpriced`.
    """

    def __init__(
        self,
        code: str,
        what: str,
        *,
        where: str = "",
        remedy: str = "",
        faults: Sequence[Fault] = (),
        extra: dict[str, object] | None = None,
    ) -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.where = where
        self.remedy = remedy
        self.faults = tuple(faults)
        self.extra = dict(extra or {})


class Unavailable(Exception):
    """Something that Tallygrid depends on is down or does not answer; trying again later may help."""

    def __init__(self, code: str, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.where = where
        self.remedy = remedy
