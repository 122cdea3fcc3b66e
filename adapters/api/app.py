"""The HTTP API: the same answers as the command line, for keys that `tally key create --role …` made.

Every call but `/v1/health` needs `Authorization: Bearer SECRET` of a key with a role. A key of one operator sees that
operator; a key without one sees all of the installation. Errors are `{error: {code, what, where, remedy, faults}}` as
the command line prints them: 400 refused, 401 no key, 403 not for this key (`adapters.api.roles`), 404 not there, 503
something that we depend on is down.
`/docs` is served from a package, nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from adapters.api.routes import router
from adapters.postgres.database import Database
from metering.refusal import Fault, Refusal, Unavailable

NOT_FOUND = frozenset({"unknown_document", "unknown_settlement", "unknown_operator", "unknown_customer"})


def make_app(database: Database) -> FastAPI:
    """The API over an open database."""
    app = FastAPIOffline(
        title="Tallygrid",
        version=version("tallygrid"),
        description="Usage, invoices, settlements and reports of an operator's AI nodes.",
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.database = database
    app.state.started_at = datetime.now(UTC)
    app.include_router(router)

    @app.exception_handler(Refusal)
    async def refused(_request: Request, refusal: Refusal) -> JSONResponse:
        status = 401 if refusal.code == "unauthorized" else 403 if refusal.code == "forbidden" else 400
        status = 404 if refusal.code in NOT_FOUND else status
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        return JSONResponse({"error": _error(refusal, refusal.faults) | refusal.extra}, status, headers)

    @app.exception_handler(Unavailable)
    async def unavailable(_request: Request, down: Unavailable) -> JSONResponse:
        error = {
            "code": down.code,
            "what": down.what,
            "where": down.where,
            "remedy": down.remedy,
            "faults": [],
        }
        return JSONResponse({"error": error}, 503, {"Retry-After": "5"})

    @app.exception_handler(HTTPException)
    async def not_served(request: Request, problem: HTTPException) -> JSONResponse:
        code = {404: "unknown_route", 405: "wrong_method"}.get(problem.status_code, "http")
        error = {
            "code": code,
            "what": str(problem.detail),
            "where": request.url.path,
            "remedy": "see /docs",
            "faults": [],
        }
        return JSONResponse({"error": error}, problem.status_code)

    @app.exception_handler(RequestValidationError)
    async def misspelt(_request: Request, problem: RequestValidationError) -> JSONResponse:
        faults = [
            {
                "what": str(each["msg"]),
                "where": ".".join(str(part) for part in each["loc"]),
                "remedy": "see /docs",
            }
            for each in problem.errors()
        ]
        error = {
            "code": "bad_request",
            "what": "the request is not understood",
            "where": "",
            "remedy": "see /docs",
        }
        return JSONResponse({"error": {**error, "faults": faults}}, 400)

    return app


def _error(said: Refusal | Unavailable, faults: Sequence[Fault] = ()) -> dict[str, object]:
    """The command line's refusal in the API's words: what is an option there is a query parameter here."""
    listed = [{"what": fault.what, "where": fault.where, "remedy": fault.remedy} for fault in faults]
    return {
        "code": said.code,
        "what": said.what,
        "where": said.where.replace("--", "") if said.where.startswith("--") else said.where,
        "remedy": said.remedy,
        "faults": listed,
    }
