"""Which lane of a node speaks for it: never two of them."""

from __future__ import annotations

from pathlib import Path

from metering.siblings import is_first


def lanes(node: Path, *names: str) -> list[str]:
    """Makes the folders of these lanes, as sidecars leave them; those that count themselves first."""
    for name in names:
        (node / name).mkdir()
        (node / name / "write-ahead-00000001.wal").touch()
    return [name for name in names if is_first(node / name)]


def test_sidecar_0_speaks_for_its_node(tmp_path: Path) -> None:
    assert lanes(tmp_path, "gpu-a", "sidecar-0", "sidecar-1") == ["sidecar-0"]


def test_without_a_sidecar_0_the_first_by_name_does(tmp_path: Path) -> None:
    assert lanes(tmp_path, "gpu-b", "gpu-a", "gpu-c") == ["gpu-a"]


def test_a_lane_alone_speaks_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "import-0123456789abcdef").mkdir()  # an import's lane has no write-ahead file
    assert lanes(tmp_path, "west") == ["west"]
