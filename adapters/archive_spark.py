"""The rebuild as a Spark job, for archives that one machine would read too long: same chains, same sums, same answer.

    tally archive rebuild --operator telecentras --period 2026-10 --export cells.parquet
    python -m adapters.archive_spark --master yarn --archive s3://bucket/prefix --operator telecentras --cells cells.parquet

The export holds the database's cells, and in its metadata the hours, the lanes' heads and decisions that they go with. A
task sums one lane's day (`archive_sums`, the very code of `tally archive rebuild`), following the chain within it; the
driver sees that each day begins where the day before ended, and leaves out what lies behind a head. Spark adds the cells
and compares them. Prints one JSON document; exit 3 on a difference. Every executor needs tallygrid installed, and the
archive in reach: a bucket, or a folder that all machines see under one path. `--cells` likewise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from adapters.archive_cells import HOUR_US, SUM_SCHEMA, instant
from adapters.archive_reading import Reader, lane_day, lane_days
from adapters.archive_sums import sum_lane_day
from adapters.objects import FolderObjects
from adapters.s3_objects import bucket_objects
from billing.cells import KEYS
from billing.objects import Objects
from metering.event import QUANTITIES
from metering.seal import GENESIS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_NAMED = 100
_WORDS = ("node", "model", "outcome")
_COLUMNS = ", ".join(
    [
        "folder string, report string, hour bigint, customer binary, project binary, `key` binary",
        *(f"{name} string" for name in _WORDS),
        "band bigint",
        *(f"{name} bigint" for name in QUANTITIES),
    ]
)
_ROWS = pa.schema(
    [
        pa.field("folder", pa.string()),
        pa.field("report", pa.string()),
        pa.field("hour", pa.int64()),
        *(pa.field(name, pa.binary()) for name in ("customer", "project", "key")),
        *(pa.field(name, pa.string()) for name in _WORDS),
        pa.field("band", pa.int64()),
        *(pa.field(name, pa.int64()) for name in QUANTITIES),
    ]
)


def main(arguments: Sequence[str]) -> int:
    """Runs the job; 0, or 3 where archive and database differ."""
    parser = argparse.ArgumentParser(
        prog="python -m adapters.archive_spark", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--archive", required=True, help="a folder, or s3://bucket/prefix?region=…")
    parser.add_argument("--operator", required=True)
    parser.add_argument("--cells", required=True, help="what `tally archive rebuild --export` wrote")
    parser.add_argument("--master", help="default: as spark-submit or Spark's settings say")
    asked = parser.parse_args(arguments)
    from pyspark.sql import SparkSession  # an extra: pip install 'tallygrid[spark]'

    builder = SparkSession.builder.appName("tallygrid rebuild").config("spark.sql.session.timeZone", "UTC")
    if asked.master:
        builder = builder.master(asked.master)
    if (asked.master or "").startswith(
        "local"
    ):  # one machine: no server of its own, no hundreds of small tasks
        builder = builder.config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "4")
    spark = builder.getOrCreate()
    try:
        document = rebuild_on(spark, asked.archive, asked.operator, asked.cells)
    finally:
        spark.stop()
    sys.stdout.write(json.dumps(document) + "\n")
    return 0 if document["ok"] else 3


def rebuild_on(spark: SparkSession, archive: str, operator: str, cells: str) -> dict[str, Any]:
    """The same document as `tally archive rebuild` prints of an operator."""
    ledger = _ledger(cells)
    objects = _objects(archive)
    folders = [
        (day.folder, ledger["expired"].get(day.folder, []))
        for day in lane_days(objects, operator)
        if f"{day.node}/{day.lane}" in ledger["heads"]
    ]
    summed = _summed(spark, folders, archive, ledger)
    summed.persist()
    reports = [
        json.loads(row.report) for row in summed.filter("report IS NOT NULL").select("report").collect()
    ]
    counted, findings, gone, expired = _chains(operator, reports, ledger)
    different, named = _compared(spark, summed, cells, counted, gone)
    kept = [report for report in reports if report["folder"] in counted]
    return {
        "operator": operator,
        "ok": not findings and not different,
        "lanes": len(ledger["heads"]),
        "batches": sum(report["batches"] for report in kept),
        "events": sum(report["events"] for report in kept),
        "expired": expired,
        "findings": findings[:_NAMED],
        "findings_total": len(findings),
        "different": different,
        "differences": named,
    }


def _ledger(cells: str) -> dict[str, Any]:
    """Heads ("node/lane" -> hash), decisions, span and what expired (folder -> its cells) that the export names."""
    if "://" in cells:
        system, path = fs.FileSystem.from_uri(cells)
        schema = pq.read_schema(system.open_input_file(path))
    else:
        schema = pq.read_schema(cells)
    found: dict[str, Any] = json.loads(schema.metadata[b"tallygrid"])
    return found


def _objects(archive: str) -> Objects:
    return (
        bucket_objects(archive, "--archive") if "://" in archive else FolderObjects(Path(archive).absolute())
    )


def _summed(
    spark: SparkSession, folders: Sequence[tuple[str, Sequence[str]]], archive: str, ledger: Mapping[str, Any]
) -> DataFrame:
    tasks = max(1, min(len(folders), spark.sparkContext.defaultParallelism * 8))
    listed = spark.createDataFrame(folders, "folder string, expired array<string>").repartition(tasks)
    return listed.mapInArrow(_task(archive, ledger), _COLUMNS)


def _task(
    archive: str, ledger: Mapping[str, Any]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    span = None if ledger["span_us"] is None else (ledger["span_us"][0], ledger["span_us"][1])

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        objects = _objects(archive)
        reader = Reader(objects)
        for batch in batches:
            for folder, expired in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                day = lane_day(folder, objects.list(f"{folder}/"))
                head, adopted = ledger["heads"][f"{day.node}/{day.lane}"], ledger["adopted"]
                summed = sum_lane_day(
                    objects, reader, day, None, head, span, adopted=adopted, expired=expired
                )
                report = {
                    "folder": folder,
                    "begins_after": summed.begins_after,
                    "standing": asdict(summed.standing),
                    "batches": summed.batches,
                    "events": summed.events,
                    "findings": [asdict(finding) for finding in summed.findings],
                    "gone": [asdict(each) for each in summed.gone],
                    "expired": summed.expired,
                }
                yield pa.RecordBatch.from_pylist(
                    [{"folder": folder, "report": json.dumps(report)}], schema=_ROWS
                )
                yield from _as_rows(folder, summed.cells).to_batches()

    return run


def _as_rows(folder: str, cells: pa.Table) -> pa.Table:
    count = cells.num_rows
    columns = {
        "folder": pa.array([folder] * count, pa.string()),
        "report": pa.nulls(count, pa.string()),
        **{name: cells[name] for name in SUM_SCHEMA.names},
    }
    columns["hour"] = cells["hour"].cast(pa.int64())
    return pa.table([pc.cast(columns[field.name], field.type) for field in _ROWS], schema=_ROWS)


def _chains(
    operator: str, reports: Sequence[Mapping[str, Any]], ledger: Mapping[str, Any]
) -> tuple[set[str], list[dict[str, str]], list[dict[str, Any]], int]:
    """Folders that count, what is not as it should be, hours of which events are gone, and how many batches expired."""
    lanes: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for report in sorted(reports, key=lambda report: str(report["folder"])):
        _, _, node, lane = report["folder"].split("/")
        lanes[f"{node}/{lane}"].append(report)
    counted: set[str] = set()
    findings: list[dict[str, str]] = []
    gone: list[dict[str, Any]] = []
    expired = 0
    for name, head in sorted(ledger["heads"].items()):
        at: dict[str, Any] = {"hash": GENESIS, "complete_to_us": 0, "at_head": False}
        for report in lanes.get(name, []):
            if at["at_head"]:
                break  # what is later than the head is not asked for
            if not report["batches"]:
                continue
            if report["begins_after"] != at["hash"]:
                findings.append(
                    _missing(
                        f"a batch before it, {report['begins_after']}, is not in the archive",
                        report["folder"],
                    )
                )
            findings += report["findings"]
            counted.add(report["folder"])
            expired += report["expired"]
            named = {finding["where"] for finding in report["findings"]}
            for each in report["gone"]:
                each["first_hour_us"] = each["first_hour_us"] or at["complete_to_us"] // HOUR_US * HOUR_US
                gone.append(each)
                if each["path"] not in named:
                    what = "its events are not in the archive, and no decision says so"
                    findings.append({"code": "gone", "what": what, "where": each["path"]})
            at = report["standing"]
        if not at["at_head"]:
            findings.append(
                _missing(
                    f"the archive's chain ends with {at['hash']}, the ledger's with {head}",
                    f"{operator}/{name}",
                )
            )
    return counted, findings, gone, expired


def _missing(what: str, where: str) -> dict[str, str]:
    return {"code": "missing", "what": what, "where": where}


def _compared(
    spark: SparkSession, summed: DataFrame, cells: str, counted: set[str], gone: Sequence[Mapping[str, Any]]
) -> tuple[int, list[dict[str, Any]]]:
    from pyspark.sql import functions as f

    keys = ["`key`" if name == "key" else name for name in KEYS]
    kept = spark.createDataFrame([(folder,) for folder in sorted(counted)], "folder string")
    ours = summed.filter("report IS NULL").join(f.broadcast(kept), "folder", "left_semi")
    theirs = spark.read.parquet(cells).withColumn("hour", f.expr("unix_micros(hour)"))
    archive = ours.selectExpr(
        *keys, *(f"{q} AS archive_{q}" for q in QUANTITIES), *(f"0L AS database_{q}" for q in QUANTITIES)
    )
    database = theirs.selectExpr(
        *keys, *(f"0L AS archive_{q}" for q in QUANTITIES), *(f"{q} AS database_{q}" for q in QUANTITIES)
    )
    both = archive.unionByName(database).groupBy(*KEYS)
    sums = both.agg(
        *(f.sum(f"{side}_{q}").alias(f"{side}_{q}") for side in ("archive", "database") for q in QUANTITIES)
    )
    found = sums.filter(" OR ".join(f"archive_{q} <> database_{q}" for q in QUANTITIES))
    if gone:
        hours = spark.createDataFrame(
            [(each["node"], each["first_hour_us"], each["last_hour_us"]) for each in gone],
            "gone_node string, first_hour bigint, last_hour bigint",
        )
        within = f.expr("node = gone_node AND hour BETWEEN first_hour AND last_hour")
        found = found.join(f.broadcast(hours), within, "left_anti")
    found.persist()
    rows = found.orderBy("hour", "customer").limit(_NAMED).collect()
    return found.count(), [_difference(row.asDict()) for row in rows]


def _difference(row: Mapping[str, Any]) -> dict[str, Any]:
    changed = [q for q in QUANTITIES if row[f"archive_{q}"] != row[f"database_{q}"]]
    ids = {
        name: None if row[name] is None else str(UUID(bytes=bytes(row[name])))
        for name in ("customer", "project", "key")
    }
    return {
        "hour": instant(row["hour"]).isoformat().replace("+00:00", "Z"),
        **ids,
        **{name: row[name] for name in (*_WORDS, "band")},
        **{side: {q: row[f"{side}_{q}"] for q in changed} for side in ("archive", "database")},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
