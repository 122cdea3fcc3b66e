"""The other sidecar lanes of a node, as the one that speaks for it lists them: who is listed can't vanish unmissed."""

from __future__ import annotations

import logging
from pathlib import Path

from metering.fact import Sibling
from metering.refusal import Refusal
from metering.seal import peek_seal, seal_hash

#: The lane of a sidecar that is given no other.
FIRST_LANE = "sidecar-0"

_log = logging.getLogger(__name__)


def siblings(spool: Path, operator: str, node: str, lane: str) -> list[Sibling]:
    """The other sidecar lanes of the node that have sealed something, by name, each with its newest seal.

    They are read from the spool folder that the node's sidecars share. A head that can't be read is left out with a
    warning.
    """
    found = []
    for head in sorted((spool / operator / node).glob("*/head")):
        if head.parent.name == lane:
            continue
        try:
            note = head.read_bytes()
            seal = peek_seal(note)
        except (OSError, Refusal) as error:
            _log.warning("the head of the lane %s cannot be read: %s", head.parent.name, error)
            continue
        if seal.kind == "sidecar":
            found.append(Sibling(seal.lane, seal.epoch, seal.number, seal_hash(note)))
    return found
