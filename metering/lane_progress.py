"""How far one lane has been handed over, and which of its batches go over again. Pure.

Batches are known by their names in the spool, whose order is the order of the chain. Handed over, a batch waits to be
acknowledged; with the broker's word it is somewhere in a page cache, and a topic can be deleted, truncated or outrun by
its retention. So what stays without an acknowledgement is sent again, but not all of it and not again and again: while
intake is merely away, every batch lies safely in the topic, and nothing that is sent would be heard.

    for 60 s nothing of the lane was acknowledged       the oldest batch goes again, as a probe
    still nothing                                       … and again after 2 minutes, 4, 8, at most an hour, with one of
                                                        the others beside it, each in its turn
    just what went again is acknowledged, no more       what lies behind it seems to be lost too: the next 2 go at once,
                                                        then 4, 8 …
    more than that is acknowledged                      what was sent first has arrived; nothing more goes again

The others take turns because of forks. Where intake accepted a copy of this machine, the oldest batches here may be ones
that both have; intake knows them, and acknowledges a seal that is not here. The one that is different, which would be
held and named as the fork, lies behind them, and a topic may have lost just that one.

A lane whose topic lost 5,000 batches so has them there again in a minute and a dozen rounds with intake; one whose
intake is away for a weekend has sent some 60 batches twice. Batches that come twice are repeats, which intake knows by
number and hash.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

PATIENCE_US = 60_000_000
LONGEST_PATIENCE_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class LaneProgress:
    """`sent_to`: the newest batch that the broker has; `since_us`: when what it has last went over or was acknowledged
    in part, None while nothing is on its way; `again_to`: the newest of those that went again and are not acknowledged;
    `window`: how many went again, 0 if none did; `probes`: how many probes nobody has answered.
    """

    sent_to: str = ""
    since_us: int | None = None
    patience_us: int = PATIENCE_US
    again_to: str = ""
    window: int = 0
    probes: int = 0

    @property
    def goes_on_again(self) -> bool:
        """Whether just what went again has been acknowledged, so that the next ones are due."""
        return self.window > 1 and not self.again_to


def due(progress: LaneProgress, waiting: Sequence[str], now_us: int) -> Sequence[str]:
    """Which of the batches that wait shall go over now, in their order: some of the oldest again, and all new ones."""
    sent = bisect_right(waiting, progress.sent_to)
    again: Sequence[str] = ()
    if progress.goes_on_again:
        again = waiting[: min(progress.window, sent)]
    elif progress.since_us is not None and now_us - progress.since_us >= progress.patience_us:
        again = waiting[: min(1, sent)]
        if progress.probes and sent > 1:
            beside = 1 + (progress.probes - 1) % (sent - 1)
            again = [*again, waiting[beside]]
    return [*again, *waiting[sent:]]


def handed_over(progress: LaneProgress, names: Sequence[str], now_us: int) -> LaneProgress:
    """The broker has these, of those that were due, from the first on."""
    if not names:
        return progress
    again = bisect_right(names, progress.sent_to)
    if again:
        if progress.goes_on_again:
            progress = replace(progress, since_us=now_us, again_to=names[again - 1], window=again)
        else:
            progress = replace(
                progress,
                since_us=now_us,
                patience_us=min(2 * progress.patience_us, LONGEST_PATIENCE_US),
                again_to=names[0],
                window=1,
                probes=progress.probes + 1,
            )
    if progress.since_us is None:
        progress = replace(progress, since_us=now_us)
    return replace(progress, sent_to=max(progress.sent_to, names[-1]))


def acknowledged(progress: LaneProgress, newest: str, now_us: int) -> LaneProgress:
    """Intake has everything up to `newest`, which waited until now."""
    if newest >= progress.sent_to:
        return LaneProgress()  # nothing is on its way: whatever will wait is new, by whatever name
    moved = replace(progress, since_us=now_us, patience_us=PATIENCE_US, probes=0)
    if newest > progress.again_to:
        return replace(moved, again_to="", window=0)
    if newest == progress.again_to:
        return replace(moved, again_to="", window=2 * progress.window)
    return moved
