"""An operator's log in the archive: tiles, contents and the checkpoint, through the port of objects (blocking).

Order is everything: what a checkpoint covers is durable before the checkpoint is, and the checkpoint before anybody is
told of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from billing.log import Content, checkpoint_path, contents_object, log_folder
from billing.log_growth import GrowingLog, Tile
from billing.log_tiles import WIDTH, LogTiles, TileName, damaged_log, read_tile_name
from billing.objects import Objects
from metering.checkpoint import Checkpoint, split_checkpoint

#: Contents that one object holds at most.
_CONTENTS = 4096


def archived_note(objects: Objects, operator: str) -> bytes | None:
    """The newest archived checkpoint, the signed note as it lies there."""
    return objects.get(checkpoint_path(operator))


def archived_log(objects: Objects, operator: str, size: int) -> LogTiles:
    """The log of `size` leaves as its tiles tell it."""
    folder = log_folder(operator)
    return LogTiles(lambda path: objects.get(folder + path), size)


def growing_log(objects: Objects, operator: str, checkpoint: Checkpoint | None) -> GrowingLog:
    """The archived log, ready to grow. Refusal `damaged_log` unless its right edge has the checkpoint's root."""
    if checkpoint is None:
        return GrowingLog()
    log = GrowingLog.read(archived_log(objects, operator, checkpoint.size))
    if log.root() != checkpoint.root:
        raise damaged_log("the tiles do not have the root that was signed", checkpoint_path(operator))
    return log


def put_tiles(objects: Objects, operator: str, tiles: Sequence[Tile]) -> None:
    """Makes tiles and bundles durable."""
    folder = log_folder(operator)
    objects.put([(folder + name.path, content) for name, content in tiles])


def put_checkpoint(objects: Objects, operator: str, signed: bytes) -> None:
    """Makes this the newest checkpoint; everything it covers is there already."""
    objects.replace(checkpoint_path(operator), signed)


def remove_partial(objects: Objects, operator: str, full: Sequence[TileName]) -> None:
    """Takes away what was kept of tiles that have become full since."""
    folder = log_folder(operator)
    for name in full:
        assert name.width == WIDTH
        objects.remove(list(objects.list(f"{folder}{name.path}.p/")))


def remove_unsigned(objects: Objects, operator: str) -> None:
    """Takes away tiles and bundles that the newest archived checkpoint does not reach: a signing that was killed has left
    them. Only for a ledger that is being restored, which numbers other leaves after the checkpoint's than that one did;
    nobody may sign meanwhile."""
    signed = archived_note(objects, operator)
    size = 0 if signed is None else split_checkpoint(signed)[0].size
    folder = log_folder(operator)
    beyond = []
    for path in objects.list(f"{folder}tile/"):
        name = read_tile_name(path.removeprefix(folder))
        if name is not None and name.ends > size:
            beyond.append(path)
    objects.remove(beyond)


def put_contents(objects: Objects, operator: str, day: date, contents: Sequence[Content]) -> None:
    """Archives what the leaves of one transaction commit to; again does no harm."""
    objects.put(
        [
            contents_object(operator, day, contents[at : at + _CONTENTS])
            for at in range(0, len(contents), _CONTENTS)
        ]
    )
