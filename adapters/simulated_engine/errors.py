"""Requests that vLLM refuses, with the bodies that it refuses them with.

    {"error":{"message":"The model `x` does not exist. …","type":"NotFoundError","param":"model","code":404}}

Two families differ in `type`: what the engine itself refuses says "BadRequestError", what the server's
parsing of the body refuses (pydantic's validation) says "Bad Request" and puts the field's path into
`param`. Routes that do not exist answer with the web framework's own `{"detail":"Not Found"}`.
"""

from __future__ import annotations


class EngineError(Exception):
    """A request is answered by an error body; nothing is generated or counted."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


def bad_request(message: str, param: str | None = None, value: object = None) -> EngineError:
    """The engine refuses a value: `… (parameter=max_tokens, value=-1)`."""
    if param is not None:
        message += f" (parameter={param})" if value is None else f" (parameter={param}, value={value})"
    return EngineError(400, message, "BadRequestError", param)


def unknown_model(model: str, served: tuple[str, ...]) -> EngineError:
    message = f"The model `{model}` does not exist. Valid aliases: {', '.join(served)}."
    return EngineError(404, message, "NotFoundError", "model")


def invalid(kind: str, path: str, says: str, given: object, context: str | None = None) -> EngineError:
    """A body that does not validate; `path` is dotted (`body.messages`), `given` the offending value."""
    fault: dict[str, object] = {"type": kind, "loc": path, "msg": says, "input": _summary(given)}
    if context is not None:
        fault["ctx"] = {"error": context}
    return EngineError(400, f"1 validation error:\n  {fault}", "Bad Request", path)


def unsupported_media_type() -> EngineError:
    message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
    return EngineError(400, message, "Bad Request")


def _summary(value: object) -> str:
    """Containers are named by their size, so that an error never repeats a whole body."""
    if isinstance(value, (dict, list)):
        return f"<{type(value).__name__} of {len(value)} items>"
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "...[truncated]"
