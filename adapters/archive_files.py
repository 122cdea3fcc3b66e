"""Which Parquet files hold the events of a lane's day, each event once, also while batches move into a joined file."""

from __future__ import annotations

from adapters.archive_joined import Joined, read_joined
from adapters.archive_reading import LaneDay
from billing.objects import Objects
from metering.refusal import Unavailable


def event_files(objects: Objects, day: LaneDay) -> list[str]:
    """Names of the files that hold the events of a lane's day, each event once."""
    if not day.joined_seals:
        return sorted(f"{day.folder}/{name}.parquet" for name in day.bodies & day.seals)
    if len(day.joined_seals) == 1 and not day.bodies:
        return [f"{day.folder}/{name}.parquet" for name in day.joined_seals if name in day.joined_bodies]
    found = sorted(_joined(objects, day), key=lambda each: len(each.entries), reverse=True)
    chosen: list[str] = []
    taken: set[str] = set()
    for joined in found:
        own = {entry.name for entry in joined.entries if entry.rows}
        if joined.name not in day.joined_bodies or not own or own <= taken:
            continue  # of two that a killed run left, the larger one holds all
        if own & taken:
            raise Unavailable(
                "archive_in_between",
                "two joined files hold one batch",
                where=f"{day.folder}/{joined.name}",
                remedy="`tally archive compact` ends what it began",
            )
        taken |= own
        chosen.append(f"{day.folder}/{joined.name}.parquet")
    listed = {entry.name for joined in found for entry in joined.entries}
    loose = (day.bodies & (day.seals | listed)) - taken
    return chosen + sorted(f"{day.folder}/{name}.parquet" for name in loose)


def _joined(objects: Objects, day: LaneDay) -> list[Joined]:
    found = []
    for name in day.joined_seals:
        content = objects.get(f"{day.folder}/_{name}.seals")
        if content is not None:
            found.append(read_joined(name, content))
    return found
