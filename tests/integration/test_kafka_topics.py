"""Topics, logins and the doctor, with a real broker."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from kafka_broker import PASSWORD, USER, KafkaBroker, own_broker, unique_prefix
from shipped_lanes import INTAKE, OPERATOR, SealingLane

from adapters.cli.doctor_kafka import check_kafka
from adapters.data_folder import DataFolder
from adapters.kafka import settings as kafka_settings_module
from adapters.kafka.outgoing import KafkaOutgoing
from adapters.kafka.settings import KafkaSettings, kafka_settings
from adapters.kafka.topics import DAY_MS, differences, look, mend, prepare, wanted_topics
from metering.acknowledgement import intake_name
from metering.note import verifier_key
from metering.refusal import Unavailable
from metering.spool import LaneRef


@pytest.fixture
def settings(kafka: KafkaBroker) -> KafkaSettings:
    """The shared broker, and topics of the test's own that are not there yet."""
    return KafkaSettings((kafka.address,), unique_prefix())


def make(settings: KafkaSettings, partitions: int = 1) -> None:
    prepare(
        settings, wanted_topics(settings, partitions=partitions, replication=1, in_sync=1, retention_days=7)
    )


def named(settings: KafkaSettings) -> dict[str, str]:
    return {"TALLY_KAFKA": ",".join(settings.brokers), "TALLY_KAFKA_PREFIX": settings.prefix}


def doctor(
    folder: Path, monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """What the doctor says of Kafka: name to (state, what)."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return {each.name: (each.state, each.what) for each in check_kafka(DataFolder(folder))}


def test_what_is_prepared_is_as_wanted_and_worse_is_named_and_mended(settings: KafkaSettings) -> None:
    make(settings, partitions=2)
    wanted = wanted_topics(settings, partitions=2, replication=1, in_sync=1, retention_days=7)
    there = look(settings)
    assert [differences(each, there.topics[each.name]) for each in wanted] == [[], []]
    assert prepare(settings, wanted) == []

    batches, _ = wanted_topics(settings, partitions=3, replication=2, in_sync=1, retention_days=9)
    found = differences(batches, there.topics[batches.name])
    assert [each.what for each in found] == [
        "a batch is kept for 7 days, not for 9 days",
        "2 partitions, not 3",
        "1 of 2 copies of each message",
    ]
    mend(settings, found)
    now = look(settings).topics[batches.name]
    assert (now.partitions, now.config["retention.ms"]) == (3, str(9 * DAY_MS))
    assert [each.what for each in differences(batches, now)] == ["1 of 2 copies of each message"]


@pytest.mark.parametrize(("packing", "loses"), [("zstd", True), ("uncompressed", False)])
def test_a_topic_that_packs_or_unpacks_what_comes_is_named_and_mended(
    settings: KafkaSettings, packing: str, loses: bool
) -> None:
    wanted = wanted_topics(settings, partitions=1, replication=1, in_sync=1, retention_days=7)
    other = [replace(each, config=dict(each.config) | {"compression.type": packing}) for each in wanted]
    prepare(settings, other)
    found = [each for topic in wanted for each in differences(topic, look(settings).topics[topic.name])]
    assert [(each.topic, each.config, each.loses) for each in found] == [
        (topic.name, ("compression.type", "producer"), loses) for topic in wanted
    ]
    mend(settings, found)
    there = look(settings).topics
    assert [differences(topic, there[topic.name]) for topic in wanted] == [[], []]


def test_over_tls_with_a_password_and_not_without_the_right_one(
    kafka: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_settings_module, "FOUND_WITHIN_MS", 1_000)
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    environ = {
        "TALLY_KAFKA": kafka.secure,
        "TALLY_KAFKA_PREFIX": unique_prefix(),
        "TALLY_KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
        "TALLY_KAFKA_CA_FILE": str(kafka.ca),
        "TALLY_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "TALLY_KAFKA_USER": USER,
        "TALLY_KAFKA_PASSWORD_FILE": str(password),
    }
    for mechanism in ("SCRAM-SHA-512", "PLAIN"):
        known = kafka_settings(environ | {"TALLY_KAFKA_SASL_MECHANISM": mechanism})
        assert known is not None
        assert PASSWORD not in repr(known)
        assert look(known).brokers == 1

    untrusting = kafka_settings({name: value for name, value in environ.items() if "CA" not in name})
    assert untrusting is not None
    with pytest.raises(Unavailable) as refused:
        look(untrusting)
    assert refused.value.code == "kafka_tls"

    password.write_text("guessed")
    assert known is not None
    with pytest.raises(Unavailable) as refused:
        look(known)
    assert refused.value.code in (
        "kafka_login",
        "kafka_closed",
    )  # whether its answer is read before it has closed
    assert "guessed" not in f"{refused.value.what} {refused.value.remedy}"


@pytest.mark.proof
def test_the_rights_that_the_page_names_suffice_and_no_others_are_used(tmp_path: Path) -> None:
    guarded = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with own_broker(tmp_path, guarded) as kafka:
        make(KafkaSettings((kafka.address,)))
        password = tmp_path / "password"
        password.write_text(PASSWORD)
        site = KafkaSettings(
            (kafka.place.secure,),
            protocol="SASL_SSL",
            ca_file=kafka.place.ca,
            mechanism="PLAIN",
            user=USER,
            password_file=password,
        )
        outgoing = KafkaOutgoing(site)
        with pytest.raises(Unavailable) as refused:
            outgoing.place()
        assert refused.value.code == "kafka_rights"
        with KafkaAdminClient(bootstrap_servers=kafka.address) as admin:
            allow(admin, ACLOperation.WRITE, site.batches)
            allow(admin, ACLOperation.READ, site.accepted)
            wait(lambda: outgoing.place() != "")
            outgoing.send(LaneRef("o", "n", "l"), b"note", b"body")
            outgoing.flush()
            assert outgoing.acknowledgements() == []
            outgoing.close()

            batches, _ = wanted_topics(site, partitions=1, replication=1, in_sync=1, retention_days=7)
            [unknown] = differences(batches, look(site).topics[batches.name])
            assert "its settings can't be read" in unknown.what
            allow(admin, ACLOperation.DESCRIBE_CONFIGS, site.batches)
            wait(lambda: differences(batches, look(site).topics[batches.name]) == [])


def allow(admin: KafkaAdminClient, operation: ACLOperation, topic: str) -> None:
    pattern = ResourcePattern(ResourceType.TOPIC, topic)
    admin.create_acls([ACL(f"User:{USER}", "*", operation, ACLPermissionType.ALLOW, pattern)])


def wait(holds: Callable[[], bool]) -> None:
    """Until it holds; what Kafka refuses meanwhile is not held against it."""
    until = time.monotonic() + 20
    while True:
        with contextlib.suppress(Unavailable):
            if holds():
                return
        assert time.monotonic() < until
        time.sleep(0.05)


def test_the_doctor_says_whether_brokers_answer_and_topics_keep_what_they_are_sent(
    settings: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = doctor(tmp_path, monkeypatch, named(settings))
    assert found["kafka"][0] == "ok"
    assert found[f"topic {settings.batches}"] == ("fault", "it is not there")
    make(settings, partitions=2)
    found = doctor(tmp_path, monkeypatch, named(settings))
    assert found[f"topic {settings.batches}"] == ("ok", "2 partitions, 1 copy")
    assert found[f"topic {settings.accepted}"] == ("ok", "1 partition, 1 copy")


def test_the_doctor_names_a_topic_in_which_batches_would_be_lost(
    settings: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compacted = {"cleanup.policy": "compact", "max.message.bytes": "100000"}
    with KafkaAdminClient(bootstrap_servers=settings.brokers) as admin:
        admin.create_topics(
            {
                settings.batches: {"num_partitions": 1, "replication_factor": 1, "configs": compacted},
                settings.accepted: {"num_partitions": 1, "replication_factor": 1},
            },
            wait_for_metadata=True,
        )
    monkeypatch.setenv("TALLY_KAFKA", settings.brokers[0])
    monkeypatch.setenv("TALLY_KAFKA_PREFIX", settings.prefix)
    faults = [each.what for each in check_kafka(DataFolder(tmp_path)) if each.state == "fault"]
    assert faults == [
        "cleanup.policy is compact, not delete",
        "max.message.bytes is 100000; a sealed batch may have 969,632",
        "cleanup.policy is delete, not compact",
    ]


def test_the_doctor_says_how_long_the_oldest_batch_has_waited_and_that_the_key_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_settings_module, "FOUND_WITHIN_MS", 300)
    lane = SealingLane(tmp_path / "spool")
    lane.seal(2)
    lane.close()
    oldest = min((tmp_path / "spool").rglob("*.seal"))
    os.utime(oldest, (time.time() - 3_600, time.time() - 3_600))
    found = doctor(tmp_path, monkeypatch, {"TALLY_KAFKA": "127.0.0.1:1"})
    assert found["kafka"] == ("fault", "Kafka does not answer (KafkaTimeoutError) at 127.0.0.1:1")
    state, what = found["oldest batch"]
    assert state == "warning"
    assert "has waited for 3,60" in what
    assert found[f"intake key of {OPERATOR}"][0] == "warning"

    keys = tmp_path / "keys" / "intake"
    keys.mkdir(parents=True)
    (keys / f"{OPERATOR}.pub").write_text(
        verifier_key(intake_name(OPERATOR), INTAKE.public_key().public_bytes_raw()) + "\n"
    )
    assert f"intake key of {OPERATOR}" not in doctor(tmp_path, monkeypatch, {})
    (keys / f"{OPERATOR}.pub").write_text(
        verifier_key(intake_name("kaunas"), INTAKE.public_key().public_bytes_raw()) + "\n"
    )
    assert doctor(tmp_path, monkeypatch, {})[f"intake key of {OPERATOR}"][0] == "fault"
