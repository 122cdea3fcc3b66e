"""Which globs cover or meet each other: what tells that a price row is never reached, or which of two wins.

Only `*` is special in a glob. A glob covers another where it matches the other's own text: nothing but a star matches
a star's place, as that stands for any text at all. Two globs meet where some text matches both.

    covers("qwen3-*", "qwen3-32b")     True
    meeting("qwen*", "*-coder")        "qwen-coder"
"""

from __future__ import annotations

from billing.tariff import glob_matches


def covers(wide: str, narrow: str) -> bool:
    """Whether every text that `narrow` matches is matched by `wide`."""
    return glob_matches(wide, narrow)


def meeting(one: str, other: str) -> str | None:
    """A text that both globs match, as short as easily found; None: there is none.

    Where both have stars, such a text exists if one begins as the other does and one ends as the other does: what
    stands between can be put one after the other.
    """
    for plain, glob in ((one, other), (other, one)):
        if "*" not in plain:
            return plain if glob_matches(glob, plain) else None
    first, *inner, last = one.split("*")
    head, *middle, tail = other.split("*")
    begin, end = max(first, head, key=len), max(last, tail, key=len)
    if not (begin.startswith(first) and begin.startswith(head)):
        return None
    if not (end.endswith(last) and end.endswith(tail)):
        return None
    whole = begin + "".join(inner) + "".join(middle) + end
    joined = [
        begin + end[shared:]
        for shared in range(min(len(begin), len(end)), -1, -1)
        if begin.endswith(end[:shared])
    ]
    shorter = [begin, end, *joined, begin + "".join(inner) + end, begin + "".join(middle) + end]
    fitting = (text for text in shorter if text and glob_matches(one, text) and glob_matches(other, text))
    return next(fitting, whole)


def shared(one: str, other: str) -> str | None:
    """What both globs match, in words: the narrower of them, or else a text; None: nothing."""
    if covers(one, other):
        return other
    return one if covers(other, one) else meeting(one, other)
