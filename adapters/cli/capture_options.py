"""The options of `tally sidecar` that `tally up` takes too and hands on: engines, certificates, gateways in front.

They are the fields of one dataclass. `takes_capture_options` gives a command all of them, so that each is declared once:

    @command(app, "sidecar", …)
    @takes_capture_options
    async def sidecar(context: Context, capture: CaptureOptions, …) -> Result: …
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from metering.caller import TrustedPeers
from metering.certificate import Certificate
from metering.engine_pools import open_pools
from metering.http_request import Limits
from metering.refusal import Refusal
from metering.sidecar_options import SidecarOptions

#: The pause between two looks at the engines' own counters.
COUNTERS_S = 10.0


class WhenFull(StrEnum):
    """What becomes of a request that cannot be written down."""

    REFUSE = "refuse"
    SERVE_UNMETERED = "serve-unmetered"


class Sync(StrEnum):
    """When an event is on disk."""

    GROUP = "group"
    EACH = "each"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureOptions:
    """What was typed. Each field's option is its name with dashes."""

    engine: Annotated[
        list[str], typer.Option(metavar="URL", help="vLLM: http://127.0.0.1:8000. Several: once each.")
    ]
    engine_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holds the engines' own API key.")
    ] = None
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Speak TLS to clients: the certificate chain, PEM.")
    ] = None
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key, PEM.")] = None
    trust_header: Annotated[
        str | None, typer.Option(metavar="NAME", help="The header in which a gateway names the API key's id.")
    ] = None
    trust_peer: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="An address or range of such gateways. Several: once each."),
    ] = None
    body_limit: Annotated[int, typer.Option(metavar="BYTES", min=1, help="The largest request body.")] = (
        Limits().body_bytes
    )
    engine_lines: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar="TALLY_ENGINE_LINES",
            help="Where the engine's witness (tallygrid-vllm) writes its lines.",
        ),
    ] = None
    spool_limit: Annotated[
        int, typer.Option(metavar="BYTES", min=1, help="How much may wait for intake.")
    ] = 8 * 1024**3
    when_full: Annotated[
        WhenFull, typer.Option(help="What becomes of requests while their usage cannot be written down.")
    ] = WhenFull.REFUSE
    sync: Annotated[
        Sync, typer.Option(help="When an event is on disk: within 50 ms, or before the answer is whole.")
    ] = Sync.GROUP

    metrics_listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            envvar="TALLY_METRICS_LISTEN",
            help="Show Prometheus metrics there, at /metrics; not to clients.",
        ),
    ] = None

    def check(self) -> None:
        """Refusals for whatever would keep the sidecar from starting: `bad_engine_url`, `bad_engine_key`,
        `bad_certificate`, `bad_trust_header`, `bad_trust_peer`, `half_an_option`,
        `no_engine_lines`."""
        open_pools(self.engine, time.monotonic, idle_s=0, connect_s=0, key_file=self.engine_key_file)
        self.certificate()
        self.trust()
        if self.engine_lines is not None and not self.engine_lines.is_dir():
            raise Refusal(
                "no_engine_lines",
                "there is no such folder of the engine's lines",
                where=str(self.engine_lines),
                remedy="make it, where both vLLM and the sidecar may write, and name it in vLLM's TALLY_ENGINE_LINES too",
            )

    def certificate(self) -> Certificate | None:
        """What clients are shown; None: no TLS."""
        if self.tls_cert is None or self.tls_key is None:
            _both("--tls-cert", self.tls_cert, "--tls-key", self.tls_key)
            return None
        return Certificate(self.tls_cert, self.tls_key)

    def trust(self) -> TrustedPeers | None:
        """Which gateways may name a key; None: none."""
        if self.trust_header is None or not self.trust_peer:
            _both("--trust-header", self.trust_header, "--trust-peer", self.trust_peer or None)
            return None
        return TrustedPeers.parse(self.trust_header, self.trust_peer)

    def sidecar_options(self, node: str, operator: str, secret: bytes) -> SidecarOptions:
        """The sidecar's, of that node and operator; `secret` is the node's."""
        return SidecarOptions(
            engines=tuple(self.engine),
            node=node,
            operator=operator,
            engine_key_file=self.engine_key_file,
            trust=self.trust(),
            limits=Limits(body_bytes=self.body_limit),
            node_secret=secret,
            engine_lines=self.engine_lines,
            counters_s=COUNTERS_S,
            spool_limit_bytes=self.spool_limit,
            when_full=self.when_full.value,
        )

    def arguments(self) -> list[str]:
        """The same again as a command line, for the sidecar that `tally up` starts."""
        words: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            option = "--" + field.name.replace("_", "-")
            for each in value if isinstance(value, list) else [] if value is None else [value]:
                words += [option, str(each)]
        return words


def takes_capture_options(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The command `handler(context, capture, …)` with an option for each field of its `CaptureOptions`."""
    declared = list(inspect.signature(CaptureOptions, eval_str=True).parameters.values())
    context, *own = inspect.signature(handler, eval_str=True).parameters.values()

    @functools.wraps(handler)
    def run(context: Any, **given: Any) -> Any:
        capture = CaptureOptions(**{option.name: given.pop(option.name) for option in declared})
        return handler(context, capture, **given)

    others = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in own
        if parameter.name != "capture"
    ]
    run.__signature__ = inspect.Signature([context, *declared, *others])  # type: ignore[attr-defined]  # read by `command`
    return run


def _both(one: str, given: object, other: str, given_too: object) -> None:
    """Two options that mean nothing without each other. Refusals: half_an_option."""
    if (given is None) != (given_too is None):
        there, lacking = (one, other) if given_too is None else (other, one)
        raise Refusal(
            "half_an_option", f"{there} means nothing without {lacking}", where=there, remedy=f"add {lacking}"
        )
