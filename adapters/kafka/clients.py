"""Beginning and ending kafka-python's clients so that neither a thread nor a socket is left of them.

The library starts a thread for each client before it has found a broker. Where it finds none its constructor raises,
and nobody has the client to close: an hour without Kafka would leave hundreds of threads. And a producer's `close`
first waits for what was not sent, and raises where that is in vain before it has ended its thread. So what a client is
built upon is made here, and ended here. Where no broker could be had it also knows why: the library says only that it
took too long, also when the brokers refused the password each time.
"""

from __future__ import annotations

import contextlib
import gc
from typing import Any

from kafka import KafkaProducer, errors
from kafka.net.compat import KafkaNetClient

from adapters.kafka.errors import ClosedAgainError, how_telling
from adapters.kafka.settings import KafkaSettings
from metering.refusal import Refusal, Unavailable

_REMEMBERED = 20


def begin(kind: Any, settings: KafkaSettings, name: str, **options: Any) -> Any:
    """A client of the library's class `kind`, connected; `name` is what brokers log.

    What the library raises where no broker answers; Unavailable where the settings name a file that can't be read.
    """
    try:
        common = settings.client(name)
    except Refusal as refused:  # a file that was there when the settings were checked
        raise Unavailable(refused.code, refused.what, where=refused.where, remedy=refused.remedy) from None
    net = _Net()
    try:
        return kind(kafka_client=net.make, **common, **options)
    except BaseException as problem:
        telling = net.telling() if isinstance(problem, errors.KafkaTimeoutError) else None
        net.close()
        raise telling or problem from None


class _Net:
    """What a client is built upon, and how its connections fared."""

    def __init__(self) -> None:
        self._net: Any = None
        self._connections: list[Any] = []

    def make(self, **config: Any) -> Any:
        self._net = KafkaNetClient(**config)
        connect = self._net._manager.get_connection

        def connection(*where: Any, **how: Any) -> Any:
            made = connect(*where, **how)
            self._connections = [*self._connections[-_REMEMBERED:], made]
            return made

        self._net._manager.get_connection = connection
        return self._net

    def telling(self) -> Exception | None:
        """The failure of a connection that says what a person has to mend, if there is one."""
        failures = [each.init_future.exception for each in self._connections if each.init_future.failed()]
        ranked = sorted(
            (rank, at) for at, each in enumerate(failures) if (rank := how_telling(each)) is not None
        )
        if not ranked:
            return None
        rank, at = ranked[0]
        return ClosedAgainError(str(failures[at])) if rank == 2 else failures[at]

    def close(self) -> None:
        if self._net is not None:
            self._net.close()
        self._connections = []
        # The library leaves the socket of a refused connection to the collector, in a cycle with its exception. While
        # Kafka is away little else is made, so the collector would come too seldom for thousands of them.
        gc.collect()


def end(*clients: Any) -> None:
    """Closes them without waiting for what was not sent. Whatever fails at that is of no consequence."""
    for client in clients:
        with contextlib.suppress(errors.KafkaError, OSError):
            if isinstance(client, KafkaProducer):
                client._sender.force_close()  # what `close` does when it has waited; it may wait in vain
                client._sender.join(5.0)
                client.close(timeout=0)
            else:
                client.close()
