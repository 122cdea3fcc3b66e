"""The pages in docs/ are true: their examples are computed again, their commands exist, their links lead somewhere."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from typer.main import get_command
from usage_cells import site_facts, usage_table

from adapters.api.routes import router
from adapters.cli import framework, main
from adapters.cli.subjects import import_all
from adapters.site_files.apply import apply_site, check_site
from adapters.site_files.nodes import parse_documents
from adapters.site_files.reading import SiteFiles, nothing_beside, read_document
from adapters.site_files.schema import Beside
from adapters.site_files.store import MemorySiteStore
from billing.bill import make_bill
from billing.document import Document, to_json
from billing.draft import next_document
from billing.facts import Facts
from billing.issue import as_issued
from billing.line import Line
from billing.money import format_minor, format_price
from billing.period import Period
from billing.rating import rate
from billing.settlement import settle
from metering.endpoints import ENDPOINTS
from metering.refusal import Fault, Refusal

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OCTOBER, NOVEMBER = Period(2026, 10), datetime(2026, 11, 2, 9, tzinfo=UTC)
Rows = list[dict[str, str]]


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language, in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def rows_of(block: str) -> Rows:
    return list(csv.DictReader(io.StringIO(block)))


# -- arithmetic.md -------------------------------------------------------------------------------------------------


def events_of(rows: Rows) -> list[dict[str, Any]]:
    words = ("customer", "model", "outcome")
    return [
        {
            "node": "vilnius-1",
            **{
                name: datetime.fromisoformat(text) if name == "time" else text if name in words else int(text)
                for name, text in row.items()
            },
        }
        for row in rows
    ]


def said(customer: str, line: Line) -> dict[str, str]:
    """A line in the words of the page."""
    return {
        "customer": customer,
        "price row": line.price_row or "",
        "model": line.model or "",
        "meter": line.meter,
        "window": line.window,
        "tier": "" if line.tier is None else str(line.tier),
        "quantity": str(line.quantity),
        "unit price": format_price(line.unit_price),
        "amount": format_minor(line.amount, "EUR"),
    }


def invoice(facts: Facts, events: list[dict[str, Any]], customer: str, issued: list[Document]) -> Document:
    lines = rate(usage_table(events), facts, OCTOBER).lines[customer]
    bill = make_bill(customer, OCTOBER, "EUR", lines, facts, [])
    draft = next_document(bill, issued, facts.operator[0], facts.customers[customer][0])
    assert isinstance(draft, Document)
    return draft


@pytest.fixture(scope="module")
def example() -> tuple[Facts, list[Rows]]:
    """The facts and the tables of the worked example: usage, lines, documents, shares, late usage, its lines."""
    [site] = blocks("arithmetic.md", "yaml")
    tables = [rows_of(block) for block in blocks("arithmetic.md", "csv")]
    assert len(tables) == 6
    return site_facts(site), tables


def test_the_worked_example_has_the_lines_that_the_page_shows(example: tuple[Facts, list[Rows]]) -> None:
    facts, (usage, lines, *_) = example
    rated = rate(usage_table(events_of(usage)), facts, OCTOBER)
    assert rated.unpriced == ()
    assert [said(customer, line) for customer, found in rated.lines.items() for line in found] == lines


def test_the_worked_example_makes_the_documents_that_the_page_shows(
    example: tuple[Facts, list[Rows]],
) -> None:
    facts, (usage, _, documents, *_) = example
    found = {row["customer"]: invoice(facts, events_of(usage), row["customer"], []) for row in documents}
    assert [
        {
            "customer": customer,
            "lines": format_minor(each.line_total, "EUR"),
            "allowances": format_minor(each.allowance_total, "EUR"),
            "charges": format_minor(each.charge_total, "EUR"),
            "net": format_minor(each.net, "EUR"),
            "VAT": format_minor(each.tax, "EUR"),
            "gross": format_minor(each.gross, "EUR"),
        }
        for customer, each in found.items()
    ] == documents


def test_the_worked_example_is_shared_as_the_page_shows(example: tuple[Facts, list[Rows]]) -> None:
    facts, (_, _, documents, shares, *_) = example
    base = sum(int(Decimal(row["net"]) * 100) for row in documents)
    settlement = settle("telecentras", OCTOBER, "EUR", base, facts.shares[0], [])
    assert settlement is not None
    assert [
        {
            "party": share.party,
            "percent": format_price(share.percent),
            "amount": format_minor(share.amount, "EUR"),
        }
        for share in settlement.shares
    ] == shares


def test_late_usage_of_the_worked_example_asks_for_the_difference(example: tuple[Facts, list[Rows]]) -> None:
    facts, (usage, _, _, _, late, difference) = example
    draft = invoice(facts, events_of(usage), "acme", [])
    first = as_issued(draft, "INV-2026-000001", facts.operator[0], NOVEMBER)
    second = invoice(facts, events_of([*usage, *late]), "acme", [first])
    assert [said("acme", entry.line) for entry in second.lines] == difference
    assert (second.net, second.tax, first.tax + second.tax) == (13, 3, 32)
    assert [each.number for each in second.supplements] == ["INV-2026-000001"]


# -- site-files.md -------------------------------------------------------------------------------------------------


def read(text: str, name: str, beside: Beside = nothing_beside) -> SiteFiles:
    faults: list[Fault] = []
    read_documents = [
        read_document(node, faults, beside) for node in parse_documents(text.encode(), name, faults)
    ]
    return SiteFiles(tuple(each for each in read_documents if each is not None), tuple(faults), ())


def test_the_annotated_site_file_is_applied_as_the_page_shows() -> None:
    example, *_ = blocks("site-files.md", "yaml")
    shown, _ = blocks("site-files.md", "text")
    store = MemorySiteStore()
    applied = asyncio.run(apply_site(store, read(example, "site.yaml"), NOVEMBER))
    assert [f"{version} created" for version in applied.created] == shown.splitlines()
    again = asyncio.run(apply_site(store, read(example, "site.yaml"), NOVEMBER))
    assert again.created == again.changed == ()


def test_the_further_examples_of_site_files_are_applied_after_the_first() -> None:
    example, *further, _refused = blocks("site-files.md", "yaml")
    [series] = blocks("site-files.md", "csv")
    store = MemorySiteStore()
    asyncio.run(apply_site(store, read(example, "site.yaml"), NOVEMBER))
    applied = [
        asyncio.run(
            apply_site(store, read(text, "further.yaml", lambda name: (name, series.encode())), NOVEMBER)
        )
        for text in further
    ]
    assert [(each.created, each.changed) for each in applied] == [
        (("tariff/green",), ()),
        ((), ("tariff/vilnius@2026-10-01",)),
    ]


def test_a_file_full_of_mistakes_is_refused_as_the_page_shows() -> None:
    example, *_, refused = blocks("site-files.md", "yaml")
    _, shown = blocks("site-files.md", "text")
    store = MemorySiteStore()
    asyncio.run(apply_site(store, read(example, "site.yaml"), NOVEMBER))
    with pytest.raises(Refusal) as caught:
        asyncio.run(check_site(store, read(refused, "refused.yaml"), NOVEMBER))
    assert [str(fault) for fault in caught.value.faults] == shown.splitlines()


# -- commands.md ---------------------------------------------------------------------------------------------------


def headed_commands() -> set[str]:
    """The commands that have a heading of their own in commands.md: "### `tally period close P`"."""
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    return {
        " ".join(word for word in title.split() if re.fullmatch(r"[a-z-]+", word))
        for title in re.findall(r"^### `tally ([^`]*)`$", text, re.MULTILINE)
    }


def test_every_command_has_its_place_in_the_page_and_every_one_there_exists() -> None:
    import_all()
    # `tally import FILE` is how people write `import file FILE`
    known = {"import" if path == "import file" else path for path in framework.EXAMPLES}
    assert headed_commands() == known


def test_every_command_is_shown_with_the_example_of_its_help() -> None:
    import_all()
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert [example for example in framework.EXAMPLES.values() if example not in text] == []


def section(command: str) -> str:
    """The text under a command's heading; of `import`, its own page too."""
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    parts = re.split(r"^### `tally ([^`]*)`$", text, flags=re.MULTILINE)
    [found] = [
        body
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
        if " ".join(word for word in title.split() if re.fullmatch(r"[a-z-]+", word)) == command
    ]
    return found + ((DOCS / "import.md").read_text(encoding="utf-8") if command == "import" else "")


SHARED_OPTIONS = {"--data", "--json", "--help", "--operator", "--period"}


def options_of(path: str) -> set[str]:
    """The options that a command takes, but for those that the page explains once."""
    found: Any = get_command(main.app)
    for word in path.split():
        found = found.commands[word]
    names = {name for parameter in found.params for name in parameter.opts if name.startswith("--")}
    return names - SHARED_OPTIONS


def test_every_option_of_every_command_is_explained() -> None:
    import_all()
    lacking = {
        path: sorted(name for name in options_of(path) if name not in section(path.removesuffix(" file")))
        for path in framework.EXAMPLES
    }
    assert {path: names for path, names in lacking.items() if names} == {}


def test_the_keys_of_a_document_are_those_on_the_page(example: tuple[Facts, list[Rows]]) -> None:
    facts, (usage, *_) = example
    document = to_json(invoice(facts, events_of(usage), "acme", []))
    listed = re.findall(r"[a-z_]+", section("invoice list").split("where D is")[1].split("`kind` is")[0])
    parts = {"lines", "allowances", "charges", "taxes"}
    assert set(listed) == set(document) - parts
    lines, taxes = (
        set(re.findall(r"[a-z_]+", section("invoice show").split(f"{name}:")[1].split("}]")[0]))
        for name in ("lines", "taxes")
    )
    assert (lines, taxes) == (set(document["lines"][0]), set(document["taxes"][0]))


def test_every_route_of_the_api_stands_in_the_page() -> None:
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    sidecars = {endpoint.path.decode() for endpoint in ENDPOINTS}
    assert set(re.findall(r"`GET (/v1/[^`]*)`", text)) - sidecars == {
        route.path for route in router.routes if isinstance(route, APIRoute)
    }


def test_every_route_of_the_sidecar_stands_in_the_page() -> None:
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(?:GET |POST )?(/[^` ]*)`", text))
    assert {endpoint.path.decode() for endpoint in ENDPOINTS} <= told


def test_every_variable_of_the_environment_stands_in_the_page() -> None:
    internal = {
        "TALLY_CHILD_OF_UP",
        "TALLY_WORKER_OF_INTAKE",
        "TALLY_KILL_AT",
    }  # between our own processes; a place for tests to kill at
    code = [
        path.read_text(encoding="utf-8")
        for folder in ("adapters", "billing", "metering", "reports")
        for path in (ROOT / folder).rglob("*.py")
    ]
    used = {name for text in code for name in re.findall(r"\bTALLY_[A-Z_]+\b", text)}
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert {name for name in used - internal if f"| `{name}` |" not in text} == set()


# -- all pages -----------------------------------------------------------------------------------------------------


PAGES = [*sorted(DOCS.glob("*.md")), *sorted(ROOT.glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


SHARED_TEXTS = re.compile(r"\b(CONTRACT|EVIDENCE|DESIGN|COMPONENTS|STANDARDS|STYLE|VLLM)\.md\b")


def test_no_file_sends_its_reader_to_a_text_that_is_not_in_the_repository() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files belong to the repository cannot be told")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    files = [ROOT / name for name in listed.split("\0") if name and name != "tests/unit/test_docs.py"]
    texts = {path: path.read_bytes().decode("utf-8", "replace") for path in files if path.is_file()}
    assert [str(path) for path, text in texts.items() if SHARED_TEXTS.search(text)] == []
