"""A real S3 server on loopback for tests: versitygw over a folder (tests/s3/install.sh fetches it)."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_INSTALL = Path(__file__).parents[1] / "s3" / "install.sh"
_USER, _SECRET = "tally", "only-for-tests"


def _binary() -> Path:
    [version] = re.findall(r"^version=(.*)$", _INSTALL.read_text(encoding="utf-8"), re.MULTILINE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    found = cache / "tallygrid" / "versitygw" / f"versitygw-{version}"
    if not found.exists():
        pytest.skip("no S3 server here (make s3): versitygw is not installed")
    return found


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Serves `folder` with the bucket `tally` in it; gives the URI of the bucket, credentials included."""
    binary = _binary()
    (folder / "tally").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(binary), "--port", f"127.0.0.1:{port}", "--quiet", "posix", str(folder)]
    environment = {"ROOT_ACCESS_KEY_ID": _USER, "ROOT_SECRET_ACCESS_KEY": _SECRET, "PATH": os.environ["PATH"]}
    with (folder.parent / "s3.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _await(port, server)
            yield (
                f"s3://{_USER}:{_SECRET}@tally?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
            )
        finally:
            server.terminate()
            server.wait(timeout=10)


def _await(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert server.poll() is None, "the S3 server ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the S3 server does not answer")
