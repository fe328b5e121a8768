"""The one exception that becomes an error answer, in vLLM's shape."""

from __future__ import annotations

from typing import Any

ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
QUEUE_FULL = (
    "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
)


class ApiError(Exception):
    """An answer other than 200. `kind` is what vLLM puts in `error.type`."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.status,
            }
        }


class EngineDead(ApiError):
    """The engine process is gone; the API server has yet to follow it."""

    def __init__(self) -> None:
        super().__init__(500, "InternalServerError", ENGINE_DEAD)


class EngineRefusal(ApiError):
    """A request that passes the API server and that the engine will not run.

    By then vLLM has begun to answer a stream: its error comes as an event of a stream with status 200.
    """


class HttpDetail(ApiError):
    """The web framework's own answer, in its own shape."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, "", detail)

    def body(self) -> dict[str, Any]:
        return {"detail": self.message}


class Unauthorized(ApiError):
    """vLLM's key check answers with a bare string where every other error has an object."""

    def __init__(self) -> None:
        super().__init__(401, "Unauthorized", "Unauthorized")

    def body(self) -> dict[str, Any]:
        return {"error": "Unauthorized"}


def bad_request(message: str, param: str | None = None) -> ApiError:
    """A request that is well formed but that the engine will not run."""
    return ApiError(400, "BadRequestError", message, param)


_NO_VALUE = object()


def bad_parameter(message: str, parameter: str, value: object = _NO_VALUE) -> ApiError:
    """The same for one parameter, which vLLM names again in brackets at the end of the message."""
    shown = f"parameter={parameter}" if value is _NO_VALUE else f"parameter={parameter}, value={value}"
    return bad_request(f"{message} ({shown})", parameter)


def refused(message: str, parameter: str | None = None, value: object = _NO_VALUE) -> EngineRefusal:
    """What the engine itself refuses, with the parameter named as in `bad_parameter` if one is given."""
    error = bad_request(message) if parameter is None else bad_parameter(message, parameter, value)
    return EngineRefusal(error.status, error.kind, error.message, error.param)


def malformed(count: int, lines: list[str], param: str | None) -> ApiError:
    """A body that does not have the declared types: 400 (not 422), type "Bad Request" with a space."""
    plural = "" if count == 1 else "s"
    shown = "".join(f"\n  {line}" for line in lines)
    return ApiError(400, "Bad Request", f"{count} validation error{plural}:{shown}", param)


def unknown_model(name: str, served: tuple[str, ...]) -> ApiError:
    aliases = ", ".join(served)
    return ApiError(404, "NotFoundError", f"The model `{name}` does not exist. Valid aliases: {aliases}.", "model")


def queue_full() -> ApiError:
    return ApiError(503, "Service Unavailable", QUEUE_FULL)
