"""Imports run one way: metering ← billing ← reports, and adapters import the domains. The mains wire everything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What each package may import of ours. `billing` takes only plain types and byte formats from `metering`.
ALLOWED = {
    "metering": {"metering"},
    "billing": {"billing", "metering"},
    "reports": {"reports", "billing", "metering"},
    "migrations": {"migrations", "adapters"},
    "adapters": {"adapters", "billing", "metering", "reports"},
}
BILLING_TAKES = {
    "refusal",
    "event",
    "columns",
    "batch",
    "seal",
    "fact",
    "instant",
    "body",
    "merkle",
    "note",
    "canonical",
    "steps",
    "identity",
    "checkpoint",
}
OURS = set(ALLOWED)


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_a_package_imports_only_what_lies_before_it_on_the_road(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for module in imported_modules(path)
        if module.split(".")[0] in OURS - ALLOWED[package]
    ]
    assert wrong == []


def test_billing_takes_only_plain_types_and_byte_formats_from_metering() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sorted((ROOT / "billing").rglob("*.py"))
        for module in imported_modules(path)
        if module.startswith("metering.") and module.split(".")[1] not in BILLING_TAKES
    ]
    assert wrong == []


def test_only_the_mains_wire_adapters_to_one_another() -> None:
    """An adapter knows the domains and PostgreSQL, not its neighbours; `cli` and `api` know everything."""
    mains = {"cli", "api"}
    wrong = []
    for path in sorted((ROOT / "adapters").rglob("*.py")):
        own = path.relative_to(ROOT / "adapters").parts[0].removesuffix(".py")
        for module in imported_modules(path):
            parts = module.split(".")
            if parts[0] == "adapters" and len(parts) > 1 and parts[1] in mains and own not in mains:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []
