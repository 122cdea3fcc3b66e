"""What the environment says of Kafka, and what it may not say."""

from __future__ import annotations

import pytest

from adapters.kafka.settings import KafkaSettings, kafka_settings
from metering.refusal import Refusal

TLS = {
    "TALLY_KAFKA": "k:9093",
    "TALLY_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "TALLY_KAFKA_SASL_MECHANISM": "PLAIN",
}


def test_without_brokers_there_is_no_kafka() -> None:
    assert kafka_settings({}) is kafka_settings({"TALLY_KAFKA": " "}) is None


def test_brokers_and_topics() -> None:
    settings = kafka_settings({"TALLY_KAFKA": "kafka-1:9092, 10.0.0.1:9092,[::1]:9092"})
    assert settings == KafkaSettings(("kafka-1:9092", "10.0.0.1:9092", "[::1]:9092"))
    assert (settings.batches, settings.accepted) == ("tally.batches", "tally.accepted")
    other = kafka_settings({"TALLY_KAFKA": "k:1", "TALLY_KAFKA_PREFIX": "north-1"})
    assert other is not None
    assert other.batches == "north-1.batches"


@pytest.mark.parametrize(
    ("where", "environ"),
    [
        ("TALLY_KAFKA", {"TALLY_KAFKA": "kafka-1"}),
        ("TALLY_KAFKA", {"TALLY_KAFKA": "kafka-1:9092,"}),
        ("TALLY_KAFKA", {"TALLY_KAFKA": "kafka://kafka-1:9092"}),
        ("TALLY_KAFKA", {"TALLY_KAFKA": "user:secret@kafka-1:9092"}),
        ("TALLY_KAFKA_PREFIX", {"TALLY_KAFKA": "k:1", "TALLY_KAFKA_PREFIX": "a.b"}),
        ("TALLY_KAFKA_SECURITY_PROTOCOL", {"TALLY_KAFKA": "k:1", "TALLY_KAFKA_SECURITY_PROTOCOL": "TLS"}),
        ("TALLY_KAFKA_SECURITY_PROTOCOL", {"TALLY_KAFKA": "k:1", "TALLY_KAFKA_CA_FILE": "ca.pem"}),
        ("TALLY_KAFKA_SECURITY_PROTOCOL", {"TALLY_KAFKA": "k:1", "TALLY_KAFKA_PASSWORD_FILE": "password"}),
        ("TALLY_KAFKA_SASL_MECHANISM", {**TLS, "TALLY_KAFKA_SASL_MECHANISM": "GSSAPI"}),
        ("TALLY_KAFKA_USER", TLS),
        (
            "TALLY_KAFKA_KEY_FILE",
            {"TALLY_KAFKA": "k:1", "TALLY_KAFKA_SECURITY_PROTOCOL": "SSL", "TALLY_KAFKA_KEY_FILE": "key.pem"},
        ),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_stands(where: str, environ: dict[str, str]) -> None:
    with pytest.raises(Refusal) as refused:
        kafka_settings(environ)
    assert (refused.value.code, refused.value.where) == ("bad_kafka_settings", where)
    assert refused.value.remedy


def test_files_that_cannot_be_read_are_named() -> None:
    settings = kafka_settings(
        {**TLS, "TALLY_KAFKA_USER": "site", "TALLY_KAFKA_PASSWORD_FILE": "/nowhere/password"}
    )
    assert settings is not None
    with pytest.raises(Refusal) as refused:
        settings.client("test")
    assert refused.value.where == "/nowhere/password"
    other = kafka_settings(
        {"TALLY_KAFKA": "k:1", "TALLY_KAFKA_SECURITY_PROTOCOL": "SSL", "TALLY_KAFKA_CA_FILE": "/nowhere/ca"}
    )
    assert other is not None
    with pytest.raises(Refusal) as refused:
        other.client("test")
    assert refused.value.where == "/nowhere/ca"
