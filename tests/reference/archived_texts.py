"""Every content that an archive holds of an operator's log, read as anybody may: object by object."""

from __future__ import annotations

from collections.abc import Iterator

from billing.log import Content, contents_folder, read_contents
from billing.objects import Objects


def archived_contents(objects: Objects, operator: str) -> Iterator[Content]:
    """In the order in which they lie there, each checked against its commitment."""
    for path in objects.list(contents_folder(operator)):
        stored = objects.get(path)
        assert stored is not None
        yield from read_contents(path, stored).values()
