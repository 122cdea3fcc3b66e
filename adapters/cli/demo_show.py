"""What a demo prints for people."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from adapters.cli.framework import counted, table

SHOWN_INVOICES = 10


def shown(demo: dict[str, Any]) -> list[str | Table]:
    """Requests and events, the engine's counters beside them, invoices, settlement, files."""
    lines: list[str | Table] = [
        "",
        f"requests sent {demo['requests']:,}: {demo['answers']:,} answered, {demo['hung_up']:,} hung up on,"
        f" {demo['refused']:,} refused; events {demo['events']:,}",
        "",
        _counters(demo),
        f"tally reconcile: {demo['unaccounted']:,} tokens unaccounted",
        "",
        f"Invoices of {demo['period']}, closed before its end (--accept-unfinished):",
        _invoices(demo["invoices"]),
    ]
    more = len(demo["invoices"]) - SHOWN_INVOICES
    if more > 0:
        lines.append(f"… and {more} more: tally invoice list")
    if demo["settlement"] is not None:
        lines += ["", *_settlement(demo["settlement"])]
    lines += ["", *_proof(demo["proved"])]
    lines += ["", "Files:", *(f"  {path}" for path in demo["files"])]
    if demo["data"] is not None:
        lines += ["", f"Data folder, to look around in:  export TALLY_DATA={demo['data']}"]
    return lines


def _counters(demo: dict[str, Any]) -> Table:
    rows = [
        ("engine's counters", demo["engine"]),
        ("told to clients", demo["counted"]),
        ("made for clients that hung up", demo["for_clients_that_left"]),
        ("of it in no counter, came late", demo["late"]),
        ("difference", demo["difference"]),
    ]
    cells = [[name, f"{tokens['prompt_tokens']:,}", f"{tokens['output_tokens']:,}"] for name, tokens in rows]
    return table(
        None, ("", "prompt tokens", "output tokens"), cells, right=("prompt tokens", "output tokens")
    )


def _invoices(invoices: list[dict[str, Any]]) -> Table:
    columns = ("number", "customer_name", "net", "tax", "gross", "currency", "due_date")
    rows = [[invoice[column] for column in columns] for invoice in invoices[:SHOWN_INVOICES]]
    return table(None, columns, rows, right=("net", "tax", "gross"))


def _settlement(settlement: dict[str, Any]) -> list[str | Table]:
    columns = ("party", "percent", "amount", "due")
    rows = [[share[column] for column in columns] for share in settlement["shares"]]
    return [
        f"Settlement {settlement['id']}: {settlement['base']} {settlement['currency']} net is shared",
        table(None, columns, rows, right=("percent", "amount", "due")),
    ]


def _proof(proof: dict[str, Any]) -> list[str]:
    same = "the ledger's, every one" if not proof["different"] else f"{proof['different']} of them differ"
    lines = [
        f"made again from the archive: {counted(proof['batches'], 'sealed batch', 'sealed batches')},"
        f" {counted(proof['cells'], 'cell')} of usage: {same}"
    ]
    log = proof["log"]
    if log is not None:
        stands = "stands in the signed log" if log["ok"] else "IS NOT PROVED by the log"
        lines.append(f"{log['document']} {stands}: leaf {log['index']:,} of {log['size']:,}")
    return lines
