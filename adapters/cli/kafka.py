"""`tally kafka prepare`: makes the two topics, and says what is wrong with those that are there."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from adapters.cli.framework import DIFFERENCE, Context, Result, command, table
from adapters.kafka.settings import KafkaSettings, kafka_settings
from metering.refusal import Refusal

DEFAULT_PARTITIONS = 12
DEFAULT_RETENTION_DAYS = 7
#: Copies of a message, where there are brokers enough.
ENOUGH_COPIES = 3


def register(app: typer.Typer) -> None:
    kafka = typer.Typer(no_args_is_help=True, help="Kafka between sites and intake.")
    app.add_typer(kafka, name="kafka")

    @command(kafka, "prepare", path="kafka prepare", example="tally kafka prepare --partitions 12")
    async def prepare(
        _context: Context,
        partitions: Annotated[
            int,
            typer.Option(min=1, metavar="N", help="Of the topic of batches: as many workers can share it."),
        ] = DEFAULT_PARTITIONS,
        replication: Annotated[
            int | None,
            typer.Option(
                min=1, metavar="N", help="Copies of each message. Default: 3, or as many as brokers."
            ),
        ] = None,
        in_sync: Annotated[
            int | None,
            typer.Option(
                min=1,
                metavar="N",
                help="Copies that must be there before one is taken. Default: 2 of 3 or more.",
            ),
        ] = None,
        retention_days: Annotated[
            int, typer.Option(min=1, max=36_500, metavar="N", help="How long Kafka keeps a batch.")
        ] = DEFAULT_RETENTION_DAYS,
        mend: Annotated[
            bool, typer.Option("--mend", help="Also change topics that are there and differ.")
        ] = False,
    ) -> Result:
        """Make the two topics on the brokers that TALLY_KAFKA names, and say what differs about those that are there.

        Changes nothing that is there, unless --mend is given. Exit 3 if something still differs.
        """
        return await asyncio.to_thread(
            _prepare, wanted_settings(), partitions, replication, in_sync, retention_days, mend
        )


def settings_if_any() -> KafkaSettings | None:
    """How Kafka is reached; None where the spool itself is read. Refusals: bad_kafka_settings, also for its files."""
    settings = kafka_settings(os.environ)
    if settings is not None:
        settings.client("tally")  # files that can't be read are refused now
    return settings


def wanted_settings() -> KafkaSettings:
    """The settings of a command that is about Kafka. Refusals: no_kafka, bad_kafka_settings."""
    settings = settings_if_any()
    if settings is None:
        raise Refusal(
            "no_kafka",
            "no Kafka is named",
            where="TALLY_KAFKA",
            remedy="set it to the brokers, HOST:PORT[,HOST:PORT…]; without it the spool itself is read",
        )
    return settings


def _prepare(
    settings: KafkaSettings,
    partitions: int,
    replication: int | None,
    in_sync: int | None,
    retention_days: int,
    mend: bool,
) -> Result:
    from adapters.kafka import topics

    cluster = topics.look(settings)
    copies = replication or min(ENOUGH_COPIES, cluster.brokers)
    if copies > cluster.brokers:
        raise Refusal(
            "too_few_brokers",
            f"{copies} copies want {copies} brokers, and {cluster.brokers} are there",
            where="--replication",
            remedy="ask for fewer copies, or start the brokers that are missing",
        )
    at_once = in_sync or (2 if copies >= ENOUGH_COPIES else 1)
    if at_once > copies:
        raise Refusal(
            "too_few_copies",
            f"{at_once} copies in step want at least as many copies, and {copies} are made",
            where="--in-sync",
            remedy=f"--in-sync {max(1, copies - 1)}",
        )
    wanted = topics.wanted_topics(
        settings, partitions=partitions, replication=copies, in_sync=at_once, retention_days=retention_days
    )
    created = topics.prepare(settings, wanted)

    def differences(cluster: topics.Cluster) -> list[topics.Difference]:
        there = [(topic, cluster.topics[topic.name]) for topic in wanted if topic.name in cluster.topics]
        return [each for topic, found in there for each in topics.differences(topic, found)]

    found = left = differences(cluster)
    if mend and found:
        topics.mend(settings, found)
        left = differences(topics.look(settings))
    mended = [each for each in found if each not in left]
    rows = [
        *((topic.name, "created" if topic.name in created else "there", "", "") for topic in wanted),
        *((each.topic, "mended", each.what, "") for each in mended),
        *((each.topic, "differs", each.what, each.remedy) for each in left),
    ]
    document = {
        "cluster": cluster.id,
        "created": created,
        "mended": [{"topic": each.topic, "what": each.what} for each in mended],
        "differences": [{"topic": each.topic, "what": each.what, "remedy": each.remedy} for each in left],
    }
    shown = table(None, ("topic", "state", "what", "remedy"), rows, sentences=("what", "remedy"))
    return Result(document, shown, DIFFERENCE if left else 0)
