"""Files full of mistakes: each faulty line says in a comment what must be listed for it, and nothing else
may be.
"""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.site_files.apply import apply_site
from adapters.site_files.reading import read_files
from adapters.site_files.references import NEAR_MISSES
from adapters.site_files.store import MemorySiteStore
from metering.refusal import Refusal

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)

MISTAKES = """\
kind: operator
id: Tele Centras                      #! 'Tele Centras' is not an id
name: Yes and No
country: lt                           #! 'lt' is not a country
vat_id: LT12                          #! does not have the shape of its country's VAT numbers
iban: LT03 9999 9000 0000 0001        #! has wrong check digits
bic: VILNIUS                          #! 'VILNIUS' is not a BIC
currency: KWD                         #! is not a currency with at most two decimals
timezone: Asia/Kolkata                #! has a UTC offset that is not whole hours
language: klingon                     #! 'klingon' is not a language
numbering: {invoice: "TLC-{yyyy}"}    #! is not a numbering pattern
payment_terms_days: 2 weeks           #! '2 weeks' is not a whole number
smallest_document: 1,50               #! has a decimal comma
late_days: 99_999                     #! is out of range
---
kind: operator                        #! timezone: missing
id: second
name: Second
country: LT
currency: ISK
smallest_document: 0.50               #! 0.5 has more decimals than ISK
numbering:                            #! invoice A-{n} and credit_note A-{n:06} could share a number, such as A-111111
  invoice: "A-{n}"
  credit_note: "A-{n:06}"
  start: 0                            #! is out of range
default_tariff: nowhere               #! tariff nowhere is not declared
late_dais: 90                         #! unknown key (did you mean late_days?
address: Vilnius                      #! address: must be a map
---
kind: opperator                       #! did you mean operator?
id: third
---
id: no-kind                           #! kind: missing
---
- kind: node                          #! not a document
---
kind: operator
id: good
name: Good UAB
country: LT
currency: EUR
timezone: Europe/Vilnius
---
kind: node                            #! region: missing
id: vilnius-1
operator: goood                       #! did you mean good?
---
kind: node
id: vilnius-2
operator: good
region: LT VL                         #! is not a region
region: LT-VL                         #! the key 'region' stands twice
---
kind: customer
id: acme                              #! customer acme belongs to operator second
operator: good
name:                                 #! name: has no value
country: LT
business: yes                         #! 'yes' is not a truth value here
public_body: maybe                    #! is neither true nor false
segment: smal                         #! 'smal' is not a segment
email: acme                           #! is not an e-mail address
routing: {pepol: x}                   #! did you mean peppol?
name2: [a]                            #! unknown key
buyer_reference: [a]                  #! a list where text belongs
valid_from: 1.10.2026                 #! is not a day
valid_until: 2026-02-30               #! is not a day of the calendar
---
kind: customer
id: acme                              #! customer acme belongs to operator good
operator: second
name: Acme again
country: LT
valid_from: 2026-10-01
valid_until: 2026-10-01               #! 2026-10-01 is not after valid_from 2026-10-01
---
kind: tariff
id: vilnius
operator: good
currency: SEK                         #! SEK is not the operator's
bill_output: generatd                 #! 'generatd' is not what output is billed by (allowed: delivered | generated)
bill_outcomes: [finished, finished]   #! finished is named twice
windows:
  - {name: base, factor: 0.5}         #! 'base' is the name of the hours that are in no window
  - {name: Night, factor: 0.5}        #! 'Night' is not a window's name
  - {name: day, hours: "08:30-18:00", factor: 0.5}    #! has an edge inside an hour
  - {name: day, hours: "08:00-08:00", factor: 0.5}    #! begins where it ends
  - {name: day, hours: "08:00-25:00", factor: 0.5}    #! names an hour that no day has
  - {name: day, hours: 8-18, factor: 0.5}             #! '8-18' is not a span of hours
  - {name: day, days: [mon, funday], factor: 0.5}     #! 'funday' is not a day of a window
  - {name: day, days: [mon, mon], factor: 0.5}        #! windows[8].days[2]: mon is named twice
  - {name: day}                       #! windows[9]: the window has no factor
  - {name: day, factor: -1}           #! '-1' is negative
  - {name: day, factor: 1000}         #! has too many digits
  - {name: spot, series: {first: 2026-10-01T00:00:00Z, prices: [1]}}    #! windows[12].series: series without steps
  - {name: spot, steps: [{factor: 1}]}                                  #! windows[13].steps: steps without series
  - {name: spot, series: spot.csv, steps: [{factor: 1}]}                #! 'spot.csv' cannot be read: No such file
  - name: spot
    factor: 1
    series: {first: 2026-10-01T00:30:00Z, prices: [1, 2 ct]}            #! is not a whole hour of UTC
    steps: [{up_to: 40, factor: 1}, {up_to: -1, factor: 1}]             #! -1 is not more than 40
holidays: LX                          #! 'LX' is not a calendar of public holidays
segments: {sme: 15, big: 20%}         #! '15' has no % sign
included: {inputs: 1}                 #! did you mean input?
minimum: 5.001                        #! has too many digits
supersedes: last                      #! 'last' is not a day
prices:
  - models: ["qwen 3"]                #! is not a model or glob
    prompt_over: 100_000              #! is not a length that usage is told apart by (allowed: 32_000, 128_000
    input: -0.40                      #! '-0.40' is negative
    cached_input: 4e-1                #! has an exponent
    output: {volume: [{up_to: 5, price: 1}]}   #! the last tier has no end
    reasoning: {package: {size: 0}}   #! prices[1].reasoning.package.size: '0' is out of range
    requests: {}                      #! no way of pricing where one is needed
  - models: []                        #! the list is empty
    regions: LT-*                     #! must be a list
    inptu: 0.40                       #! did you mean input?
    only: true                        #! unknown key
    output: 1.2345678901234           #! has too many digits
    reasoning: free                   #! is not a decimal number
  - models: ["*"]                     #! the row prices no meter
  - models: ["*"]
    input:
      graduated:
        - {price: 1}                  #! only the last tier has none
        - {up_to: 10, price: 1}
        - {up_to: 10, price: 1}       #! 10 is not more than 10
        - {up_to: 20, price: 1}       #! the last tier has no end
---
kind: contract
customer: nobody                      #! customer nobody is not declared
tariff: vilnius
discount: 101%                        #! is more than 100%
commitment: -1                        #! '-1' is negative
fees: []                              #! fees: the list is empty
included: {}                          #! included: the map is empty
reason: a mistake                     #! reason: a reason for superseding no version
---
kind: contract                        #! tariff: missing
customer: acme
---
kind: party
id: embedded-llm
name: Embedded
country: XX                           #! is not a country
self_billing: {agreed: 2026-09-15}    #! self_billing.valid_from: missing
---
kind: share
operator: good
seller: nobody                        #! 'nobody' is not a seller
parties:
  - {party: embedded-llm, percent: 15}     #! has no % sign
  - {party: model-fond, percent: 2.5%}     #! party model-fond is not declared
---
kind: share
operator: second
parties:                              #! the percents sum to 120%
  - {party: embedded-llm, percent: 60%}
  - {party: embedded-llm, percent: 60%}    #! embedded-llm is named twice
---
kind: node
id: &here vilnius-3                   #! &here is a YAML anchor
operator: !!str good                  #! !!str is a YAML tag
region: *here                         #! *here is a YAML alias
"""


def faults_of(text: str, tmp_path: Path) -> list[tuple[int, str]]:
    """Line and text of every fault that applying `text` lists."""
    file = tmp_path / "site.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(Refusal) as refused:
        asyncio.run(apply_site(MemorySiteStore(), read_files([file]), NOW))
    assert refused.value.code == "bad_site_files"
    listed = []
    for fault in refused.value.faults:
        assert fault.remedy, f"{fault} does not say what is allowed"
        name, _, line = fault.where.rpartition(":")
        assert name == str(file)
        listed.append((int(line), str(fault).removeprefix(f"{fault.where}: ")))
    assert listed == sorted(listed, key=lambda each: each[0])
    return listed


EMPTY = """
kind: tariff
id: vilnius
operator: good
currency: EUR
bill_outcomes: []
windows:
  - {name: night, days: [], factor: 0.5}
  - {name: spot, series: {first: 2026-10-01T00:00:00Z, prices: []}, steps: []}
prices:
  - {models: [], regions: [], input: {graduated: []}}
---
kind: tariff
id: rome
operator: good
currency: EUR
prices: []
windows: []
---
kind: share
operator: good
parties: []
"""


def test_an_empty_list_is_told_what_to_write_instead() -> None:
    faults = read_files(["-"], lambda: EMPTY.encode()).faults
    assert {
        fault.what.removesuffix(": the list is empty"): fault.remedy
        for fault in faults
        if "the list is empty" in fault.what
    } == {
        "bill_outcomes": "leave the key out for all but failed, or name those that are charged: [finished, aborted]",
        "windows[1].days": "leave the key out for every day, or name some: [mon, sat, holiday]",
        "windows[2].series.prices": "name the price of each hour from `first` on: [41.2, 38]",
        "windows[2].steps": "write a factor for each step of the series' price: [{up_to: 40, factor: 0.6}, {factor: 1}]",
        "prices[1].models": 'write ["*"] for every model, or name those that the row prices: ["qwen3-*", llama-4]',
        "prices[1].regions": "leave the key out for every region, or name some: [LT-*, IT-RM]",
        "prices[1].input.graduated": "write tiers, [{up_to: 50_000_000, price: 1.60}, {price: 1.20}], or a price alone",
        "prices": 'write a price row: [{models: ["*"], input: 0.40, output: 1.60}]',
        "windows": "name at least one window, or leave the key out",
        "parties": "write who shares: [{party: embedded-llm, percent: 12%}]; without a share the operator keeps all",
    }


def test_a_file_full_of_mistakes_yields_all_of_them_in_one_list_each_with_its_line(tmp_path: Path) -> None:
    expected = {
        number: line.partition("#! ")[2]
        for number, line in enumerate(MISTAKES.splitlines(), 1)
        if "#! " in line
    }
    assert len(expected) >= 60
    found: dict[int, list[str]] = {}
    for line, said in faults_of(MISTAKES, tmp_path):
        found.setdefault(line, []).append(said)
    missed = {
        line: (words, found.get(line))
        for line, words in expected.items()
        if not any(words in said for said in found.get(line, []))
    }
    assert missed == {}
    assert {line: said for line, said in found.items() if line not in expected} == {}


def test_nothing_of_a_refused_file_is_applied(tmp_path: Path) -> None:
    store = MemorySiteStore()
    file = tmp_path / "site.yaml"
    file.write_text(MISTAKES, encoding="utf-8")
    with pytest.raises(Refusal):
        asyncio.run(apply_site(store, read_files([file]), NOW))
    assert store.documents == {}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("kind: node\nregion: [LT\n", 2, "malformed YAML: did not find expected ',' or ']'"),
        ("kind: node\n\tid: a\n", 2, "indent with blanks, not tabs"),
        ('kind: node\nid: "a\n', 2, "malformed YAML"),
        ("kind: node\n id: a\n", 2, "malformed YAML: mapping values are not allowed in this context"),
        ("kind: node\nid: a\x01\n", 2, "malformed YAML: control characters are not allowed"),
        ("", 1, "no document in this file"),
        ("# only a comment\n", 1, "no document in this file"),
        ("---\n---\n", 1, "no document in this file"),
        ("just words\n", 1, "not a document: a map is needed"),
        ("kind: node\n? [id]\n: a\n", 2, "a key must be a word"),
        ("kind: " + "[" * 40 + "\n", 1, "nested deeper than"),
        ("kind: node\n<<: {id: a}\n", 2, "unknown key"),
    ],
)
def test_yaml_that_is_torn_or_says_nothing_is_named_with_its_line(
    text: str, line: int, said: str, tmp_path: Path
) -> None:
    listed = faults_of(text, tmp_path)
    assert any(at == line and said in words for at, words in listed), listed


def test_bytes_that_are_not_utf_8_are_named_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_bytes("kind: node\nid: Šiauliai\n".encode("cp1257"))
    assert [str(fault) for fault in read_files([file]).faults] == [
        f"{file}:2: not UTF-8 text (save the file as UTF-8)"
    ]


def test_a_torn_document_does_not_hide_the_faults_of_those_before_it(tmp_path: Path) -> None:
    listed = faults_of("kind: node\nid: A\n---\nkind: [\n", tmp_path)
    assert [line for line, _ in listed] == [1, 1, 2, 4]


def test_paths_that_are_missing_or_hold_nothing_are_refused_by_name(tmp_path: Path) -> None:
    said = [str(fault) for fault in read_files([tmp_path, tmp_path / "missing.yaml"]).faults]
    assert said == [
        f"{tmp_path}: no *.yaml or *.yml in this folder (name a folder that has some)",
        f"{tmp_path / 'missing.yaml'}: cannot be read: No such file or directory (name a readable file or folder)",
    ]


def test_a_vat_number_with_wrong_check_digits_is_warned_of_and_taken(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("kind: customer\nid: a\noperator: o\nname: A\ncountry: LT\nvat_id: LT100001234511\n")
    files = read_files([file])
    assert files.faults == ()
    assert [str(warning) for warning in files.warnings] == [
        f"{file}:6: vat_id: LT100001234511 has wrong check digits (compare it with the register)"
    ]


def test_every_fault_text_is_one_line(tmp_path: Path) -> None:
    for _, said in faults_of(MISTAKES + '---\nkind: "a\\nb"\n', tmp_path):
        assert re.search(r"[\r\n]", said) is None


def test_a_file_of_thousands_of_undeclared_ids_is_refused_soon_and_the_first_are_told_what_is_meant() -> None:
    operator = "{kind: operator, id: t, name: A, country: LT, currency: EUR, timezone: Europe/Vilnius}"
    tariff = (
        "{kind: tariff, id: v, operator: t, currency: EUR, prices: [{models: ['*'], input: 1, output: 1}]}"
    )
    customers = [
        f"{{kind: customer, id: customer-{n}, operator: t, name: N, country: LT}}" for n in range(2000)
    ]
    contracts = [f"{{kind: contract, customer: costumer-{n}, tariff: v}}" for n in range(2000)]
    text = "\n---\n".join([operator, tariff, *customers, *contracts]).encode()
    files = read_files(["-"], lambda: text)
    began = time.process_time()
    with pytest.raises(Refusal) as refused:
        asyncio.run(apply_site(MemorySiteStore(), files, NOW))
    assert time.process_time() - began < 5
    remedies = [fault.remedy for fault in refused.value.faults]
    assert len(remedies) == 2000
    hinted = [remedy for remedy in remedies if remedy.startswith("did you mean customer-")]
    assert hinted == remedies[:NEAR_MISSES]
    assert all(remedy.startswith("allowed: customer-0, ") for remedy in remedies[NEAR_MISSES:])
