"""A batch whose objects are gone from the archive: named, in the way of the close, and then billed by a decision."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from command import EXAMPLE, over
from intake_world import OPERATOR, World, Writer
from sqlalchemy import text

from adapters.archive import BatchObjects
from adapters.objects import FolderObjects
from adapters.postgres.database import Database, DatabaseUrls

MANY = 12


async def lose_one(urls: DatabaseUrls, data: Path) -> None:
    """Twelve batches of Acme's; the second pass finds the first one's objects gone."""
    database = await Database.open(urls)
    world, writer = World(database, data, now=datetime.now(UTC)), Writer()
    async with database.app(OPERATOR) as conn:
        acme = (await conn.execute(text("SELECT id FROM subject WHERE slug = 'acme'"))).scalar_one()
    await world.enrol(writer)
    world.wire.send(*(writer.seal(customer=acme.bytes, prompt_tokens=1_000_000) for _ in range(MANY)))
    await world.intake().sweep()
    [(path,)] = await world.rows("SELECT path FROM batch WHERE number = 0")
    BatchObjects(FolderObjects(data / "archive")).remove([str(path)])
    await world.intake().turn()
    await world.intake().turn()
    await database.close()


def test_a_batch_that_nothing_proves_stops_the_close_until_a_person_bills_it_all_the_same(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    urls = fresh_urls()
    tally = over(urls, tmp_path / "data", EXAMPLE)
    asyncio.run(lose_one(urls, tally.data))

    streams = tally.run("streams", "--json")
    assert (streams.exit_code, streams.document["root_faults"]) == (3, 1)
    [named] = streams.document["root_fault_batches"]
    command = f"tally intake repair --root {named['hash'][:16]} --reason"
    shown = tally.run("streams").stdout
    assert "unproven: vilnius-1/sidecar-0" in shown
    assert command in shown
    doctor = tally.run("doctor", "--json")
    assert doctor.exit_code == 3
    [check] = [each for each in doctor.document["checks"] if each["name"] == "roots"]
    assert f"{named['epoch']}-0: it is not in the archive any more" in check["what"]
    close = ("period", "close", "2026-10", "--accept-gap", "vilnius-1", "--reason", "its lane is a test's")
    refused = tally.refused(*close)
    assert refused["code"] == "root_fault"
    assert "tally intake repair --root" in refused["remedy"]

    decided = tally("intake", "repair", "--root", named["hash"][:16], "--reason", "the disk is lost")
    [decision] = decided["decisions"]
    assert (decision["kind"], decision["hash"], decision["requests"]) == ("unproven", named["hash"], 3)
    assert tally.run("streams", "--json").document["root_faults"] == 0
    [closed] = tally(*close)["operators"]
    [gap] = [each for each in closed["gaps"] if each["kind"] == "unproven"]
    assert (gap["node"], gap["requests"], gap["reason"]) == ("vilnius-1", 3, "the disk is lost")
    assert closed["drafts"]
    assert tally("usage")["total"]["requests"] == 3 * MANY
