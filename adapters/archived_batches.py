"""Batches of an archive by the hash of their seal, as the log names them (blocking).

The log does not say on which day's path a batch lies, nor whether it was joined with others since. So one pass over the
operator's folders notes it (hash_places.py).
"""

from __future__ import annotations

from collections.abc import Callable

from adapters.archive_reading import BatchReader, contents, gone, lane_day, lane_days
from adapters.hash_places import HashPlaces
from billing.inspection import Delivery
from billing.log import BatchLeaf
from billing.objects import Objects
from metering.batch import Seal, peek_seal
from metering.refusal import Refusal


class ArchivedBatches:
    """The batches of one operator in the archive."""

    def __init__(
        self, objects: Objects, operator: str, progress: Callable[[int], None] = lambda _seen: None
    ) -> None:
        self._objects = objects
        self._operator = operator
        self._joined = BatchReader(objects)
        self._folders: list[str] = []
        self._places = HashPlaces()
        for day in lane_days(objects, operator):
            names = list(day.seals)
            if day.joined_seals:
                names += [place.name for place in contents(objects, day).places]
            for name in names:
                self._places.add(bytes.fromhex(name.rpartition("-")[2]), len(self._folders))
            self._folders.append(day.folder)
            progress(len(self._places))

    def get(self, leaf: BatchLeaf) -> Delivery:
        """The batch that this leaf names: with its body, or with its events where it was joined with others.

        Refusal `archive_incomplete` where it is not there, or its events are not (any more).
        """
        name = f"{leaf.epoch}-{leaf.number}-{leaf.hash}"
        place = self._places.get(bytes.fromhex(leaf.hash))
        if place is None:
            raise _missing(f"{self._operator}/*/{leaf.node}/{leaf.lane}/{name}")
        path = f"{self._folders[place]}/{name}"
        note = self._joined.note(path)
        if note is None:
            raise _missing(path)
        seal = peek_seal(note)
        if seal.events == 0:
            return Delivery(note, b"")
        body = self._objects.get(f"{path}.parquet")
        if body is not None:
            return Delivery(note, body)
        return Delivery(note, b"", events=self._joined.events(path))

    def note(self, seal_hash: str, follower: Seal) -> bytes:
        """The signed seal of this hash, which `follower` follows. Refusal `archive_incomplete` where it is not there."""
        place = self._places.get(bytes.fromhex(seal_hash))
        found = None
        if place is not None:
            folder = self._folders[place]
            path = f"{folder}/{follower.epoch}-{follower.number - 1}-{seal_hash}"
            if follower.number == 0 or seal_hash != follower.previous:
                path = f"{folder}/{self._name(folder, seal_hash)}"
            found = self._joined.note(path)
        if found is None:
            raise _missing(f"{self._operator}/*/{follower.node}/{follower.lane}/*-{seal_hash}")
        return found

    def _name(self, folder: str, seal_hash: str) -> str:
        """The batch's name in its folder, where nothing tells its epoch and number."""
        day = lane_day(folder, self._objects.list(f"{folder}/"))
        names = [*day.seals, *(place.name for place in contents(self._objects, day).places)]
        return next((name for name in names if name.endswith(f"-{seal_hash}")), seal_hash)


def _missing(path: str) -> Refusal:
    found = gone(path)
    return Refusal(
        found.code, "a batch that the log names is not in the archive", where=path, remedy=found.remedy
    )
