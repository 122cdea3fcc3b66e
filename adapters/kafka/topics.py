"""The two topics: what they have to be like, what is there, and what to do about the difference.

    <prefix>.batches    sealed batches, site to intake. Deleted by age only: compaction would keep each lane's newest batch
                        and lose the rest, a limit of bytes would lose what intake has not read yet.
    <prefix>.accepted   intake's acknowledgements, back to the sites. Compacted: each lane's newest is all that counts;
                        small segments, so that a shipper that starts has little to read.

Both stamp messages with the broker's clock. A site's clock that is a year behind would otherwise have its batches
deleted as old when they arrive, one that is two hours ahead would have them refused.

Both leave messages as their producers packed them (`compression.type` producer, and ours pack nothing). A topic that
packs what comes makes messages that intake does not unpack (unreadable.py). One that unpacks what comes
(`uncompressed`) takes the room for it from the broker's memory: one megabyte of gzip may hold one gigabyte. A broker with
512 MB failed so with 300 MB in one message; left as it was sent, the same message cost it nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import UnknownTopicOrPartitionError, for_code

from adapters.kafka.clients import begin, end
from adapters.kafka.errors import kafka_failures
from adapters.kafka.outgoing import LARGEST_MESSAGE_BYTES
from adapters.kafka.settings import KafkaSettings

DAY_MS = 86_400_000
#: Kafka's own default, written down so that a smaller one of the brokers does not count.
MAX_MESSAGE_BYTES = 1_048_588

_SIZE, _AGE, _BYTES = "max.message.bytes", "retention.ms", "retention.bytes"
_PACKED = "compression.type"
_POLICY, _IN_SYNC, _STAMP = "cleanup.policy", "min.insync.replicas", "message.timestamp.type"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is wanted or found. `replication`: the fewest copies that one of its partitions has; `config` is
    empty where the brokers do not let us read it.
    """

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not as wanted. `loses`: batches are refused or lost by it, not just less safe. `config`: the setting that
    mends it; `partitions`: the number that does; neither: it takes a tool of Kafka's own (`remedy`).
    """

    topic: str
    what: str
    remedy: str
    loses: bool = False
    config: tuple[str, str] | None = None
    partitions: int | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """What answers: its id, how many brokers, and those of our topics that exist."""

    id: str
    brokers: int
    topics: Mapping[str, Topic]


def wanted_topics(
    settings: KafkaSettings, *, partitions: int, replication: int, in_sync: int, retention_days: int
) -> list[Topic]:
    """The topics as they shall be."""
    both = {_IN_SYNC: str(in_sync), _STAMP: "LogAppendTime", _PACKED: "producer"}
    batches = both | {
        _POLICY: "delete",
        _AGE: str(retention_days * DAY_MS),
        _BYTES: "-1",
        _SIZE: str(MAX_MESSAGE_BYTES),
    }
    accepted = both | {
        _POLICY: "compact",
        "segment.ms": "3600000",
        "segment.bytes": str(16 << 20),
        "min.cleanable.dirty.ratio": "0.1",
    }
    return [
        Topic(settings.batches, partitions, replication, batches),
        Topic(settings.accepted, 1, replication, accepted),
    ]


def differences(wanted: Topic, found: Topic) -> list[Difference]:
    """What is worse about a topic than wanted; what is better or merely other is nobody's business."""
    name, have = found.name, found.config
    if not have:
        what = "its settings can't be read, so nobody knows whether they lose or refuse batches"
        return [Difference(name, what, "give this user the right DescribeConfigs on it")]
    listed = []

    def differs(setting: str, what: str, *, loses: bool = False) -> None:
        value = wanted.config[setting]
        listed.append(
            Difference(
                name, what, f"tally kafka prepare --mend sets {setting} to {value}", loses, (setting, value)
            )
        )

    if have[_POLICY] != wanted.config[_POLICY]:
        differs(_POLICY, f"{_POLICY} is {have[_POLICY]}, not {wanted.config[_POLICY]}", loses=True)
    if have[_PACKED] == "uncompressed":
        differs(
            _PACKED, "what a site has compressed is unpacked in the brokers' memory, however much that is"
        )
    elif have[_PACKED] != wanted.config[_PACKED]:
        what = f"the brokers compress what comes ({_PACKED} is {have[_PACKED]}), and intake unpacks nothing"
        differs(_PACKED, what, loses=True)
    if _SIZE in wanted.config and int(have[_SIZE]) < LARGEST_MESSAGE_BYTES:
        differs(
            _SIZE, f"{_SIZE} is {have[_SIZE]}; a sealed batch may have {LARGEST_MESSAGE_BYTES:,}", loses=True
        )
    if _AGE in wanted.config and -1 < int(have[_AGE]) < int(wanted.config[_AGE]):
        differs(_AGE, f"a batch is kept for {_hours(have[_AGE])}, not for {_hours(wanted.config[_AGE])}")
    if _BYTES in wanted.config and int(have[_BYTES]) != -1:
        differs(
            _BYTES, f"above {int(have[_BYTES]):,} bytes a partition loses what was not read yet", loses=True
        )
    if have[_STAMP] != wanted.config[_STAMP]:
        differs(_STAMP, "messages are kept, and refused, by the clocks of the sites")
    if int(have[_IN_SYNC]) > found.replication:
        differs(
            _IN_SYNC,
            f"{_IN_SYNC} is {have[_IN_SYNC]}, with {found.replication} copies: nothing is taken",
            loses=True,
        )
    elif int(have[_IN_SYNC]) < int(wanted.config[_IN_SYNC]):
        differs(_IN_SYNC, f"a message is taken when {have[_IN_SYNC]} broker has it")
    if found.partitions < wanted.partitions:
        more = f"tally kafka prepare --partitions {wanted.partitions} --mend"
        listed.append(
            Difference(
                name,
                f"{found.partitions} partitions, not {wanted.partitions}",
                more,
                partitions=wanted.partitions,
            )
        )
    if found.replication < wanted.replication:
        tool = "kafka-reassign-partitions.sh of Kafka moves and copies partitions"
        listed.append(
            Difference(name, f"{found.replication} of {wanted.replication} copies of each message", tool)
        )
    return listed


def look(settings: KafkaSettings) -> Cluster:
    """What is there. Unavailable where no broker answers, or lets us in."""
    with kafka_failures(settings):
        admin = begin(KafkaAdminClient, settings, "tally")
        try:
            return _look(admin, [settings.batches, settings.accepted])
        finally:
            end(admin)


def prepare(settings: KafkaSettings, topics: Sequence[Topic]) -> list[str]:
    """Makes those that are missing; their names."""
    with kafka_failures(settings):
        admin = begin(KafkaAdminClient, settings, "tally")
        try:
            there = _look(admin, [topic.name for topic in topics]).topics
            missing = {
                topic.name: {
                    "num_partitions": topic.partitions,
                    "replication_factor": topic.replication,
                    "configs": dict(topic.config),
                }
                for topic in topics
                if topic.name not in there
            }
            if missing:
                admin.create_topics(missing, wait_for_metadata=True)
            return list(missing)
        finally:
            end(admin)


def mend(settings: KafkaSettings, found: Sequence[Difference]) -> None:
    """Sets what can be set. Whether the brokers have done it is for another look to say."""
    with kafka_failures(settings):
        admin = begin(KafkaAdminClient, settings, "tally")
        try:
            for each in found:
                if each.config is not None:
                    asked = ConfigResource(ConfigResourceType.TOPIC, each.topic, dict([each.config]))
                    admin.alter_configs([asked])
                elif each.partitions is not None:
                    admin.create_partitions({each.topic: each.partitions})
        finally:
            end(admin)


def _look(admin: Any, names: Sequence[str]) -> Cluster:
    about = admin.describe_cluster()
    described = {}
    for topic in admin.describe_topics(list(names)):
        problem = for_code(topic["error_code"])
        if problem is UnknownTopicOrPartitionError:
            continue
        if topic["error_code"]:
            raise problem(topic["name"])
        described[str(topic["name"])] = topic["partitions"]
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in described]
    configs = admin.describe_configs(asked, config_filter="all")["topic"] if asked else {}
    topics = {
        name: Topic(
            name,
            len(partitions),
            min(len(partition["replica_nodes"]) for partition in partitions),
            {key: str(entry["value"]) for key, entry in configs[name].items()},
        )
        for name, partitions in described.items()
    }
    return Cluster(str(about["cluster_id"]), len(about["brokers"]), topics)


def _hours(milliseconds: str) -> str:
    hours = int(milliseconds) / 3_600_000
    return f"{hours / 24:g} days" if hours >= 48 else f"{hours:g} hours"
