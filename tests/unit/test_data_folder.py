from __future__ import annotations

from pathlib import Path

from adapters.data_folder import DataFolder


def test_no_two_lanes_share_a_key_file() -> None:
    folder = DataFolder(Path("/data"))
    assert folder.lane_key("a", "b.c") == Path("/data/keys/lanes/a/b.c.key")
    assert folder.lane_key("a.b", "c") == Path("/data/keys/lanes/a.b/c.key")
