"""Prometheus' own checker, taken out of Debian's package into the cache: nothing is installed, no root is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def promtool(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run it; skips the test where it cannot be had."""
    return subprocess.run(
        [_program(), *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def _program() -> str:
    if found := shutil.which("promtool"):
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tallygrid" / "prometheus"
    program = cache / "promtool"
    if not program.exists():
        _fetch(program)
    return str(program)


def _fetch(program: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("promtool checks the alert rules: it needs Debian's package prometheus")
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        here = Path(folder)
        subprocess.run(
            ["apt-get", "-qq", "download", "prometheus"], cwd=here, capture_output=True, check=False
        )
        package = next(here.glob("prometheus_*.deb"), None)
        if package is None:
            pytest.skip(
                "promtool checks the alert rules: apt-get download prometheus gave nothing (apt-get update?)"
            )
        subprocess.run(["dpkg-deb", "-x", package, here], check=True)
        (here / "usr/bin/promtool").replace(program)
