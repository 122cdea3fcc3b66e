"""Intake's acknowledgements on their way to the shippers: topic `<prefix>.accepted`, compacted, the lane as its key.

Only the newest mark of a lane matters, so what transactions bring is gathered and sent a few times a second. An
acknowledgement is owed until the broker has it: what fails is sent again with what comes next. When a worker is killed
in between nothing is lost: its next start acknowledges every lane that has not ended long ago, and a shipper that hears
nothing sends its batches again, which come in as repeats and are acknowledged once more. So a lane's mark is sent
whenever one of its batches came, also when it has not moved.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kafka import KafkaProducer

from adapters.kafka.clients import begin
from adapters.kafka.errors import kafka_failures
from adapters.kafka.settings import KafkaSettings
from billing.acceptance import Mark
from billing.inspection import LaneName
from metering.acknowledgement import Acknowledgement, sign_acknowledgement
from metering.refusal import Unavailable

_log = logging.getLogger(__name__)

SEND_EVERY_S = 0.2
#: So many go in one turn: whoever commits meanwhile waits for it, and a start owes every lane there is.
AT_ONCE = 1_000
#: After a failure: Kafka is away, and asking it takes time.
TRY_AGAIN_AFTER_S = 2.0
_WAIT_MS = 1_000
_CLOSE_WITHIN_S = 5.0


class Acknowledging:
    """Signs and sends how far lanes are accepted. `key_of` gives an operator's intake key. Never raises because Kafka is
    away: what is owed stays owed. Threads may call it at once.
    """

    def __init__(self, settings: KafkaSettings, key_of: Callable[[str], Ed25519PrivateKey]) -> None:
        self._settings = settings
        self._key_of = key_of
        self._keys: dict[str, Ed25519PrivateKey] = {}
        self._owed: dict[LaneName, None] = {}  # in the order in which they came
        self._marks: dict[LaneName, Mark] = {}  # the newest, of lanes of which the broker may not have it
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._producer: Any = None
        self._spoilt = False
        self._send_at = 0.0

    def owe(self, marks: Mapping[LaneName, Mark]) -> None:
        """These lanes are accepted so far, and that is committed; a lane of which nothing is accepted has no mark. Sends
        what is owed when it is time, so it is to be called now and then also with nothing new.
        """
        with self._lock:
            begun = {name: mark for name, mark in marks.items() if mark.epoch is not None}
            self._marks |= begun
            self._owed |= dict.fromkeys(begun)
        if time.monotonic() >= self._send_at:
            self.send()

    def send(self) -> None:
        """Hands what is owed to the producer."""
        with self._sending:
            with self._lock:
                going = dict.fromkeys(islice(self._owed, AT_ONCE))
                for name in going:
                    del self._owed[name]
                marks = [(name, self._marks[name]) for name in going]
            self._send_at = time.monotonic() + SEND_EVERY_S
            if not going:
                return
            try:
                with kafka_failures(self._settings):
                    producer = self._open()
                    for name, mark in marks:
                        sending = producer.send(
                            self._settings.accepted, key=str(name).encode(), value=self._signed(name, mark)
                        )
                        sending.add_callback(partial(self._taken, name, mark))
                        sending.add_errback(partial(self._failed, name))
                        del going[name]
            except Unavailable as down:
                _log.warning("%s; acknowledgements are sent later", down.what)
                self._send_at = time.monotonic() + TRY_AGAIN_AFTER_S
                self._owe_again(going)

    def close(self) -> None:
        """Sends what is owed, for as long as that takes a moment."""
        until = time.monotonic() + _CLOSE_WITHIN_S
        while self._owed and time.monotonic() < until:
            self.send()
        if self._producer is not None:
            self._let_go(self._producer, _CLOSE_WITHIN_S)

    def _signed(self, name: LaneName, mark: Mark) -> bytes:
        assert mark.epoch is not None
        if name.operator not in self._keys:
            self._keys[name.operator] = self._key_of(name.operator)
        said = Acknowledgement(*name, mark.epoch, mark.number, mark.head)
        return sign_acknowledgement(said, self._keys[name.operator])

    def _open(self) -> Any:
        if self._spoilt:  # an idempotent producer that lost a message may refuse all that follow it
            self._spoilt, spoilt, self._producer = False, self._producer, None
            self._let_go(spoilt, 0)
        if self._producer is None:
            self._producer = begin(
                KafkaProducer,
                self._settings,
                "tally-intake",
                acks="all",
                enable_idempotence=True,
                allow_auto_create_topics=False,
                max_block_ms=_WAIT_MS,
                linger_ms=5,
            )
        return self._producer

    def _let_go(self, producer: Any, within_s: float) -> None:
        try:
            with kafka_failures(self._settings):
                producer.close(timeout=within_s)
        except Unavailable as down:
            _log.warning("%s; acknowledgements that are missing are sent again", down.what)

    def _taken(self, name: LaneName, mark: Mark, _where: object) -> None:
        """Called in the producer's thread."""
        with self._lock:
            if self._marks.get(name) == mark and name not in self._owed:
                del self._marks[name]

    def _failed(self, name: LaneName, problem: object) -> None:
        """Called in the producer's thread."""
        _log.warning("an acknowledgement was not taken (%s); it is sent again", type(problem).__name__)
        self._spoilt = True
        self._owe_again([name])

    def _owe_again(self, names: Iterable[LaneName]) -> None:
        with self._lock:
            self._owed |= {name: None for name in names if name in self._marks}
