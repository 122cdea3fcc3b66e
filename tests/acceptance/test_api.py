"""The API over HTTP: every route says what the command line says, to keys with a role, and to no one else.

Two operators share the installation, so that a key of one can be seen to open nothing of the other's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from command import EXAMPLE, Json, Tally, over, write_rows

from adapters.api.roles import MAY_READ
from adapters.postgres.database import DatabaseUrls
from adapters.postgres.keys import ROLES

OCTOBER = "2026-10"
SECOND_OPERATOR = """kind: operator
id: rheinrechner
name: Rheinrechner GmbH
country: DE
vat_id: DE123456788
address: {street: Uferweg 1, city: Köln, postcode: "50667", country: DE}
currency: EUR
timezone: Europe/Berlin
language: en
numbering: {invoice: "RR-{yyyy}-{n:06}", credit_note: "RRK-{yyyy}-{n:06}"}
default_tariff: rhein
payment_terms_days: 30
---
kind: node
id: koeln-1
operator: rheinrechner
region: DE-NW
---
kind: tariff
id: rhein
operator: rheinrechner
currency: EUR
prices: [{models: ["*"], input: 1.00, output: 2.00}]
---
kind: customer
id: domblick
operator: rheinrechner
name: Domblick e.V.
country: DE
business: false
address: {street: Am Dom 2, city: Köln, postcode: "50667", country: DE}
language: en
"""


@dataclass(frozen=True, slots=True)
class Served:
    """A served installation, and a client for each kind of key."""

    tally: Tally
    address: str
    secrets: dict[str, str]

    def get(self, path: str, key: str | None = "all") -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {self.secrets.get(key, key)}"}
        return httpx.get(self.address + path, headers=headers, timeout=60)

    def json(self, path: str, key: str | None = "all") -> Json:
        answer = self.get(path, key)
        assert answer.status_code == 200, answer.text
        document: Json = answer.json()
        return document

    def error(self, status: int, path: str, key: str | None = "all") -> Json:
        answer = self.get(path, key)
        assert answer.status_code == status, answer.text
        error: Json = answer.json()["error"]
        assert set(error) >= {"code", "what", "where", "remedy", "faults"}
        return error


@pytest.fixture(scope="module")
def served(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("api")
    second = folder / "second.yaml"
    second.write_text(SECOND_OPERATOR)
    tally = over(fresh_urls(), folder / "data", EXAMPLE, second)
    usage = {
        "time": "2026-10-12T09:30:00Z",
        "model": "m",
        "prompt_tokens": 10_000_000,
        "completion_tokens": 0,
    }
    for node, customers in (("vilnius-1", ("acme", "baltic-letters")), ("koeln-1", ("domblick",))):
        rows = [{**usage, "customer": customer} for customer in customers]
        tally("import", str(write_rows(folder / f"{node}.csv", rows)), "--node", node)
    tally("period", "close", OCTOBER, "--issue")
    tally("settlement", "run", "--period", OCTOBER)
    keys = {
        "all": ("--role", "finance"),
        "vilnius": ("--role", "finance", "--operator", "telecentras"),
        "cologne": ("--role", "auditor", "--operator", "rheinrechner"),
        "customer": ("--customer", "acme"),
        "operator": ("--role", "operator"),
        "compliance": ("--role", "compliance"),
        "auditor": ("--role", "auditor"),
    }
    secrets = {name: tally("key", "create", *options)["secret"] for name, options in keys.items()}
    revoked = tally("key", "create", "--role", "finance")
    tally("key", "revoke", revoked["id"])
    secrets["revoked"] = revoked["secret"]
    with tally.serving("api", "--listen", "127.0.0.1:0") as told:
        yield Served(tally, told["api"], secrets)


@pytest.mark.parametrize(
    ("path", "command"),
    [
        (f"/v1/usage?period={OCTOBER}&by=customer,model", f"usage --period {OCTOBER} --by customer,model"),
        ("/v1/usage?by=operator", "usage --by operator"),
        (
            "/v1/usage?from=2026-10-12&to=2026-10-13&by=hour",
            "usage --from 2026-10-12 --to 2026-10-13 --by hour",
        ),
        ("/v1/invoices", "invoice list"),
        (f"/v1/invoices?period={OCTOBER}&customer=acme", f"invoice list --period {OCTOBER} --customer acme"),
        ("/v1/invoices?state=draft", "invoice list --state draft"),
        ("/v1/invoices/acme.2026-10.1", "invoice show acme.2026-10.1"),
        (
            f"/v1/invoices/preview?customer=acme&period={OCTOBER}",
            f"invoice preview --customer acme --period {OCTOBER}",
        ),
        ("/v1/settlements", "settlement list"),
        (f"/v1/settlements?period={OCTOBER}", f"settlement list --period {OCTOBER}"),
        ("/v1/settlements/telecentras.2026-10.1", "settlement show telecentras.2026-10.1"),
    ],
)
def test_a_route_says_what_the_command_says(served: Served, path: str, command: str) -> None:
    assert served.json(path) == served.tally(*command.split())


def test_an_invoice_is_found_by_its_number_too(served: Served) -> None:
    by_id = served.json("/v1/invoices/acme.2026-10.1")

    assert served.json(f"/v1/invoices/{by_id['number']}") == by_id


def test_an_invoices_pdf_is_the_one_that_the_command_writes(served: Served, tmp_path: Path) -> None:
    answer = served.get("/v1/invoices/acme.2026-10.1/files/pdf")
    told = served.tally("invoice", "render", "acme.2026-10.1", "--out", str(tmp_path / "a.pdf"))

    assert answer.headers["content-type"] == "application/pdf"
    assert answer.content.startswith(b"%PDF-")
    assert [hashlib.sha256(answer.content).hexdigest()] == [file["sha256"] for file in told["files"]]
    assert re.search(r'filename="TLC-\d{4}-\d{6}\.pdf"', answer.headers["content-disposition"])


@pytest.mark.parametrize(
    ("format", "kind"),
    [("csv", "text/csv; charset=utf-8"), ("json", "application/json"), ("pdf", "application/pdf")],
)
def test_the_usage_report_comes_in_each_format(served: Served, format: str, kind: str) -> None:
    answer = served.get(f"/v1/reports/usage?period={OCTOBER}&format={format}", "vilnius")

    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == kind
    assert f'filename="usage-telecentras-{OCTOBER}.{format}"' in answer.headers["content-disposition"]
    assert len(answer.content) > 100


def test_health_and_the_description_need_no_key(served: Served) -> None:
    described = served.json("/openapi.json", None)

    assert served.json("/v1/health", None) == {"ok": True}
    assert {
        "/v1/usage",
        "/v1/invoices",
        "/v1/invoices/preview",
        "/v1/invoices/{reference}",
        "/v1/invoices/{reference}/files/{format}",
        "/v1/settlements",
        "/v1/settlements/{id}",
        "/v1/reports/usage",
        "/v1/health",
    } == set(described["paths"])


@pytest.mark.parametrize(
    "path", ["/v1/usage", "/v1/invoices", "/v1/settlements", "/v1/reports/usage?period=2026-10"]
)
@pytest.mark.parametrize("key", [None, "tg_nobody", "revoked"])
def test_without_a_valid_key_there_is_no_answer(served: Served, path: str, key: str | None) -> None:
    assert served.error(401, path, key)["code"] == "unauthorized"
    assert served.get(path, key).headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/invoices", "/v1/invoices/acme.2026-10.1"])
def test_a_customers_key_opens_the_sidecar_not_the_api(served: Served, path: str) -> None:
    assert served.error(403, path, "customer")["code"] == "forbidden"


READABLE = {
    "usage": ["/v1/usage"],
    "reports": [f"/v1/reports/usage?period={OCTOBER}"],
    "invoices": [
        "/v1/invoices",
        f"/v1/invoices/preview?customer=acme&period={OCTOBER}",
        "/v1/invoices/acme.2026-10.1",
        "/v1/invoices/acme.2026-10.1/files/pdf",
    ],
    "settlements": ["/v1/settlements", "/v1/settlements/telecentras.2026-10.1"],
}


def test_every_role_reads_what_is_its_own_and_is_refused_the_rest_by_name(served: Served) -> None:
    assert set(MAY_READ) == set(ROLES)
    assert MAY_READ["operator"] == {"usage", "reports"}
    assert all(MAY_READ[role] == set(READABLE) for role in ("finance", "compliance", "auditor"))
    for role, key in {**{role: role for role in ROLES}, "finance": "all"}.items():
        for subject, paths in READABLE.items():
            for path in paths:
                if subject not in MAY_READ[role]:
                    error = served.error(403, path, key)
                    assert error["what"] == f"a key of the role {role} may not read {subject}"
                    assert error["remedy"] == "use a key of one of the roles auditor, compliance, finance"
                elif subject != "reports":  # of one operator only; its own test asks for it
                    assert served.get(path, key).status_code == 200, (role, path)
                else:
                    assert served.error(400, path, key)["code"] == "which_operator"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/invoices/acme.2026-10.9", "unknown_document"),
        ("/v1/invoices/preview?customer=nobody", "unknown_customer"),
        ("/v1/invoices/acme.2026-10.9/files/pdf", "unknown_document"),
        ("/v1/settlements/telecentras.2026-10.9", "unknown_settlement"),
        ("/v1/nowhere", "unknown_route"),
    ],
)
def test_what_is_not_there_is_not_found(served: Served, path: str, code: str) -> None:
    assert served.error(404, path)["code"] == code


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/usage?by=colour", "unknown_by"),
        ("/v1/usage?by=", "unknown_by"),
        (f"/v1/usage?periode={OCTOBER}", "unknown_parameter"),
        ("/v1/settlements/x?by=day", "unknown_parameter"),
        ("/v1/usage?period=2026-13", "bad_period"),
        ("/v1/usage?from=yesterday", "bad_time"),
        ("/v1/usage?from=0001-01-01", "bad_time"),
        ("/v1/invoices/preview?customer=acme&until=0001-01-01", "bad_time"),
        ("/v1/invoices?state=paid", "unknown_state"),
        ("/v1/invoices/preview", "bad_request"),
        ("/v1/invoices/preview?customer=acme&until=noon", "bad_time"),
        (f"/v1/invoices/preview?customer=acme&period={OCTOBER}&until=2026-10-01", "bad_until"),
        ("/v1/invoices?customer=%00", "bad_text"),
        ("/v1/invoices/acme%00", "bad_text"),
        ("/v1/settlements/a%00b", "bad_text"),
        ("/v1/reports/usage?period=%00", "bad_text"),
        ("/v1/invoices/acme.2026-10.1/files/docx", "unknown_format"),
        ("/v1/reports/usage", "bad_request"),
        (f"/v1/reports/usage?period={OCTOBER}&format=docx", "unknown_format"),
        (f"/v1/reports/usage?period={OCTOBER}", "which_operator"),
    ],
)
def test_a_bad_question_is_refused_by_name(served: Served, path: str, code: str) -> None:
    assert served.error(400, path)["code"] == code


def test_a_refusal_names_the_query_parameter_and_those_that_are_known(served: Served) -> None:
    assert served.error(400, "/v1/usage?by=colour")["where"] == "by"
    unknown = served.error(400, "/v1/usage?since=2026-10-01")
    assert (unknown["where"], unknown["remedy"]) == (
        "since",
        "known here are: period, by, from, to, customer",
    )


def test_another_method_is_refused(served: Served) -> None:
    answer = httpx.delete(f"{served.address}/v1/invoices/acme.2026-10.1")

    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "wrong_method"


def test_a_key_of_one_operator_sees_that_operator_only(served: Served) -> None:
    for key, customers, operator in (
        ("vilnius", {"acme", "baltic-letters"}, "telecentras"),
        ("cologne", {"domblick"}, "rheinrechner"),
        ("all", {"acme", "baltic-letters", "domblick"}, None),
    ):
        assert {row["customer"] for row in served.json("/v1/usage?by=customer", key)["rows"]} == customers
        listed = served.json("/v1/invoices", key)["invoices"]
        assert {each["customer"] for each in listed} == customers
        settled = served.json("/v1/settlements", key)["settlements"]
        assert {each["operator"] for each in settled} <= (
            {operator} if operator else {"telecentras", "rheinrechner"}
        )

    assert served.error(404, "/v1/invoices/acme.2026-10.1", "cologne")["code"] == "unknown_document"
    assert (
        served.error(404, "/v1/settlements/telecentras.2026-10.1", "cologne")["code"] == "unknown_settlement"
    )
    assert (
        served.error(404, "/v1/invoices/domblick.2026-10.1/files/pdf", "vilnius")["code"]
        == "unknown_document"
    )


def test_the_documentation_loads_nothing_from_elsewhere(served: Served) -> None:
    page = httpx.get(f"{served.address}/docs")

    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert any(asset.endswith(".js") for asset in assets)
    for asset in assets:
        assert asset.startswith("/"), asset
        assert httpx.get(served.address + asset).status_code == 200, asset


def test_no_answer_names_the_server_or_keeps_the_asker(served: Served) -> None:
    answer = served.get("/v1/health", None)

    assert "server" not in answer.headers
    assert json.loads(answer.text) == {"ok": True}
