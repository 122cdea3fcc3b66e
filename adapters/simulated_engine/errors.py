"""Requests that vLLM refuses, with the bodies that it refuses them with.

    {"error":{"message":"The model `x` does not exist. …","type":"NotFoundError","param":"model","code":404}}

Two families differ in `type`: what the engine itself refuses says "BadRequestError", what the server's
parsing of the body refuses (pydantic's validation) says "Bad Request" and puts the field's path into
`param`. Routes that do not exist answer with the web framework's own `{"detail":"Not Found"}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class EngineError(Exception):
    """A request is answered by an error body; nothing is generated or counted."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {
            "error": {"message": message, "type": kind, "param": param, "code": status}
        }


def bad_request(message: str, param: str | None = None, value: object = None) -> EngineError:
    """The engine refuses a value: `… (parameter=max_tokens, value=-1)`."""
    if param is not None:
        message += f" (parameter={param})" if value is None else f" (parameter={param}, value={value})"
    return EngineError(400, message, "BadRequestError", param)


def unknown_model(model: str, served: tuple[str, ...]) -> EngineError:
    message = f"The model `{model}` does not exist. Valid aliases: {', '.join(served)}."
    return EngineError(404, message, "NotFoundError", "model")


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a body does not validate; `path` is dotted (`body.messages`), `given` the offending value."""

    kind: str
    path: str
    says: str
    given: object
    context: object = None

    def __str__(self) -> str:
        said: dict[str, object] = {
            "type": self.kind,
            "loc": self.path,
            "msg": self.says,
            "input": _summary(self.given),
        }
        if self.context is not None:
            said["ctx"] = {"error": self.context}
        return str(said)


def invalid(kind: str, path: str, says: str, given: object, context: object = None) -> EngineError:
    """A body that does not validate, for one reason."""
    return invalid_fields([Fault(kind, path, says, given, context)])


def invalid_fields(faults: list[Fault]) -> EngineError:
    """A body that does not validate; the first fault's path is the answer's `param`."""
    count = f"{len(faults)} validation error{'s' if len(faults) > 1 else ''}:"
    message = "\n  ".join((count, *map(str, faults)))
    return EngineError(400, message, "Bad Request", faults[0].path)


def bad_response(status: int, message: str, param: str) -> EngineError:
    """What /v1/responses refuses itself."""
    return EngineError(status, message, "invalid_request_error", param)


def unsupported_media_type() -> EngineError:
    message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
    return EngineError(400, message, "Bad Request")


def _summary(value: object) -> str:
    """Containers are named by their size, so that an error never repeats a whole body."""
    if isinstance(value, (dict, list)):
        return f"<{type(value).__name__} of {len(value)} items>"
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "...[truncated]"
