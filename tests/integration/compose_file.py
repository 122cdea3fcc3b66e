"""docker-compose.yml as far as these tests need it: values put in, and a service's command run here instead of in a
container."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
#: Of compose's forms: ${NAME}, and ${NAME:?why it has to be there}.
_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::([?-])([^}]*))?\}")


class MissingValue(Exception):
    """A variable that has to be set and is not; what compose would say."""


def read_compose(environment: Mapping[str, str]) -> dict[str, Any]:
    """The file with the environment's values in it. Raises `MissingValue`."""

    def value(found: re.Match[str]) -> str:
        given = environment.get(found[1], "")
        if not given and found[2] == "?":
            raise MissingValue(f"{found[1]}: {found[3]}")
        return given or found[3] or ""

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: filled(each) for name, each in node.items()}
        if isinstance(node, list):
            return [filled(each) for each in node]
        return _VARIABLE.sub(value, node) if isinstance(node, str) else node

    compose = filled(yaml.safe_load(COMPOSE_FILE.read_text()))
    assert isinstance(compose, dict)
    return compose


@dataclass(frozen=True, slots=True)
class Here:
    """What stands for the containers' world on this machine.

    `texts`: what is written otherwise in commands and environment, a host and port for instance. `volumes`: a
    volume's name or a folder of the machine -> the folder that takes its place. `home`: an empty folder.
    """

    texts: Mapping[str, str]
    volumes: Mapping[str, Path]
    home: Path

    def environment(self, service: Mapping[str, Any]) -> dict[str, str]:
        """The service's own environment, and nothing of ours but where programs are."""
        programs = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        own = {name: self._rewritten(service, text) for name, text in service["environment"].items()}
        return {"PATH": programs, "HOME": str(self.home), "TALLY_DATA": str(self.home / "none"), **own}

    def start(
        self, service: Mapping[str, Any], command: Sequence[str] | None = None
    ) -> subprocess.Popen[str]:
        """The service's command (or another one in its place) as the image's entry point runs it."""
        words = [self._rewritten(service, word) for word in (command or service["command"])]
        return self._popen(["tally", *words], service)

    def run(self, service: Mapping[str, Any], *command: str) -> tuple[int, Any]:
        """`docker compose exec SERVICE tally COMMAND --json`: (exit code, document)."""
        done = self.start(service, [*command, "--json"])
        stdout, stderr = done.communicate(timeout=60)
        assert stdout, stderr
        return done.returncode, json.loads(stdout)

    def healthy(self, service: Mapping[str, Any], address: str = "", port: int = 0) -> int:
        """The exit code of its health check, with `address` of the container being `port` here."""
        kind, *words = service["healthcheck"]["test"]
        assert kind == "CMD"
        words = [word.replace(address, f"127.0.0.1:{port}") if address else word for word in words]
        done = self._popen(words, service)
        stdout, stderr = done.communicate(timeout=60)
        print(stdout, stderr)
        return done.returncode

    def _popen(self, words: Sequence[str], service: Mapping[str, Any]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            list(words),
            env=self.environment(service),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _rewritten(self, service: Mapping[str, Any], text: str) -> str:
        for volume in service.get("volumes", ()):
            source, inside = volume.split(":")[:2]
            if text == inside:
                return str(self.volumes.get(source, ROOT / source))
        for old, new in self.texts.items():
            text = text.replace(old, new)
        return text


def ready(started: subprocess.Popen[str]) -> dict[str, str]:
    """The line that a server prints when it serves."""
    assert started.stdout is not None
    line = started.stdout.readline()
    if not line:
        _, stderr = started.communicate()
        raise AssertionError(stderr)
    said = json.loads(line)
    assert said.pop("ready") is True
    return dict(said)
