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


def unavailable(problem: Exception, settings: KafkaSettings) -> Unavailable:
    """The failure of a call to Kafka, in words."""
    where = ",".join(settings.brokers)
    for kinds, code, what, remedy in _KNOWN:
        if isinstance(problem, kinds):
            return Unavailable(code, what, where=where, remedy=remedy)
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
