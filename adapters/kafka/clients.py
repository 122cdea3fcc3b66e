"""Beginning and ending kafka-python's clients so that neither a thread nor a socket is left of them.

The library starts a thread for each client before it has found a broker. Where it finds none its constructor raises,
and nobody has the client to close: an hour without Kafka would leave hundreds of threads. And a producer's `close`
first waits for what was not sent, and raises where that is in vain before it has ended its thread. So what a client is
built upon is made here, and ended here.
"""

from __future__ import annotations

import contextlib
from typing import Any

from kafka import KafkaProducer, errors
from kafka.net.compat import KafkaNetClient

from adapters.kafka.settings import KafkaSettings
from metering.refusal import Refusal, Unavailable


def begin(kind: Any, settings: KafkaSettings, name: str, **options: Any) -> Any:
    """A client of the library's class `kind`, connected; `name` is what brokers log.

    What the library raises where no broker answers; Unavailable where the settings name a file that can't be read.
    """
    made: list[Any] = []

    def remembered(**config: Any) -> Any:
        made.append(KafkaNetClient(**config))
        return made[-1]

    try:
        common = settings.client(name)
    except Refusal as refused:  # a file that was there when the settings were checked
        raise Unavailable(refused.code, refused.what, where=refused.where, remedy=refused.remedy) from None
    try:
        return kind(kafka_client=remembered, **common, **options)
    except BaseException:
        for each in made:
            each.close()
        raise


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
