"""A file of existing API keys: what is read from it, and that nothing of it is ever told again."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.key_file import GivenKey, read_key_file
from metering.identity import hash_secret
from metering.refusal import Refusal

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ONE, TWO = "sk-0123456789abcdef", "sk-fedcba9876543210"
NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


def read(folder: Path, text: str, name: str = "keys.csv") -> list[GivenKey]:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    found = read_key_file(path, NOW)
    found.refuse()
    return found.keys


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(Refusal) as refused:
        read(folder, text)
    assert refused.value.code == "bad_key_file"
    assert "sk-" not in str(refused.value) + str(refused.value.faults)
    return [str(fault) for fault in refused.value.faults]


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    keys = [
        GivenKey(2, "acme", "chatbot", hash_secret(ONE), NEW_YEAR),
        GivenKey(3, "acme", None, hash_secret(TWO), None),
    ]
    csv = f"customer,project,secret,expires\nacme,chatbot,{ONE},2027-01-01T00:00:00Z\nacme,,{TWO},\n"
    assert read(tmp_path, csv) == keys
    assert read(tmp_path, "\ufeff" + csv.replace("\n", "\r\n")) == keys
    lines = (
        "",
        json.dumps(
            {"customer": "acme", "project": "chatbot", "secret": ONE, "expires": "2027-01-01T02:00:00+02:00"}
        ),
        json.dumps({"secret": TWO, "customer": "acme", "expires": None}),
    )
    assert read(tmp_path, "\n".join(lines), "keys.jsonl") == keys


def test_columns_come_in_any_order_and_the_same_line_twice_is_one_key(tmp_path: Path) -> None:
    assert read(tmp_path, f"secret,customer\n\n{ONE},acme\n {ONE} ,acme\n") == [
        GivenKey(3, "acme", None, hash_secret(ONE), None)
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "keys.csv: there are no keys in it (a line for each key)"),
        ("customer,secret\n", "keys.csv: there are no keys in it (a line for each key)"),
        (
            f"acme,{ONE}\n",
            "keys.csv:1: the first line must name the columns: customer, project, secret, expires",
        ),
        (f"customer,secret,note\nacme,{ONE},x\n", "keys.csv:1: the first line must name the columns"),
        (f"customer,secret,secret\nacme,{ONE},x\n", "keys.csv:1: the first line must name the columns"),
        (f"customer,secret\nacme,{ONE},x\n", "keys.csv:2: has 3 cells, not 2"),
        (f'customer,secret\nacme,"{ONE}\n', "keys.csv:2: is not CSV"),
        (
            f"customer,secret\nacme,{'k' * 200_000}\n",
            "keys.csv:2: has a field of more than 131,072 characters",
        ),
        (f"customer,secret\nacme,{ONE}\n,\n", "keys.csv:3: is an empty row"),
        ("customer,secret\nacme,sk-short\n", "keys.csv:2: secret: is not 16 to 512 visible ASCII characters"),
        ("customer,secret\nacme,sk-with a blank in it\n", "keys.csv:2: secret: is not 16 to 512"),
        (f"customer,secret\n{ONE.upper()},{TWO}\n", "keys.csv:2: customer: is no id"),
        (f"customer,project,secret\nacme,A b,{ONE}\n", "keys.csv:2: project: is no id"),
        (f"customer,secret,expires\nacme,{ONE},2027-01-01\n", "keys.csv:2: expires: is no RFC 3339 time"),
        (
            f"customer,secret,expires\nacme,{ONE},2026-01-01T00:00:00Z\n",
            "keys.csv:2: expires: is in the past",
        ),
        (
            f"customer,secret\nacme,{ONE}\nbeta,{ONE}\n",
            "keys.csv:3: secret: stands in line 2 too, for another key",
        ),
        (f'{{"customer": "acme", "secret": "{ONE}", "{TWO}": 1}}', "keys.csv:1: is no JSON object"),
        (f'{{"customer": "acme", "secret": "{ONE}"', "keys.csv:1: is no JSON object"),
        ('{"customer": "acme", "secret": 5}', "keys.csv:1: secret: is not text"),
    ],
)
def test_what_is_wrong_is_told_by_line_and_column_alone(tmp_path: Path, text: str, said: str) -> None:
    assert faults(tmp_path, text)[0].startswith(said)


def test_every_wrong_line_is_named(tmp_path: Path) -> None:
    found = faults(tmp_path, f"customer,secret\nA,{ONE}\nacme,{TWO}\nacme,short\n")
    assert [fault.split(": ")[:2] for fault in found] == [
        ["keys.csv:2", "customer"],
        ["keys.csv:4", "secret"],
    ]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="No such file"):
        read_key_file(tmp_path / "nothing", NOW)
    (tmp_path / "latin").write_bytes(b"customer,secret\nacm\xe9,x\n")
    with pytest.raises(Refusal, match="not UTF-8"):
        read_key_file(tmp_path / "latin", NOW)


@given(st.text(max_size=200), st.booleans())
def test_no_text_makes_the_reader_fail(
    tmp_path_factory: pytest.TempPathFactory, text: str, header: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.csv"
    path.write_bytes(("customer,secret\n" * header + text).encode("utf-8", "surrogatepass"))
    with suppress(Refusal):
        read_key_file(path, NOW)
