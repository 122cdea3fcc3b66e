"""What Ctrl-C leaves, in words: most commands leave nothing half done, an import does and says how far it came."""

from __future__ import annotations

from collections.abc import Sequence


class InterruptedInWordsError(Exception):
    """A command that Ctrl-C stopped half-way: what it left so, where, and what ends that."""

    def __init__(self, what: str, where: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.where, self.remedy = what, where, remedy


def remedy_of(argv: Sequence[str]) -> str:
    """What to do after a command that was stopped before it could say how far it came."""
    if argv[:1] == ["import"]:
        return (
            "the same command goes on where it stands; `tally streams` lists an import that is not finished"
        )
    return "run the command again: nothing is left half done"
