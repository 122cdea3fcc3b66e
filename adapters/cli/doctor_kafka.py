"""`tally doctor` at Kafka: whether brokers answer, the topics keep what is sent to them, and how long batches wait."""

from __future__ import annotations

import time

from adapters.cli.checks import FAULT, OK, WARNING, Check
from adapters.cli.framework import counted
from adapters.cli.kafka import ENOUGH_COPIES, settings_if_any
from adapters.cli.shipping import known_intake_key
from adapters.data_folder import DataFolder
from adapters.kafka.settings import KafkaSettings
from metering.refusal import Refusal, Unavailable
from metering.spool import Spool

#: What has waited longer than this is in nobody's hands: a shipper sends within a second, intake takes within some.
LONG_S = 600
#: Less, and a weekend without intake has everything sent a second time.
LEAST_RETENTION_DAYS = 1


def check_kafka(folder: DataFolder) -> list[Check]:
    """Nothing where no Kafka is named: the spool is then read by intake itself."""
    try:
        settings = settings_if_any()
    except Refusal as refused:
        return [Check("kafka", FAULT, f"{refused.where}: {refused.what}", refused.remedy)]
    if settings is None:
        return []
    return [*_check_topics(settings), *_check_waiting(Spool(folder.spool)), *_check_keys(folder)]


def _check_topics(settings: KafkaSettings) -> list[Check]:
    from adapters.kafka import topics  # nobody without Kafka waits for its library

    try:
        cluster = topics.look(settings)
    except Unavailable as away:
        return [Check("kafka", FAULT, f"{away.what} at {away.where}", away.remedy)]
    copies = min(ENOUGH_COPIES, cluster.brokers)
    wanted = topics.wanted_topics(
        settings,
        partitions=1,
        replication=copies,
        in_sync=2 if copies == ENOUGH_COPIES else 1,
        retention_days=LEAST_RETENTION_DAYS,
    )
    checks = [Check("kafka", OK, f"{counted(cluster.brokers, 'broker')} of cluster {cluster.id}")]
    for topic in wanted:
        name = f"topic {topic.name}"
        found = cluster.topics.get(topic.name)
        if found is None:
            checks.append(Check(name, FAULT, "it is not there", "tally kafka prepare"))
            continue
        differs = topics.differences(topic, found)
        checks += [Check(name, FAULT if each.loses else WARNING, each.what, each.remedy) for each in differs]
        if not differs:
            held = f"{counted(found.partitions, 'partition')}, {counted(found.replication, 'copy', 'copies')}"
            checks.append(Check(name, OK, held))
    return checks


def _check_waiting(spool: Spool) -> list[Check]:
    oldest_us = spool.backlog().oldest_us if spool.folder.exists() else None
    if oldest_us is None:
        return []
    waits_s = max(0, int(time.time() - oldest_us / 1e6))
    what = (
        f"the spool's oldest batch has waited for {counted(waits_s, 'second')} for intake to acknowledge it"
    )
    if waits_s < LONG_S:
        return [Check("oldest batch", OK, what)]
    remedy = "is the shipper running (its log says what is in the way), and intake? tally streams names held batches"
    return [Check("oldest batch", WARNING, what, remedy)]


def _check_keys(folder: DataFolder) -> list[Check]:
    key_of = known_intake_key(folder.intake_keys)
    checks = []
    for operator in sorted({lane.operator for lane in Spool(folder.spool).lanes()}):
        name = f"intake key of {operator}"
        try:
            if key_of(operator) is None:
                what = "it is not here: acknowledgements can't be checked, and nothing leaves the spool"
                checks.append(Check(name, WARNING, what, f"put it at {folder.intake_keys / operator}.pub"))
        except Refusal as refused:
            checks.append(Check(name, FAULT, refused.what, f"see {refused.where}"))
    return checks
