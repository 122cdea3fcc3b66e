"""Known answers that others publish as Go modules, fetched by name through the module proxy and kept in the cache that
clones share. Nothing of them stands in this project.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tallygrid" / "merkle-vectors"


def go_module(name: str) -> Path:
    """The folder of the module's newest version; skips the test, by name, where Go or the proxy is missing."""
    kept = sorted(_CACHE.glob(f"{name}@*"))
    if kept:
        return kept[-1]
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go, which fetches the published vectors of Merkle trees and notes, is not installed")
    environ = {**os.environ, "GOMODCACHE": str(_CACHE), "GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run(
            [go, "mod", "download", "-json", f"{name}@latest"],
            capture_output=True,
            text=True,
            env=environ,
            cwd="/",
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"the Go module proxy did not answer for {name}")
    if done.returncode != 0:
        pytest.skip(f"the Go module proxy has no {name} for us: {done.stdout[-300:]}{done.stderr[-300:]}")
    return Path(json.loads(done.stdout)["Dir"])
