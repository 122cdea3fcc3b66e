"""What every server command needs: a listening address, one line of JSON when ready, and a clean stop.

A server stops on SIGTERM, on Ctrl-C, and, when `tally up` started it, when `tally up` is gone (its end of a pipe closes).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from adapters.memory import collect_seldom
from metering.refusal import Refusal

# Set by `tally up` for its children: standard input is then a pipe that closes when the parent is gone.
CHILD = "TALLY_CHILD_OF_UP"

ListenOption = Annotated[
    str, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen; port 0: a free one.")
]
SIDECAR_LISTEN = "127.0.0.1:8080"
API_LISTEN = "127.0.0.1:8090"
LaneOption = Annotated[
    str, typer.Option(metavar="L", help="Each sidecar process of a node has a lane of its own.")
]
NodeOption = Annotated[str | None, typer.Option("--node", metavar="N", help="Default: the only node.")]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, option: str) -> Address:
        """`127.0.0.1:8080`, `[::1]:8080` or `:8080` (all addresses). Refusals: bad_address."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise Refusal(
                "bad_address", f"not HOST:PORT: {text}", where=option, remedy="for instance 127.0.0.1:8080"
            )
        return cls(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104 - asked for by leaving the host out

    def url(self, port: int, *, tls: bool = False) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if tls else 'http'}://{host}:{port}"


def ready(addresses: Mapping[str, str]) -> None:
    """The one line on stdout that says that it serves, and where."""
    sys.stdout.write(json.dumps({"ready": True, **addresses}) + "\n")
    sys.stdout.flush()


def settle() -> None:
    """Set the interpreter for a long life of short requests, once all that lasts has been made.

    A thread that seals gives the interpreter back to the one that serves within a tenth of a millisecond instead of
    five: a request asks for it about four times. pyarrow looks for pandas with its first array, which would be within
    the first seal, and takes a second where it finds it.
    """
    import pyarrow  # not for the servers that seal nothing

    pyarrow.array([0])
    collect_seldom()
    sys.setswitchinterval(0.0001)


@contextmanager
def stop_signal() -> Iterator[asyncio.Event]:
    """An event that is set when the server shall stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    child = os.environ.get(CHILD) == "1"
    if child:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    try:
        yield stop
    finally:
        if child:
            loop.remove_reader(sys.stdin.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextmanager
def hangup() -> Iterator[asyncio.Event]:
    """An event that SIGHUP sets, which would end the process otherwise."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, event.set)
    try:
        yield event
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def port_taken(address: Address, problem: OSError, option: str = "--listen") -> Refusal:
    """A listening socket that could not be had."""
    return Refusal(
        "cannot_listen",
        f"cannot listen on {address.host}:{address.port}: {problem.strerror}",
        where=option,
        remedy="choose another port, or 0 for a free one",
    )


def log_to_stderr() -> None:
    """What a server says while it runs, on standard error, with the time in UTC."""
    words = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ")
    words.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(words)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
