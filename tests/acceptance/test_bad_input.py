"""Bad input, told as a user meets it: each is refused by name, with an exit code, and nothing has changed afterwards.

A refused command prints one JSON document, `{error: {code, what, where, remedy, faults}}`, and never a traceback
(`Tally` looks at both). After every test of this file the data folder is what it was before.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
import pyarrow as pa
import pytest
from command import EXAMPLE, Tally, over, write_rows

from adapters.postgres.database import DatabaseUrls

OCTOBER = "2026-10"
GOOD: Mapping[str, object] = {
    "time": "2026-10-12T09:30:00Z",
    "customer": "acme",
    "model": "qwen3-32b",
    "prompt_tokens": 100,
    "cached_tokens": 10,
    "completion_tokens": 20,
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """The example with a little usage, a draft and a key, and its database.

    `kept` is its content as the last test left it, with which the next one begins; empty where it is to be read again.
    """

    tally: Tally
    urls: DatabaseUrls
    kept: dict[str, object] = field(default_factory=dict)

    def content(self) -> dict[str, object]:
        """Everything that is kept: a digest of each table, and each file with its size."""
        files = {str(path): path.stat().st_size for path in self.tally.data.rglob("*") if path.is_file()}
        return {**asyncio.run(self._tables()), **files}

    async def _tables(self) -> dict[str, object]:
        assert self.urls.owner is not None
        connection = await asyncpg.connect(self.urls.owner)
        names = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        )
        content = {
            name: await connection.fetchval(
                f"SELECT md5(string_agg(each::text, ';' ORDER BY each::text)) FROM {name} AS each"
            )
            for (name,) in names
        }
        await connection.close()
        return content


@pytest.fixture(scope="module")
def prepared(fresh_urls: Callable[[], DatabaseUrls], tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder, urls = tmp_path_factory.mktemp("bad-input"), fresh_urls()
    tally = over(urls, folder / "data", EXAMPLE)
    usage = {**GOOD, "prompt_tokens": 10_000_000}
    tally("import", str(write_rows(folder / "good.csv", [usage])))
    tally("period", "close", OCTOBER)
    tally("key", "create", "--customer", "acme")
    return Prepared(tally, urls)


@pytest.fixture
def tally(prepared: Prepared) -> Iterator[Tally]:
    """The prepared data folder, of which nothing may have changed when the test is over."""
    if not prepared.kept:
        prepared.kept.update(prepared.content())
    before = dict(prepared.kept)
    yield prepared.tally
    after = prepared.content()
    prepared.kept.clear()
    prepared.kept.update(after)
    assert after == before


# --- the command line itself


@pytest.mark.parametrize(
    "arguments",
    [
        ("bill",),
        ("usage", "--colour"),
        ("period", "shut", OCTOBER),
        ("import",),
        ("invoice", "show"),
        ("period", "close", OCTOBER, "2026-11"),
    ],
)
def test_a_command_line_that_is_not_understood_is_usage(tally: Tally, arguments: tuple[str, ...]) -> None:
    error = tally.refused(*arguments, exit_code=2)

    assert error["code"] == "usage"
    assert "--help" in error["remedy"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("usage --by colour", "unknown_by"),
        ("usage --by ,", "unknown_by"),
        ("usage --by=", "unknown_by"),
        ("usage --from yesterday", "bad_time"),
        ("usage --from 2026-10-05T08:30:00Z", "bad_time"),
        ("usage --from 2026-10-05T08:00:00", "bad_time"),
        ("usage --from 0001-01-01", "bad_time"),
        ("invoice preview --customer acme --until 0001-01-01", "bad_time"),
        ("tariff show vilnius --at 0001-01-01", "bad_time"),
        ("usage --from 2026-10-06 --to 2026-10-05", "bad_span"),
        ("usage --period 2026-13", "bad_period"),
        ("usage --period October", "bad_period"),
        ("usage --operator nobody", "unknown_operator"),
        ("period close 2026-10 --operator nobody", "unknown_operator"),
        ("period show 2026-09", "not_closed"),
        ("get invoice", "unknown_kind"),
        ("get customer nobody", "unknown_id"),
        ("invoice show acme.2026-10.7", "unknown_document"),
        ("invoice issue acme.2026-10.7", "unknown_document"),
        ("invoice issue", "which_documents"),
        ("invoice credit acme.2026-10.1 --net 1.00 --reason x", "not_issued"),
        ("invoice credit acme.2026-10.1 --reason x", "how_much"),
        ("invoice credit acme.2026-10.1 --net 1,00 --reason x", "bad_amount"),
        ("invoice list --state paid", "unknown_state"),
        ("invoice render acme.2026-10.1 --format docx --out x.docx", "unknown_format"),
        ("invoice render acme.2026-10.1 --out /nowhere/x.pdf", "cannot_write"),
        ("settlement show telecentras.2026-10.1", "unknown_settlement"),
        ("report usage --period 2026-10 --format docx --out x.docx", "unknown_format"),
        ("key create --customer nobody", "unknown_customer"),
        ("key create --customer acme --role finance", "which_key"),
        ("key create --role queen", "unknown_role"),
        ("key create --customer acme --project Chat\x1bbot", "bad_id"),
        ("check /dev/zero", "bad_site_files"),
        ("key create --customer acme --expires 2026-01-01T00:00:00Z", "expires_in_the_past"),
        ("key revoke 8d7f9c2e-0000-4000-8000-000000000000", "unknown_key"),
        ("import void import-0000000000000000 --reason x", "unknown_import"),
        ("demo --fault hiccup", "bad_option"),
        ("demo --limit 5", "bad_option"),
        ("demo --trace nowhere.csv", "no_such_file"),
        ("sidecar --engine http://127.0.0.1:8000 --listen nowhere", "bad_address"),
        ("sidecar --engine http://127.0.0.1:8000 --listen 127.0.0.1:0 --node kaunas-1", "unknown_node"),
    ],
)
def test_what_is_not_there_or_makes_no_sense_is_refused_by_name(
    tally: Tally, arguments: str, code: str
) -> None:
    error = tally.refused(*arguments.split())

    assert error["code"] == code, error


def test_a_refusal_reads_as_one_too_where_nobody_asked_for_json(tally: Tally) -> None:
    ran = tally.run("usage", "--by", "colour")

    assert ran == tally.from_nothing("usage", "--by", "colour")  # as from a user's shell, to the letter
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: cannot be grouped by: colour [--by]\n")
    assert "one or more of: operator, customer, project" in ran.stderr


def test_ctrl_c_ends_a_command_in_words_and_the_next_one_goes_on(prepared: Prepared, tmp_path: Path) -> None:
    rows = [{**GOOD, "prompt_tokens": 1_000 + n, "time": "2026-09-12T09:30:00Z"} for n in range(50_000)]
    file = write_rows(tmp_path / "usage.csv", rows)
    prepared.kept.clear()  # what is imported here stays
    before = prepared.tally("usage")["total"]["requests"]

    importing = prepared.tally.start("import", str(file), "--json")
    wait_for(lambda: list((prepared.tally.data / "scratch").glob("import-*")))
    os.kill(importing.pid, signal.SIGINT)
    stopped = importing.wait()
    again = prepared.tally("import", str(file))

    assert (stopped.exit_code, stopped.document["error"]["code"]) == (130, "interrupted")
    assert again["events"] == len(rows)
    assert prepared.tally("usage")["total"]["requests"] == before + len(rows)
    assert list((prepared.tally.data / "scratch").iterdir()) == []


def wait_for(there: Callable[[], object]) -> None:
    ends = time.monotonic() + 30
    while not there():
        assert time.monotonic() < ends
        time.sleep(0.01)


# --- periods


def test_a_month_that_is_not_over_and_one_that_has_not_begun_are_not_closed(tally: Tally) -> None:
    today = datetime.now(ZoneInfo("Europe/Vilnius"))
    following = f"{today.year + today.month // 12}-{today.month % 12 + 1:02}"

    running = tally.refused("period", "close", f"{today:%Y-%m}")
    future = tally.refused("period", "close", following, "--accept-unfinished")

    assert running["code"] == "period_not_over"
    assert "--accept-unfinished" in running["remedy"]
    assert future["code"] == "period_not_begun"


def test_a_model_without_a_price_stops_the_close_and_is_named(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for path in sorted(EXAMPLE.glob("*.yaml")):
        # The last row of the example prices every other model; here it prices only some.
        (site / path.name).write_text(path.read_text().replace('models: ["*"]', 'models: ["gemma-*"]'))
    urls = fresh_urls()
    tally = over(urls, tmp_path / "data", site)
    unpriced = {**GOOD, "model": "llama-4", "time": "2026-10-12T10:05:00Z"}
    tally("import", str(write_rows(tmp_path / "usage.csv", [GOOD, unpriced])))
    before = Prepared(tally, urls).content()

    error = tally.refused("period", "close", OCTOBER)

    assert error["code"] == "unpriced"
    assert [
        {key: each[key] for key in ("model", "meter", "region", "tokens", "first_hour")}
        for each in error["unpriced"]
    ] == [
        {
            "model": "llama-4",
            "meter": meter,
            "region": "LT-VL",
            "tokens": tokens,
            "first_hour": "2026-10-12T10:00:00Z",
        }
        for meter, tokens in (("input", 100), ("output", 20))
    ]
    assert Prepared(tally, urls).content() == before


def test_a_sale_whose_vat_is_not_built_yet_stops_the_close_by_name(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    abroad = tmp_path / "abroad.yaml"
    abroad.write_text(CUSTOMER.replace("country: LT", "country: DE\nbusiness: true\nvat_id: DE123456788"))
    urls = fresh_urls()
    tally = over(urls, tmp_path / "data", EXAMPLE, abroad)
    rows = [{**GOOD, "prompt_tokens": 10_000_000, "customer": customer} for customer in ("nova", "acme")]
    tally("import", str(write_rows(tmp_path / "usage.csv", rows)))
    before = Prepared(tally, urls).content()

    error = tally.refused("period", "close", OCTOBER, "--issue")

    assert error["code"] == "tax_case_not_supported"
    assert "nova" in str(error)
    assert Prepared(tally, urls).content() == before


# --- site files

CUSTOMER = "kind: customer\nid: nova\noperator: telecentras\nname: Nova\ncountry: LT\n"
TARIFF = """kind: tariff
id: nova
operator: telecentras
currency: EUR
prices:
  - models: ['*']
    input: 1
    output: 2
"""


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        pytest.param(CUSTOMER + "colour: red\n", 6, "colour", id="unknown key"),
        pytest.param(CUSTOMER.replace("telecentras", "nobody"), 3, "nobody", id="undeclared operator"),
        pytest.param(
            "kind: contract\ncustomer: acme\ntariff: gold\nvalid_from: 2027-01-01\n",
            3,
            "gold",
            id="undeclared tariff",
        ),
        pytest.param(
            "kind: contract\ncustomer: nobody\ntariff: vilnius\n", 2, "nobody", id="undeclared customer"
        ),
        pytest.param(CUSTOMER + "address: {street: x, city: [\n", 6, "", id="malformed YAML"),
        pytest.param("kind: customer\n\tid: nova\n", 2, "", id="a tab"),
        pytest.param(CUSTOMER.replace("LT", "Lithuania"), 5, "Lithuania", id="no country code"),
        pytest.param(TARIFF.replace("input: 1", "input: cheap"), 7, "cheap", id="no price"),
        pytest.param(TARIFF.replace("input: 1", "input: -1"), 7, "-1", id="negative price"),
        pytest.param("kind: castle\nid: nova\n", 1, "castle", id="unknown kind"),
    ],
)
def test_a_bad_site_file_is_refused_with_its_line(
    tally: Tally, tmp_path: Path, text: str, line: int, what: str
) -> None:
    site = tmp_path / "nova.yaml"
    site.write_text(text)

    applied, checked = tally.refused("apply", str(site)), tally.refused("check", str(site))

    assert applied == checked
    assert applied["code"] == "bad_site_files"
    assert f"nova.yaml:{line}" in [fault["where"].rpartition("/")[2] for fault in applied["faults"]], applied
    assert what in " ".join(fault["what"] for fault in applied["faults"])


def test_what_is_legal_and_odd_is_warned_of_with_its_line_and_not_refused(
    tally: Tally, tmp_path: Path
) -> None:
    site = tmp_path / "odd.yaml"
    site.write_text(TARIFF.replace("input: 1", "input: 0.0004") + "segments: {sme: 0.15%}\n")

    warnings = tally("check", str(site))["warnings"]

    assert [(each["where"], each["remedy"]) for each in warnings] == [
        (f"{site}:7", "presumably 0.4 is meant; prices are per 1,000,000 tokens"),
        (f"{site}:9", "presumably 15% is meant"),
    ]
    for_people = tally.run("check", str(site))
    assert for_people.exit_code == 0
    assert [line.partition(": ")[0] for line in for_people.stderr.splitlines()] == ["warning", "warning"]
    assert "no fault found, 2 warnings; nothing was changed" in for_people.stdout

    site.write_text(site.read_text() + "---\nkind: castle\n")
    assert tally.refused("apply", str(site))["warnings"] == warnings
    assert [line.partition(": ")[0] for line in tally.run("apply", str(site)).stderr.splitlines()[:3]] == [
        "warning",
        "warning",
        "error",
    ]


def test_all_faults_of_all_files_are_listed_at_once(tally: Tally, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        CUSTOMER + "colour: red\n---\n" + TARIFF.replace("input: 1", "input: cheap")
    )
    (tmp_path / "b.yaml").write_text("kind: contract\ncustomer: nova\ntariff: gold\n")

    error = tally.refused("apply", str(tmp_path))

    assert [fault["where"].rpartition("/")[2] for fault in error["faults"]] == [
        "a.yaml:6",
        "a.yaml:14",
        "b.yaml:3",
    ]


# --- files of usage


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"prompt_tokens": -1}, "prompt_tokens is not a whole number"),
        ({"prompt_tokens": 100.5}, "prompt_tokens is not a whole number"),
        ({"completion_tokens": "many"}, "completion_tokens is not a whole number"),
        ({"completion_tokens": 10**12 + 1}, "more than 1000000000000"),
        ({"cached_tokens": 101}, "cached_tokens 101 is more than prompt_tokens 100"),
        ({"time": "2026-10-12T09:30:00"}, "time without a zone"),
        ({"time": "2026-02-30T09:30:00Z"}, "no such date"),
        ({"time": "12.10.2026"}, "not a time"),
        ({"time": "1793784600"}, "bare number"),
        ({"time": "2126-10-12T09:30:00Z"}, "time outside 2020 … now"),
        ({"customer": "Acme UAB"}, "customer is not an id"),
        ({"customer": ""}, "customer is not an id"),
        ({"model": ""}, "model is empty"),
        ({"model": "qwen\0"}, "control character"),
        ({"prompt_tokens": ""}, "prompt_tokens is empty"),
    ],
)
def test_a_bad_row_refuses_the_file_and_is_named_by_its_line(
    tally: Tally, tmp_path: Path, wrong: dict[str, object], what: str
) -> None:
    rows = write_rows(tmp_path / "usage.csv", [{**GOOD, "prompt_tokens": 101}, {**GOOD, **wrong}, GOOD])

    error = tally.refused("import", str(rows))

    assert error["code"] == "bad_rows"
    [fault] = error["faults"]
    assert fault["where"] == "usage.csv:3"
    assert what in fault["what"]


def test_a_row_cut_in_half_is_named(tally: Tally, tmp_path: Path) -> None:
    whole = write_rows(tmp_path / "usage.csv", [GOOD, {**GOOD, "prompt_tokens": 101}])
    whole.write_text(whole.read_text()[:-20])

    error = tally.refused("import", str(whole))

    assert error["code"] == "bad_rows"
    assert [fault["where"] for fault in error["faults"]] == ["usage.csv:3"]
    assert "cut in half" in error["faults"][0]["remedy"]


def test_a_compressed_file_cut_in_half_is_not_read_as_a_short_one(tally: Tally, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "usage.csv", [{**GOOD, "prompt_tokens": 100 + n} for n in range(5_000)])
    for codec, suffix in (("zstd", ".zst"), ("gzip", ".gz")):
        cut = tmp_path / f"usage.csv{suffix}"
        with pa.CompressedOutputStream(str(cut), codec) as out:
            out.write(rows.read_bytes())
        cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])

        error = tally.refused("import", str(cut))

        assert error["code"] in ("unreadable_file", "bad_rows"), error
        assert "nothing" in error["what"] or error["remedy"], error


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("usage.xlsx", b"PK", "unknown_format"),
        ("usage", b"a,b\n", "unknown_format"),
        ("usage.csv", b"", "empty_file"),
        ("usage.csv", b"time,customer,model\n", "missing_column"),
        ("usage.csv", b"\xff\xfe\x00", "unreadable_file"),
        ("usage.csv", b"time,time,model\n", "duplicate_column"),
        ("usage.parquet", b"not parquet", "unreadable_file"),
        ("usage.csv.zst", b"not zstd", "unreadable_file"),
        ("usage.jsonl", b"{\n", "bad_rows"),
        ("usage.json", b"[{", "unreadable_file"),
        ("usage.csv", b"time,customer\r2026-10-05T08:00:00Z,acme\r", "unreadable_file"),
        ("usage.jsonl", b'{"model": "a", "model": "b"}\n', "bad_rows"),
        ("usage.jsonl", b"[" * 100_000, "bad_rows"),
    ],
)
def test_a_file_that_is_no_usage_is_refused(
    tally: Tally, tmp_path: Path, name: str, content: bytes, code: str
) -> None:
    (tmp_path / name).write_bytes(content)

    error = tally.refused("import", str(tmp_path / name))

    assert error["code"] == code, error


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("--map colour=red", "bad_option"),
        ("--map prompt_tokens=input", "unknown_column"),
        ("--map model=model --set model=x", "bad_option"),
        ("--time-unit fortnights", "bad_option"),
        ("--time-origin 2026-10-05T08:00:00Z", "bad_option"),
        ("--time-unit s --time-origin 2026-10-05", "bad_option"),
        ("--time-zone Mars/Olympus", "bad_option"),
        ("--node kaunas-1", "unknown_node"),
    ],
)
def test_import_options_that_do_not_fit_are_refused(
    tally: Tally, tmp_path: Path, options: str, code: str
) -> None:
    rows = write_rows(tmp_path / "usage.csv", [{**GOOD, "prompt_tokens": 101}])

    assert tally.refused("import", str(rows), *options.split())["code"] == code


def test_unknown_customers_are_listed_and_none_is_made(tally: Tally, tmp_path: Path) -> None:
    rows = [{**GOOD, "customer": customer} for customer in ("nova", "acme", "orbit", "nova")]

    error = tally.refused("import", str(write_rows(tmp_path / "usage.csv", rows)))

    assert error["code"] == "unknown_customer"
    assert [fault["what"] for fault in error["faults"]] == [
        "no such customer: nova",
        "no such customer: orbit",
    ]
    assert "--create-customers" in error["remedy"]


def test_a_dry_run_says_what_would_be_and_does_nothing(tally: Tally, tmp_path: Path) -> None:
    rows = [{**GOOD, "customer": "nova"}, {**GOOD, "prompt_tokens": 101}]
    file = write_rows(tmp_path / "usage.csv", rows)

    told = tally("import", str(file), "--dry-run", "--create-customers")

    assert (told["events"], told["prompt_tokens"]) == (2, 201)


# --- what a failing dependency does


def test_a_database_that_is_down_is_not_the_users_fault(tmp_path: Path) -> None:
    nobody_listens = "postgresql://tally_app:secret@127.0.0.1:9/tally"
    tally = Tally(tmp_path / "data", environment={"TALLY_DATABASE_URL": nobody_listens})
    commands = ("usage", f"apply {EXAMPLE}", "period close 2026-10", "streams")

    # Side by side, since each waits some seconds for the database to come back.
    for ran in [each.wait() for each in [tally.start(*line.split(), "--json") for line in commands]]:
        assert ran.exit_code == 4, ran
        assert ran.document["error"]["code"] == "database_down"
        assert "secret" not in ran.stdout + ran.stderr


def test_a_url_of_something_else_is_refused(tmp_path: Path) -> None:
    tally = Tally(tmp_path / "data", environment={"TALLY_DATABASE_URL": "mysql://x@y/z"})

    assert tally.refused("usage")["code"] == "database_url"
