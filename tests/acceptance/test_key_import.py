"""Secrets that customers have already: imported, they open the sidecar; revoked, they are refused within 5 seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from command import EXAMPLE, over, simulated_engine
from test_keys_at_the_sidecar import ask

from adapters.postgres.database import DatabaseUrls

OLD, OTHER, THIRD = "sk-acme-has-had-this-for-years", "sk-and-this-one-as-well", "sk-one-more-of-beta"


def test_imported_secrets_open_every_sidecar_and_a_revoked_one_is_refused_within_5_seconds(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    tally = over(fresh_urls(), tmp_path / "data", EXAMPLE)
    keys = tmp_path / "keys.csv"
    keys.write_text(f"customer,project,secret\nacme,chatbot,{OLD}\nacme,,{OTHER}\n")
    with (
        simulated_engine() as engine,
        tally.serving("sidecar", "--engine", engine["engine"], "--listen", "127.0.0.1:0") as first,
        tally.serving(
            *("sidecar", "--engine", engine["engine"], "--listen", "127.0.0.1:0", "--lane", "sidecar-1")
        ) as second,
    ):
        sidecars = [first["sidecar"], second["sidecar"]]
        assert [ask(sidecar, OLD)[0] for sidecar in sidecars] == [401, 401]
        imported = tally("key", "import", str(keys))
        assert (imported["created"], imported["unchanged"]) == (2, 0)
        assert OLD not in str(imported)
        within_5_seconds(lambda: [ask(sidecar, OLD)[0] for sidecar in sidecars] == [200, 200])

        again = tally("key", "import", str(keys))
        assert (again["created"], again["unchanged"]) == (0, 2)
        assert [key["id"] for key in again["keys"]] == [key["id"] for key in imported["keys"]]

        tally("key", "revoke", imported["keys"][0]["id"])
        within_5_seconds(lambda: [ask(sidecar, OLD)[0] for sidecar in sidecars] == [401, 401])
        assert [ask(sidecar, OTHER)[0] for sidecar in sidecars] == [200, 200]

    refused = tally.refused("key", "import", str(keys))
    assert [fault["what"] for fault in refused["faults"]] == ["secret: was revoked"]
    keys.write_text(f"customer,secret\nacme,{OTHER}\nnobody,{THIRD}\n")
    refused = tally.refused("key", "import", str(keys))
    assert [(fault["where"], fault["what"]) for fault in refused["faults"]] == [
        ("keys.csv:3", "customer: there is no such customer")
    ]

    keys.write_text(f"customer,project,secret\nacme,else,{OTHER}\nacme,,{THIRD}\n")
    refused = tally.refused("key", "import", str(keys))
    assert [fault["what"] for fault in refused["faults"]] == ["secret: opens another key's door already"]
    assert THIRD not in str(refused)
    keys.write_text(f"customer,project,secret\nacme,else,{OTHER}\nacme,,short\nnobody,,{THIRD}\n")
    refused = tally.refused("key", "import", str(keys))
    assert [fault["where"] for fault in refused["faults"]] == ["keys.csv:2", "keys.csv:3", "keys.csv:4"]
    assert len(tally("key", "list")["keys"]) == 2  # of a file with a fault nothing is taken


def within_5_seconds(holds: Callable[[], bool]) -> None:
    """The promise of `key import` and `key revoke`, to every sidecar that reaches the ledger."""
    ends = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.1)
