"""What is down is said once and once more when it is over, however often intake tries."""

from __future__ import annotations

import asyncio

import pytest

from billing.polls import Outages
from metering.refusal import Unavailable


def test_an_outage_is_said_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    outages = Outages()
    says = iter([None, "kafka_down", "kafka_down", "kafka_down", "disk_full", None, None])

    async def turn() -> None:
        code = next(says)
        if code is not None:
            raise Unavailable(code, f"{code} does not answer")

    async def roll_up() -> None:
        """Goes on all the while: its success is not the end of the turn's outage."""

    async def loop() -> list[bool]:
        went = []
        for _ in range(7):
            went.append(await outages.survives("turn", turn))
            assert await outages.survives("roll-up", roll_up)
        return went

    assert asyncio.run(loop()) == [True, False, False, False, False, True, True]
    assert caplog.messages == [
        "kafka_down does not answer; intake tries again, nothing is lost",
        "disk_full does not answer; intake tries again, nothing is lost",
        "disk_full does not answer: that is over, intake goes on",
    ]
