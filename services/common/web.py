"""Shared by all HTTP services: app, request bodies, health, request log."""

import contextlib
import re
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import falcon
import falcon.media
import structlog
from prometheus_client.registry import Collector
from pydantic import BaseModel, TypeAdapter, ValidationError
from structlog.contextvars import bind_contextvars, clear_contextvars

from services.common import problems, tracing
from services.common.duplicates import has_duplicate_names
from services.common.metrics import HttpMetrics
from services.common.problems import Problem
from services.common.settings import HttpSettings

App: TypeAlias = "falcon.App[falcon.Request, falcon.Response]"
Check: TypeAlias = "Callable[[], None]"
"""Checks one dependency; raises if it is not usable."""

BODY_BYTES_MAX = 16 * 1024
_PATH = re.compile("/(?!/)")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# The first byte of TCP_INFO (tcp(7)) after the peer has closed its side.
_CLOSE_WAIT = b"\x08"
_log = structlog.get_logger()

ModelT = TypeVar("ModelT", bound=BaseModel)

_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
# Several times faster than json.dumps.
to_json = _ANYTHING.dump_json


def make_app(
    resources: Mapping[str, object],
    settings: HttpSettings,
    *,
    checks: Mapping[str, Check],
    openapi: Mapping[str, Any] | None = None,
    collectors: Sequence[Collector] = (),
) -> App:
    """Builds an app with these resources, `/health`, `/metrics` and problem documents."""
    metrics = HttpMetrics(collectors)
    app: App = falcon.App(
        middleware=[*tracing.middleware(), Gate(settings.hosts(), metrics)], request_type=Request
    )
    app.resp_options.media_handlers[falcon.MEDIA_JSON] = falcon.media.JSONHandler(dumps=to_json)
    app.set_error_serializer(problems.serialize)
    app.add_error_handler(Exception, problems.unexpected)
    everything = {
        "/health": Health(checks),
        "/metrics": metrics,
        **({"/openapi.json": Document(openapi)} if openapi is not None else {}),
        **resources,
    }
    for path, resource in everything.items():
        if hasattr(resource, "on_get"):
            # RFC 9110, 9.3.2: same as GET; Falcon omits the body.
            setattr(resource, "on_head", resource.on_get)  # noqa: B010
        app.add_route(path, resource)
    return app


class Request(falcon.Request):
    """A request with its id, start time and path to log, set before any middleware runs.

    The thread's log lines have the id until its next request; a resource may bind more.
    """

    def __init__(self, env: dict[str, Any], options: Any = None) -> None:
        super().__init__(env, options)
        header = env.get("HTTP_X_REQUEST_ID", "")
        self.context.request_id = header if _REQUEST_ID.fullmatch(header) else str(uuid.uuid4())
        self.context.started = time.perf_counter()
        # For logs and spans: without the password of `//user:password@host`.
        user, _, rest = self.path.rpartition("@")
        self.context.path = rest if "//" in user or ":" in user else self.path
        clear_contextvars()
        bind_contextvars(request_id=self.context.request_id)


class Gate:
    """Middleware: rejects unknown hosts and paths like `//x`; counts and logs each request."""

    def __init__(self, hosts: re.Pattern[str], metrics: HttpMetrics) -> None:
        self._is_host = hosts.fullmatch
        self._metrics = metrics

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        # The router closes a connection when its own client gives up. Doing the work anyway would
        # delay all others, above all if that client retries early.
        if _is_abandoned(req.env.get("gunicorn.socket")):
            raise Problem(400, "The client closed the connection.", code="client-closed-request")
        # Against DNS rebinding: a page whose name resolves to this machine sends that name.
        # HTTP/1.0 health checks may send no Host; browsers always do.
        if not self._is_host(req.env.get("HTTP_HOST", "localhost")):
            raise Problem(421, "This service does not serve that Host; see ALLOWED_HOSTS.")
        # Falcon's router ignores leading slashes, so `//x` would pass middleware that checks paths.
        if not _PATH.match(req.path):
            raise falcon.HTTPNotFound

    def process_response(self, req: falcon.Request, resp: falcon.Response, *_: Any) -> None:
        context = req.context
        _discard_body(req)
        resp.set_header("X-Request-Id", context.request_id)
        seconds = time.perf_counter() - context.started
        self._metrics.observe(req, resp, seconds)
        is_quiet = req.path in tracing.PROBED or context.get("unlogged")
        if is_quiet and resp.status_code == 200:
            return
        _log.info(
            "request",
            method=req.method,
            path=context.path,
            status=resp.status_code,
            ms=round(seconds * 1000, 2),
        )


def _discard_body(req: falcon.Request) -> None:
    """Reads the rest of the body, as of a request that was refused for its token.

    gunicorn would read it in a thread, which would then wait there for the connection's next
    request. More than BODY_BYTES_MAX comes only from a direct client.
    """
    if 0 < (req.content_length or 0) <= BODY_BYTES_MAX:
        with contextlib.suppress(Exception):  # as in read_body
            req.bounded_stream.exhaust()


def _is_abandoned(connection: socket.socket | None) -> bool:
    """Whether the client has closed the connection, or its side of it. Known on Linux only."""
    return (
        connection is not None
        and hasattr(socket, "TCP_INFO")
        and connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == _CLOSE_WAIT
    )


class Health:
    """`GET /health`: 200 if all checks pass, else 503; lists the result of each."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        results = {name: _outcome(name, check) for name, check in self._checks.items()}
        passed = all(result == "pass" for result in results.values())
        resp.status = falcon.HTTP_200 if passed else falcon.HTTP_503
        if not passed:
            resp.set_header("Retry-After", "1")
        resp.set_header("Cache-Control", "no-store")
        resp.media = {"status": "pass" if passed else "fail", "checks": results}


def _outcome(name: str, check: Check) -> str:
    try:
        check()
    except Exception as error:  # noqa: BLE001  any exception fails the check
        # Not in the response: the reason may contain an address.
        _log.warning("health check failed", check=name, reason=type(error).__name__)
        return "fail"
    return "pass"


class Document:
    """Serves a constant JSON document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = self._document


def read_json(req: falcon.Request, model: type[ModelT]) -> ModelT:
    """Reads the body as a `model`; raises Problem 415, or as `read_body` and `parse_json`."""
    if not is_json(req):
        raise Problem(415, "Send the request as JSON, with Content-Type: application/json.")
    return parse_json(read_body(req), model)


def is_json(req: falcon.Request) -> bool:
    """Whether the body is declared as JSON."""
    return (req.content_type or "").partition(";")[0].strip().lower() == falcon.MEDIA_JSON


def read_body(req: falcon.Request) -> bytes:
    """Reads the request body.

    Raises Problem 413 over 16 KiB, 415 if it has a Content-Encoding, 400 if it is incomplete.
    """
    if req.env.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise Problem(
            415, "Send the body without Content-Encoding.", headers={"Accept-Encoding": "identity"}
        )
    if (req.content_length or 0) > BODY_BYTES_MAX:
        raise _too_large()
    # `bounded_stream` would be empty for a chunked body, which has no length.
    stream = req.stream if req.content_length is None else req.bounded_stream
    try:
        body: bytes = stream.read(BODY_BYTES_MAX + 1)
    # gunicorn's exceptions have no common class, and some contain a part of the body.
    except Exception:  # noqa: BLE001
        raise _incomplete() from None
    if len(body) > BODY_BYTES_MAX:
        raise _too_large()
    if len(body) < (req.content_length or 0):
        raise _incomplete()
    return body


def _incomplete() -> Problem:
    return Problem(400, "The body is malformed or incomplete.")


def _too_large() -> Problem:
    return Problem(413, f"The body may have at most {BODY_BYTES_MAX} bytes.")


def parse_json(body: bytes, model: type[ModelT]) -> ModelT:
    """Parses a body as a `model`.

    Raises Problem 400 if it is not JSON or has a duplicate name, 422 with all invalid fields.
    """
    try:
        parsed = model.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if faults[0]["type"] == "json_invalid":
            detail = faults[0]["msg"].replace("Invalid JSON", "The body cannot be read as JSON")
            raise Problem(400, f"{detail}.", code="malformed-json") from None
        _reject_duplicate_names(body)
        raise Problem(
            422, "Some fields are invalid; see errors.", errors=[_field_fault(f) for f in faults]
        ) from None
    # Fast path: each name needs a colon, so an equal count leaves none for a duplicate.
    if body.count(b":") != len(parsed.model_fields_set):
        _reject_duplicate_names(body)
    return parsed


def _reject_duplicate_names(body: bytes) -> None:
    if has_duplicate_names(body):
        raise Problem(400, "The body has a duplicate field name.", code="malformed-json")


def _field_fault(fault: Any) -> dict[str, str]:
    path = fault["loc"]
    if fault["type"] == "extra_forbidden":
        # Not echoed: the name may be a misplaced secret.
        return {"pointer": "", "detail": "Unknown field."}
    pointer = "".join(f"/{part}" for part in path)
    return {"pointer": pointer, "detail": fault["msg"].removeprefix("Value error, ")}
