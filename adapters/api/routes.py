"""The API's routes. Each asks `adapters.answers`, as the command line does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from adapters import answers, rendering, reporting
from adapters.api.roles import Subject, check_may_read
from adapters.postgres import keys
from adapters.postgres.database import INSTALLATION, Database
from adapters.previewing import invoice_preview
from billing.document import to_json
from billing.period import Period
from metering.identity import hash_secret
from metering.refusal import Refusal
from reports.formats import DOCUMENT, USAGE, media_type


def _without_nul(request: Request) -> None:
    """PostgreSQL keeps no NUL in text, so nothing can be named so: refused here for every route. Refusal `bad_text`."""
    for name, value in (*request.path_params.items(), *request.query_params.multi_items()):
        if "\0" in str(value):
            raise Refusal("bad_text", f"{name} has a NUL character", where=name, remedy="leave it out")


def _known_names_only(request: Request) -> None:
    """A misspelt name would be answered for all there is. Refusal `unknown_parameter`."""
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            raise Refusal(
                "unknown_parameter",
                f"no such query parameter: {name}",
                where=name,
                remedy=f"known here are: {', '.join(known)}" if known else "this route takes none",
            )


router = APIRouter(prefix="/v1", dependencies=[Depends(_without_nul), Depends(_known_names_only)])
_bearer = HTTPBearer(
    auto_error=False, description="The secret of a key with a role: `tally key create --role finance`."
)

PeriodQuery = Annotated[str | None, Query(description="A calendar month: 2026-10.", examples=["2026-10"])]
CustomerQuery = Annotated[str | None, Query(description="One customer.")]


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: a role, for one operator or (None) for all."""

    database: Database
    role: str
    operator: str | None


async def _asker(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Asker:
    database: Database = request.app.state.database
    key = None
    if credentials is not None:
        async with database.app(INSTALLATION) as connection:
            key = await keys.find_key(connection, hash_secret(credentials.credentials))
    if key is None or not key.holds(datetime.now(UTC)):
        remedy = "Authorization: Bearer SECRET, of `tally key create --role finance`"
        raise Refusal("unauthorized", "no valid key", where="Authorization", remedy=remedy)
    if key.role is None:
        raise Refusal(
            "forbidden", "a customer's key opens the sidecar, not this API", remedy="use a key with a role"
        )
    return Asker(database, key.role, None if key.operator == INSTALLATION else key.operator)


def _asker_for(subject: Subject) -> Callable[..., Asker]:
    """The asker, once their role is seen to be one that may read the subject."""

    def asker(asker: Annotated[Asker, Depends(_asker)]) -> Asker:
        check_may_read(asker.role, subject)
        return asker

    return asker


UsageAsker = Annotated[Asker, Depends(_asker_for("usage"))]
InvoiceAsker = Annotated[Asker, Depends(_asker_for("invoices"))]
SettlementAsker = Annotated[Asker, Depends(_asker_for("settlements"))]
ReportAsker = Annotated[Asker, Depends(_asker_for("reports"))]


@router.get("/health", tags=["health"])
async def health(request: Request) -> dict[str, Any]:
    """Whether the API and its database answer."""
    await request.app.state.database.operators()
    return {"ok": True}


@router.get("/usage", tags=["usage"])
async def usage(
    asker: UsageAsker,
    period: PeriodQuery = None,
    by: Annotated[str, Query(description="As `tally usage --by`: comma separated.")] = "customer",
    since: Annotated[str | None, Query(alias="from", description="A day, or a time on a whole hour.")] = None,
    until: Annotated[str | None, Query(alias="to", description="The end, not included.")] = None,
    customer: CustomerQuery = None,
) -> dict[str, Any]:
    """Totals of usage."""
    words = [word.strip() for word in by.split(",") if word.strip()]
    span = answers.Span(_period(period), since, until)
    return await answers.usage(asker.database, asker.operator, span, words, customer)


@router.get("/invoices", tags=["invoices"])
async def invoices(
    asker: InvoiceAsker,
    period: PeriodQuery = None,
    customer: CustomerQuery = None,
    state: Annotated[str | None, Query(description="draft or issued")] = None,
) -> dict[str, Any]:
    """Documents, oldest first, without their lines."""
    found = await answers.invoices(
        asker.database, operator=asker.operator, period=_period(period), customer=customer, state=state
    )
    return {"invoices": [answers.short(document) for document in found]}


@router.get("/invoices/preview", tags=["invoices"])
async def preview(
    asker: InvoiceAsker,
    customer: Annotated[str, Query(description="Whose bill.")],
    period: Annotated[str | None, Query(description="A calendar month. Default: the running one.")] = None,
    until: Annotated[
        str | None, Query(description="Usage of whole hours before it; a day or a time.")
    ] = None,
) -> dict[str, Any]:
    """A month's bill so far, less what issued documents asked for. Nothing is kept."""
    return await invoice_preview(
        asker.database,
        operator=asker.operator,
        customer=customer,
        period=_period(period),
        until=until,
        now=datetime.now(UTC),
    )


@router.get("/invoices/{reference}", tags=["invoices"])
async def invoice(
    asker: InvoiceAsker, reference: Annotated[str, Path(description="An id or a number.")]
) -> dict[str, Any]:
    """One document with its lines."""
    return to_json(await answers.find_document(asker.database, reference, asker.operator))


@router.get("/invoices/{reference}/files/{format}", tags=["invoices"], response_class=Response)
async def invoice_file(asker: InvoiceAsker, reference: str, format: str) -> Response:
    """A document as a file: pdf."""
    document = await answers.find_document(asker.database, reference, asker.operator)
    found = await answers.with_facts(asker.database, document)
    content = await rendering.render_aside(found, format)
    return _download(content, media_type(DOCUMENT, format), rendering.file_name(found.document, format))


@router.get("/settlements", tags=["settlements"])
async def settlements(asker: SettlementAsker, period: PeriodQuery = None) -> dict[str, Any]:
    """Settlements, oldest first."""
    rows = await answers.settlements(asker.database, operator=asker.operator, period=_period(period))
    return {"settlements": rows}


@router.get("/settlements/{id}", tags=["settlements"])
async def settlement(asker: SettlementAsker, id: str) -> dict[str, Any]:
    """One settlement."""
    return await answers.settlement(asker.database, id, asker.operator)


@router.get("/reports/usage", tags=["reports"], response_class=Response)
async def usage_report(
    asker: ReportAsker,
    period: Annotated[str, Query(description="A calendar month: 2026-10.")],
    format: Annotated[str, Query(description="csv, json or pdf")] = "json",
) -> Response:
    """The usage report of a month. A key for all operators names none, so it needs an installation with one."""
    made = await reporting.usage_report(asker.database, asker.operator, Period.parse(period), format)
    return _download(made.content, media_type(USAGE, format), made.name)


def _period(text: str | None) -> Period | None:
    return None if text is None else Period.parse(text)


def _download(content: bytes, media_type: str, name: str) -> Response:
    return Response(
        content, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )
