"""YAML text as a tree whose every node knows its place: `file:line`.

Scalars are the text that stands there, whether quoted or not: YAML's own ideas of NO, 0.40 and 01100 never
apply. The tree is built from the parser's events, not its nodes, so that anchors, aliases and tags (ways to
write one thing and mean another, or to make a kilobyte into a gigabyte) are seen as they are written and
refused by name. Documents before a torn one are kept, so that their faults are listed together with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

from metering.refusal import Fault

MAX_DEPTH = 24
MAX_BYTES = 64 * 1024 * 1024

_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast; both give events


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """One text. `empty`: nothing stands there, not even quotes."""

    place: str
    text: str
    empty: bool = False


@dataclass(frozen=True, slots=True)
class ListNode:
    place: str
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MapNode:
    """Keys are text and unique. `places` says where each key stands."""

    place: str
    entries: dict[str, Node] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


Node = ScalarNode | ListNode | MapNode


def parse_documents(raw: bytes, file: str, faults: list[Fault]) -> list[Node]:
    """The documents of one file in order, empty ones left out; what is wrong with the YAML goes to
    `faults`.
    """
    if len(raw) > MAX_BYTES:
        faults.append(Fault(f"the file is larger than {MAX_BYTES} bytes", f"{file}:1", "split it"))
        return []
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as torn:
        line = raw.count(b"\n", 0, torn.start) + 1
        faults.append(Fault("not UTF-8 text", f"{file}:{line}", "save the file as UTF-8"))
        return []
    found: list[Node] = []
    reading = _Reading(file, faults)
    try:
        for event in yaml.parse(text, Loader=_Parser):
            root = reading.take(event)
            if root is not None and not (isinstance(root, ScalarNode) and root.empty):
                found.append(root)
    except yaml.YAMLError as malformed:
        faults.append(_malformed(malformed, text, file))
    except _TooDeepError as deep:
        faults.append(Fault(f"nested deeper than {MAX_DEPTH} levels", deep.place, "no kind needs so many"))
    if not found and not faults:
        faults.append(
            Fault("no document in this file", f"{file}:1", "write at least one, beginning with `kind:`")
        )
    return found


class _TooDeepError(Exception):
    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place


class _Open:
    """A list or map still being filled; `key` is the map's key that waits for its value."""

    def __init__(self, node: ListNode | MapNode) -> None:
        self.node = node
        self.key: str | None = None
        self.key_taken = False  # a key that is refused still takes its value, which is dropped


class _Reading:
    """Turns the events of one file into trees, without recursion."""

    def __init__(self, file: str, faults: list[Fault]) -> None:
        self._file = file
        self._faults = faults
        self._stack: list[_Open] = []

    def take(self, event: yaml.Event) -> Node | None:
        """The whole tree when `event` finishes a document's root."""
        if isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent | yaml.DocumentStartEvent):
            return None
        if isinstance(event, yaml.DocumentEndEvent):
            return None
        assert event.start_mark is not None, "the parser marks every event"
        place = f"{self._file}:{event.start_mark.line + 1}"
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            return self._place(self._stack.pop().node)
        self._refuse_indirection(event, place)
        if isinstance(event, yaml.ScalarEvent):
            return self._place(ScalarNode(place, event.value, not event.value and event.style in (None, "")))
        if isinstance(event, yaml.AliasEvent):
            return self._place(ScalarNode(place, "", True))
        assert isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent), event
        if len(self._stack) >= MAX_DEPTH:
            raise _TooDeepError(place)
        opened = MapNode(place) if isinstance(event, yaml.MappingStartEvent) else ListNode(place)
        self._stack.append(_Open(opened))
        return None

    def _refuse_indirection(self, event: yaml.Event, place: str) -> None:
        if isinstance(event, yaml.AliasEvent):
            self._fault(place, f"*{event.anchor} is a YAML alias", "write the value out")
            return
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor:
            self._fault(place, f"&{anchor} is a YAML anchor", "leave it out")
        if tag:
            short = tag.replace("tag:yaml.org,2002:", "!!")
            self._fault(place, f"{short} is a YAML tag", "leave it out: the key says the type")

    def _fault(self, place: str, what: str, remedy: str) -> None:
        self._faults.append(Fault(what, place, remedy))

    def _place(self, node: Node) -> Node | None:
        """Put a finished node into what is open; a root is handed back instead."""
        if not self._stack:
            return node
        top = self._stack[-1]
        if isinstance(top.node, ListNode):
            top.node.items.append(node)
        elif not top.key_taken:
            top.key, top.key_taken = self._key(top.node, node), True
        else:
            if top.key is not None:
                top.node.entries[top.key] = node
            top.key_taken = False
        return None

    def _key(self, into: MapNode, node: Node) -> str | None:
        if not isinstance(node, ScalarNode):
            self._fault(node.place, "a key must be a word, not a list or a map", "write `key: value`")
            return None
        if node.text in into.places:
            first = into.places[node.text].rpartition(":")[2]
            self._fault(node.place, f"the key {node.text!r} stands twice", f"the first is in line {first}")
            return None
        into.places[node.text] = node.place
        return node.text


def _malformed(error: yaml.YAMLError, text: str, file: str) -> Fault:
    """The line where the parser stumbled; where that is the file's end, the line where the torn part began."""
    problem, context = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    rows = text.rstrip().split("\n")
    lines = len(rows)
    if problem is None:
        line = min(text.count("\n", 0, getattr(error, "position", 0) or 0) + 1, lines)
    elif problem.line < lines or context is None:
        line = min(problem.line + 1, lines)
    else:
        line = min(context.line + 1, lines)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "not understood"
    doing = getattr(error, "context", None)
    while_doing = f", {doing}" if doing else ""
    remedy = (
        "indent with blanks, not tabs"
        if "\t" in rows[line - 1]
        else "check indentation, quotes and brackets there"
    )
    return Fault(f"malformed YAML: {what}{while_doing}", f"{file}:{line}", remedy)
