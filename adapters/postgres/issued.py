"""What issued documents rest on: the versions of site documents that nobody may change any more, with the days.

Asked of the database in one statement an operator: what lines name, what the close kept by which a document was drafted,
and the shares of settlements.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.database import INSTALLATION, see
from adapters.site_files.store import Span, Subject
from billing.period import Period

# What each issued document rests on. A tariff or contract version is "id" or "id@day"; ids hold no "@".
#
# Most of it prices no line: included units, a commitment, met or not, the minimum of days without usage. So it is what
# the close kept by which a document was drafted, the last one whose result lists it (a draft has an id of its own, so
# nobody's clock has a say in this): the contracts of its customer, and the tariffs in force then that an operator or a
# contract has ever named.
_ISSUED = text("""
    WITH listed AS (
        SELECT period, number, made ->> 'id' AS id
        FROM period_close, jsonb_array_elements((result -> 'drafts') || (result -> 'issued')) AS made
    ), drafted AS (
        SELECT period, max(listed.number) AS number, document.customer, document.issue_date
        FROM document JOIN listed USING (period, id)
        WHERE document.state = 'issued'
        GROUP BY period, id, document.customer, document.issue_date
    ), kept AS (
        SELECT period, number, split_part(name, ' ', 1) AS kind, split_part(split_part(name, ' ', 2), '@', 1) AS id
        FROM period_close, jsonb_object_keys(facts -> 'versions') AS name
    ), chosen AS (
        SELECT CASE kind WHEN 'operator' THEN body ->> 'default_tariff' ELSE body ->> 'tariff' END AS id
        FROM (SELECT kind, body FROM site_document UNION ALL SELECT kind, body FROM superseded) AS versions
        WHERE kind IN ('operator', 'contract')
    )
    SELECT kind, id, min(period) AS first, max(period) AS last, max(issue_date) AS issued FROM (
        SELECT 'operator' AS kind, operator AS id, period, issue_date FROM document WHERE state = 'issued'
        UNION ALL
        SELECT 'customer', customer, period, issue_date FROM document WHERE state = 'issued'
        UNION ALL
        SELECT 'party', party, period, issue_date FROM document WHERE state = 'issued'
        UNION ALL
        SELECT used.kind, split_part(used.version, '@', 1), period, issue_date
        FROM document, jsonb_array_elements(content -> 'lines') AS line,
             LATERAL (VALUES ('tariff', line ->> 'tariff_version'), ('contract', line ->> 'contract_version'))
                 AS used (kind, version)
        WHERE state = 'issued'
        UNION ALL
        SELECT 'contract', drafted.customer, period, issue_date
        FROM drafted JOIN kept USING (period, number)
        WHERE kept.kind = 'contract' AND kept.id = drafted.customer
        UNION ALL
        SELECT 'tariff', kept.id, period, issue_date
        FROM kept JOIN (SELECT period, number, max(issue_date) AS issue_date FROM drafted GROUP BY period, number)
            AS issuing USING (period, number)
        WHERE kept.kind = 'tariff' AND kept.id IN (SELECT id FROM chosen)
        UNION ALL
        -- A commitment asks for money without a line that names its contract, so its document holds it by itself.
        SELECT 'contract', customer, period, issue_date FROM document
        WHERE state = 'issued' AND jsonb_path_exists(content, '$.*[*] ? (@.part == "floor")')
        UNION ALL
        SELECT 'share', operator, period, made_at::date FROM settlement
        UNION ALL
        SELECT 'party', share ->> 'party', period, made_at::date
        FROM settlement, jsonb_array_elements(content -> 'shares') AS share
    ) AS rests
    WHERE id IS NOT NULL
    GROUP BY kind, id
""")


async def issued_spans(connection: AsyncConnection, operators: Iterable[str]) -> dict[Subject, Span]:
    """The subjects that issued documents and settlements of these operators rest on, as `SiteStore.issued` tells them.

    The transaction looks at one operator after the other, and at the last one afterwards.
    """
    spans: dict[Subject, Span] = {}
    for operator in operators:
        await see(connection, operator)
        # How many keys a close keeps is unknown to the planner, which would compare each with each.
        await connection.execute(text("SET LOCAL enable_nestloop = off"))
        rows = (await connection.execute(_ISSUED)).all()
        await connection.execute(text("SET LOCAL enable_nestloop = on"))
        for row in rows:
            owner = INSTALLATION if row.kind == "party" else operator
            key = Subject(owner, row.kind, row.id)
            span = _span(row.first, row.last, row.issued)
            spans[key] = span if key not in spans else _hull(spans[key], span)
    return spans


def _span(first: str, last: str, issued: date | None) -> Span:
    after_last = Period.parse(last).next.first_day
    end = after_last if issued is None else min(after_last, issued + timedelta(days=1))
    return Span(Period.parse(first).first_day, end)


def _hull(one: Span, other: Span) -> Span:
    return Span(min(one.first, other.first), max(one.end, other.end))
