"""What the leaves of an archived log commit to, found by commitment (blocking).

Contents lie together as they were made, an object a transaction (billing/log.py). So one pass over the objects notes
which commitment lies in which (hash_places.py), and what is asked for afterwards comes from the few
objects that were read last: the log asks for them in nearly the order in which they lie.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date

from adapters.hash_places import HashPlaces
from billing.log import Content, contents_folder, read_contents
from billing.objects import Objects
from metering.refusal import Refusal

_KEPT = 64


class ArchivedContents:
    """The archived contents of an operator's log, of the days from `since` on."""

    def __init__(
        self,
        objects: Objects,
        operator: str,
        since: date | None = None,
        progress: Callable[[int], None] = lambda _read: None,
    ) -> None:
        """Refusal `bad_content`, naming the object that does not hold what its name says."""
        self._objects = objects
        self._paths: list[str] = []
        self._places = HashPlaces()
        self._kept: OrderedDict[int, Mapping[str, Content]] = OrderedDict()
        folder = contents_folder(operator)
        for path in objects.list(folder):
            if since is not None and path.removeprefix(folder) < since.isoformat():
                continue
            stored = objects.get(path)
            if stored is None:
                continue  # another one has taken its place, without what was erased
            for commitment in read_contents(path, stored):
                self._places.add(bytes.fromhex(commitment), len(self._paths))
            self._paths.append(path)
            progress(len(self._paths))

    def __contains__(self, commitment: str) -> bool:
        return bytes.fromhex(commitment) in self._places

    def get(self, commitment: str) -> Content | None:
        """The content; None where it is missing: erased, or lost."""
        place = self._places.get(bytes.fromhex(commitment))
        if place is None:
            return None
        if place not in self._kept:
            stored = self._objects.get(self._paths[place])
            if stored is None:
                raise Refusal(
                    "bad_content",
                    "an object of contents has vanished while it was read",
                    where=self._paths[place],
                    remedy="run the command again",
                )
            self._kept[place] = read_contents(self._paths[place], stored)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(place)
        return self._kept[place].get(commitment)

    def besides(self, known: Collection[bytes]) -> Iterator[tuple[str, list[Content]]]:
        """Contents whose commitment is not among `known`, by the object that they lie in, in the order of their making."""
        left: dict[int, dict[bytes, Content]] = {}
        for commitment, place in self._places.items():
            if commitment not in known and self._places.get(commitment) == place:
                content = self.get(commitment.hex())
                assert content is not None
                left.setdefault(place, {})[commitment] = content
        for place, contents in sorted(left.items()):
            yield self._paths[place], list(contents.values())
