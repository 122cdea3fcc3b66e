"""Which subjects of the API each role may read: the one table, asked before every answer.

finance, compliance, auditor   usage, invoices, settlements, reports
operator                       usage, reports: who runs the nodes sees what they did, and no money

"""

from __future__ import annotations

from typing import Literal

from metering.refusal import Refusal

Subject = Literal["usage", "invoices", "settlements", "reports"]

_ALL: frozenset[Subject] = frozenset({"usage", "invoices", "settlements", "reports"})
MAY_READ: dict[str, frozenset[Subject]] = {
    "operator": frozenset({"usage", "reports"}),
    "finance": _ALL,
    "compliance": _ALL,
    "auditor": _ALL,
}
"""Role (`adapters.postgres.keys.ROLES`) -> what a key with it may read."""


def check_may_read(role: str, subject: Subject) -> None:
    """Refuse (`forbidden`) what a role is not meant to see."""
    if subject not in MAY_READ[role]:
        able = ", ".join(sorted(each for each in MAY_READ if subject in MAY_READ[each]))
        raise Refusal(
            "forbidden",
            f"a key of the role {role} may not read {subject}",
            where="Authorization",
            remedy=f"use a key of one of the roles {able}",
        )
