"""From files, folders and standard input to site documents, with every fault of every file.

A document with faults is kept, marked, when its kind and id could be read: references to it are then no
faults of their own. What a document means beside others is checked later, in
`adapters.site_files.references`.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from adapters.site_files import schema
from adapters.site_files.kinds import KINDS_BY_NAME
from adapters.site_files.legal_scalars import doubtful_vat_id
from adapters.site_files.nodes import MAX_BYTES, MapNode, Node, ScalarNode, parse_documents
from adapters.site_files.schema import MISSING, Beside, Reading, near_miss, shorten
from adapters.site_files.tariff_scalars import FIRST
from billing.facts import EVERYWHERE
from metering.refusal import Fault, Refusal

STANDARD_INPUT = "-"
ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class SiteDocument:
    """One document as a file states it. `body` is plain form without kind, ids and `valid_from`.

    `operator`: a contract's is "" until its customer is looked up, a party's is `EVERYWHERE`.
    `where` is `file:line` of its beginning, `places` that of every key; `faulty`: some of it could not be
    read.
    """

    kind: str
    id: str
    operator: str
    valid_from: date | None
    body: Mapping[str, Any]
    where: str
    places: Mapping[schema.Path, str] = field(default_factory=dict)
    faulty: bool = False

    def place(self, *path: str | int) -> str:
        """Where a key stands, or else the document."""
        return self.places.get(path, self.where)


@dataclass(frozen=True, slots=True)
class SiteFiles:
    """What was read: documents in order, faults that refuse the whole, and warnings that refuse nothing."""

    documents: tuple[SiteDocument, ...]
    faults: tuple[Fault, ...]
    warnings: tuple[Fault, ...]


def refuse_faults(faults: Sequence[Fault], warnings: Sequence[Fault] = ()) -> None:
    """Raise `bad_site_files` with every fault once, by file and line, if there are any; `warnings` go with it."""
    if not faults:
        return
    listed = in_order(faults)
    count = "1 fault" if len(listed) == 1 else f"{len(listed)} faults"
    raise Refusal(
        "bad_site_files",
        f"{count} in site files; nothing was changed",
        where=listed[0].where,
        remedy="mend each line that is listed",
        faults=listed,
        extra={"warnings": faults_to_json(warnings)} if warnings else None,
    )


def in_order(faults: Sequence[Fault]) -> list[Fault]:
    """Each fault or warning once, by file and line."""
    return sorted(dict.fromkeys(faults), key=_by_file_and_line)


def faults_to_json(faults: Sequence[Fault]) -> list[dict[str, str]]:
    return [{"what": each.what, "where": each.where, "remedy": each.remedy} for each in faults]


def read_files(
    paths: Sequence[str | Path], stdin: Callable[[], bytes] = lambda: sys.stdin.buffer.read()
) -> SiteFiles:
    """Read files, folders (their *.yaml and *.yml by name) and `-` in the order given, collecting faults."""
    faults: list[Fault] = []
    warnings: list[Fault] = []
    documents: list[SiteDocument] = []
    for file, raw in _sources(paths, stdin, faults):
        for node in parse_documents(raw, file, faults):
            document = read_document(node, faults, _beside(file))
            if document is not None:
                documents.append(document)
                warnings.extend(_warnings(document))
    return SiteFiles(tuple(documents), tuple(faults), tuple(warnings))


def nothing_beside(name: str) -> tuple[str, bytes]:
    """Of a text that came without a file: no file lies beside it."""
    raise FileNotFoundError(errno.ENOENT, "there is no file beside this text", name)


def read_document(node: Node, faults: list[Fault], beside: Beside = nothing_beside) -> SiteDocument | None:
    """One document by the table of its kind; None when not even kind and id can be told.

    `beside` reads the files that it names (`Reading.beside`).
    """
    if not isinstance(node, MapNode):
        faults.append(Fault("not a document: a map is needed", node.place, "begin with `kind: …`"))
        return None
    said = node.entries.get("kind")
    names = list(KINDS_BY_NAME)
    if said is None or (isinstance(said, ScalarNode) and not said.text):
        faults.append(Fault("kind: missing", node.place, f"allowed: {', '.join(names)}"))
        return None
    kind = KINDS_BY_NAME.get(said.text) if isinstance(said, ScalarNode) else None
    if kind is None:
        word = said.text if isinstance(said, ScalarNode) else "a list or map"
        faults.append(Fault(f"kind: {shorten(word)} is no kind", said.place, near_miss(word, names)))
        return None
    reading = Reading([], beside)
    whole = schema.read(kind.table, node, (), reading)
    faults.extend(reading.faults)
    if whole is MISSING or kind.identity not in whole or (kind.owned and "operator" not in whole):
        return None
    identity = whole[kind.identity]
    former = whole.get("supersedes", FIRST)
    operators = {"operator": identity, "share": identity, "contract": "", "party": EVERYWHERE}
    begin = whole.get("valid_from") or (None if former == FIRST else former)
    return SiteDocument(
        kind=kind.name,
        id=identity,
        operator=whole["operator"] if kind.owned else operators[kind.name],
        valid_from=None if begin is None else date.fromisoformat(begin),
        body={key: value for key, value in whole.items() if key not in kind.outside_body},
        where=node.place,
        places=reading.places,
        faulty=bool(reading.faults),
    )


def _sources(
    paths: Sequence[str | Path], stdin: Callable[[], bytes], faults: list[Fault]
) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for given in paths:
        if str(given) == STANDARD_INPUT:
            found.append((STANDARD_INPUT, stdin()))
            continue
        path = Path(given)
        try:
            files = _files_of(path, faults)
            found.extend((str(file), _bounded(file)) for file in files)
        except OSError as denied:
            place = str(denied.filename or path)
            faults.append(
                Fault(f"cannot be read: {denied.strerror}", place, "name a readable file or folder")
            )
    return found


def _beside(site_file: str) -> Beside:
    """Reads files by their paths as seen from the site file; from standard input, as seen from here.

    Only from its folder and those below, links followed: whoever writes a site file reads nothing by it that lies
    elsewhere.
    """
    folder = Path() if site_file == STANDARD_INPUT else Path(site_file).parent

    def read(name: str) -> tuple[str, bytes]:
        file = folder / name
        if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
            raise PermissionError(errno.EACCES, "it lies outside the folder of the site file", str(file))
        return str(file), _bounded(file)

    return read


def _bounded(file: Path) -> bytes:
    """The file, or more of it than a site file may have, which is then refused. OSError of what is no file: a pipe that
    nobody writes to would be waited for, and devices have no end."""
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(file))
    with file.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)


def _files_of(path: Path, faults: list[Fault]) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in ENDINGS and file.is_file())
    if not files:
        faults.append(Fault("no *.yaml or *.yml in this folder", str(path), "name a folder that has some"))
    return files


def _warnings(document: SiteDocument) -> list[Fault]:
    vat_id = document.body.get("vat_id")
    if vat_id is None or not doubtful_vat_id(vat_id):
        return []
    where = document.place("vat_id")
    return [Fault(f"vat_id: {vat_id} has wrong check digits", where, "compare it with the register")]


def _by_file_and_line(fault: Fault) -> tuple[str, int, str]:
    file, _, line = fault.where.rpartition(":")
    return (file, int(line), fault.what) if line.isdigit() else (fault.where, 0, fault.what)
