"""What every HTTP service here has in common: an app, its bodies, its health, its request log."""

from __future__ import annotations

import re
import time
import uuid
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import falcon
import falcon.media
import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError

from services import problems
from services.metrics import HttpMetrics, MetricsResource
from services.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prometheus_client.registry import Collector

App: TypeAlias = "falcon.App[falcon.Request, falcon.Response]"
Check: TypeAlias = "Callable[[], None]"
"""Returns when a service can use what the check is named after; raises, with the reason, if not."""

BODY_BYTES_MAX = 16 * 1024
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Asked every few seconds by a probe or a scraper, and not worth a line each time.
_UNLOGGED = frozenset({"/health", "/metrics"})
_log = structlog.get_logger()

ModelT = TypeVar("ModelT", bound=BaseModel)

_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
# json.dumps takes several times as long for an answer.
to_json = _ANYTHING.dump_json


def make_app(
    resources: Mapping[str, object],
    *,
    checks: Mapping[str, Check],
    openapi: Mapping[str, Any] | None = None,
    collectors: Sequence[Collector] = (),
) -> App:
    """An app with a resource for each path, `/health`, `/metrics`, and problem documents."""
    metrics = HttpMetrics()
    app: App = falcon.App(middleware=[RequestLog(metrics)])
    app.resp_options.media_handlers[falcon.MEDIA_JSON] = falcon.media.JSONHandler(dumps=to_json)
    problems.register(app)
    app.add_route("/health", Health(checks))
    app.add_route("/metrics", MetricsResource(metrics, *collectors))
    if openapi is not None:
        app.add_route("/openapi.json", Document(openapi))
    for path, resource in resources.items():
        app.add_route(path, resource)
    return app


class RequestLog:
    """Gives each request its id, and counts and logs it when it is answered."""

    def __init__(self, metrics: HttpMetrics) -> None:
        self._metrics = metrics

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        given = req.get_header("X-Request-Id") or ""
        request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        req.context.request_id = request_id
        req.context.started = time.perf_counter()
        resp.set_header("X-Request-Id", request_id)

    def process_response(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        _resource: object,
        _succeeded: bool,  # noqa: FBT001
    ) -> None:
        context = req.context
        seconds = time.perf_counter() - context.started
        self._metrics.observe(req, resp, seconds)
        if req.path in _UNLOGGED and resp.status_code == 200:
            return
        _log.info(
            "request",
            request_id=context.request_id,
            method=req.method,
            path=req.path,
            status=resp.status_code,
            ms=round(seconds * 1000, 2),
            **(context.get("log") or {}),
        )


class Health:
    """`GET /health`: 200 when all checks pass, else 503, naming the checks."""

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
    except Exception as error:  # noqa: BLE001  whatever it is, this check failed
        # The reason may hold an address or a password: it is for the log, not for the caller.
        _log.warning("health check failed", check=name, reason=type(error).__name__)
        return "fail"
    return "pass"


class Document:
    """A JSON document that does not change while the service runs."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = self._document


def read_json(req: falcon.Request, model: type[ModelT]) -> ModelT:
    """The request's body as a `model`.

    Raises:
        Problem: 415 when it is not declared as JSON, 413 when over 16 KiB, 400 when it is not
            JSON at all, 422 with an entry for each wrong field.
    """
    if not is_json(req):
        raise Problem(415, "Send the request as JSON, with Content-Type: application/json.")
    return parse_json(read_body(req), model)


def is_json(req: falcon.Request) -> bool:
    """Whether the body is declared as JSON."""
    return (req.content_type or "").partition(";")[0].strip().lower() == falcon.MEDIA_JSON


def read_body(req: falcon.Request) -> bytes:
    """The request's body.

    Raises:
        Problem: 413 when over 16 KiB.
    """
    too_large = Problem(413, f"A body may have {BODY_BYTES_MAX} bytes.")
    if (req.content_length or 0) > BODY_BYTES_MAX:
        raise too_large
    # Not `bounded_stream` for a chunked body: that has no length, and would be empty.
    stream = req.stream if req.content_length is None else req.bounded_stream
    body: bytes = stream.read(BODY_BYTES_MAX + 1)
    if len(body) > BODY_BYTES_MAX:
        raise too_large
    return body


def parse_json(body: bytes, model: type[ModelT]) -> ModelT:
    """The body as a `model`; raises as `read_json` does."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if faults[0]["type"] == "json_invalid":
            raise Problem(400, "The body is not JSON.", code="malformed-json") from None
        raise Problem(
            422, "Some fields are not right; see errors.", errors=[_field_fault(f) for f in faults]
        ) from None


def _field_fault(fault: Any) -> dict[str, str]:
    path = fault["loc"]
    if fault["type"] == "extra_forbidden":
        # The name is the client's own, and not for repeating: it could be a misplaced secret.
        return {"pointer": "", "detail": "There is a field that is not known here."}
    pointer = "".join(f"/{part}" for part in path)
    return {"pointer": pointer, "detail": fault["msg"].removeprefix("Value error, ")}
