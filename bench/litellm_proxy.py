"""LiteLLM's proxy passing on to the engine: what many put in front of a vLLM today.

It lives in an environment of its own, `${XDG_CACHE_HOME:-~/.cache}/tallygrid/litellm`, which is made from the package
index the first time that it is needed (a minute) and kept for all clones. One process, a master key, no database, no
callbacks: the fastest that it can be had with keys checked.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from bench.command import stop
from bench.load import BODY
from bench.nginx import free_port
from bench.results import Skipped

PACKAGE = "litellm[proxy]==1.106.2"
_INSTALL_WITHIN_S = 600
_START_WITHIN_S = 120


def environment_folder() -> Path:
    """Where the environment is, or will be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tallygrid" / "litellm"


def need_litellm(*, make: bool) -> Path:
    """The environment's Python; with `make` the environment is made if there is none. Skipped if it cannot be had."""
    folder = environment_folder()
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists() and ready.read_text() == PACKAGE:
        return python
    if not make:
        raise Skipped(f"{PACKAGE} is not installed yet: a bench that is not quick installs it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists() or ready.read_text() != PACKAGE:
            _install(folder, python)
            ready.write_text(PACKAGE)
    return python


def _install(folder: Path, python: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise Skipped(f"{PACKAGE} could not be installed in {_INSTALL_WITHIN_S} s") from None
        if done.returncode:
            why = (done.stderr.strip() or "no reason given").splitlines()[-1]
            raise Skipped(f"{PACKAGE} could not be installed: {why}")


@contextmanager
def litellm(python: Path, engine: int) -> Iterator[tuple[int, int, str]]:
    """The proxy for as long as the block: its process id, its port, its master key. RuntimeError if it does not start."""
    port, secret = free_port(), f"sk-{secrets.token_hex(16)}"
    parameters = {"model": "openai/qwen3-32b", "api_base": f"http://127.0.0.1:{engine}/v1", "api_key": "none"}
    settings = {
        "model_list": [{"model_name": "qwen3-32b", "litellm_params": parameters}],
        "general_settings": {"master_key": secret},
    }
    with tempfile.TemporaryDirectory(prefix="tally-bench-litellm-") as name:
        folder = Path(name)
        config = folder / "config.yaml"
        config.write_text(json.dumps(settings))  # JSON is YAML
        command = [
            str(python),
            "-m",
            "litellm.proxy.proxy_cli",
            "--config",
            str(config),
            "--host",
            "127.0.0.1",
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--port", str(port), "--num_workers", "1"],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                # Its list of models' prices is not fetched from anywhere.
                env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
            )
            try:
                _wait_for(process, port, secret, folder / "log")
                yield process.pid, port, secret
            finally:
                stop(process)


def _wait_for(process: subprocess.Popen[bytes], port: int, secret: str, log: Path) -> None:
    """Until a request is answered."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=(BODY % "").encode(),
        headers={"content-type": "application/json", "authorization": f"Bearer {secret}"},
    )
    deadline = time.monotonic() + _START_WITHIN_S
    why = ""
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                answer.read()
                return
        except URLError as error:
            why = str(error)
            time.sleep(0.3)
    raise RuntimeError(f"LiteLLM does not answer ({why}): {log.read_text(errors='replace')[-2000:]}")
