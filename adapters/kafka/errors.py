"""What Kafka's failures mean: a broker that is away, or a state in which no retry helps; by name, and without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka import errors

from adapters.kafka.settings import KafkaSettings
from metering.refusal import Refusal, Unavailable

#: (errors, code, what, remedy): the first that fits. They are what a person has to mend; the rest passes by itself.
_KNOWN: tuple[tuple[tuple[type[Exception], ...], str, str, str], ...] = (
    (
        (errors.SaslAuthenticationFailedError, errors.UnsupportedSaslMechanismError),
        "kafka_login",
        "Kafka does not let us in: user, password or mechanism are wrong",
        "see TALLY_KAFKA_USER, TALLY_KAFKA_PASSWORD_FILE and TALLY_KAFKA_SASL_MECHANISM",
    ),
    (
        (
            errors.TopicAuthorizationFailedError,
            errors.ClusterAuthorizationFailedError,
            errors.GroupAuthorizationFailedError,
        ),
        "kafka_rights",
        "Kafka does not let us do this",
        "see in docs/kafka.md which rights are needed",
    ),
    (
        (errors.UnknownTopicOrPartitionError,),
        "kafka_topic_missing",
        "the topic is not there",
        "tally kafka prepare",
    ),
    (
        (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError),
        "kafka_message_size",
        "Kafka refuses a sealed batch as too large",
        "tally kafka prepare says which limit is too small",
    ),
    (
        (errors.NotEnoughReplicasError, errors.NotEnoughReplicasAfterAppendError),
        "kafka_replicas",
        "too few brokers are in step to keep a message safely",
        "start the brokers that are missing",
    ),
)


# The library has one class for all that a connection may suffer, and tells them apart by their texts.
_HANDSHAKE, _CLOSED = "Handshake failed: ", "socket disconnected"


class ClosedAgainError(errors.KafkaConnectionError):  # type: ignore[misc]  # the library has no types
    """Brokers took each connection, and closed it before it was of any use."""


def how_telling(problem: Exception) -> int | None:
    """Of failures to connect, the lowest says best what is wrong; None: nothing but that it failed."""
    if isinstance(problem, (errors.SaslAuthenticationFailedError, errors.UnsupportedSaslMechanismError)):
        return 0
    if isinstance(problem, errors.KafkaConnectionError):
        # Over TLS a broker's "no" to a password is mostly lost in the closing that follows it.
        return 1 if _HANDSHAKE in str(problem) else 2 if _CLOSED in str(problem) else None
    return None


def unavailable(problem: Exception, settings: KafkaSettings) -> Unavailable:
    """The failure of a call to Kafka, in words."""
    where = ",".join(settings.brokers)
    for kinds, code, what, remedy in _KNOWN:
        if isinstance(problem, kinds):
            return Unavailable(code, what, where=where, remedy=remedy)
    if isinstance(problem, ClosedAgainError):
        remedy = "a wrong password, user or mechanism looks so, and so does a port that wants TLS"
        return Unavailable(
            "kafka_closed", "Kafka takes the connection and closes it again", where=where, remedy=remedy
        )
    if how_telling(problem) == 1:
        why = str(problem).partition(_HANDSHAKE)[2]
        remedy = "see TALLY_KAFKA_CA_FILE, and whether the brokers' names are those in their certificates"
        return Unavailable("kafka_tls", f"no TLS with Kafka: {why}", where=where, remedy=remedy)
    # The library's own texts name nodes and sockets, never a password; only the kind is kept all the same.
    return Unavailable(
        "kafka_down",
        f"Kafka does not answer ({type(problem).__name__})",
        where=where,
        remedy="is the broker running, and TALLY_KAFKA right?",
    )


@contextmanager
def kafka_failures(settings: KafkaSettings) -> Iterator[None]:
    """What the library raises within becomes Unavailable."""
    try:
        yield
    except (Refusal, Unavailable, errors.KafkaConfigurationError):  # the last is a bug of ours
        raise
    except (
        errors.KafkaError,
        OSError,
        ValueError,
    ) as problem:  # ValueError: a topic that the metadata lost meanwhile
        raise unavailable(problem, settings) from problem
