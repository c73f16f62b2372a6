"""What every HTTP service here has in common: an app, its bodies, its health, its request log."""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import falcon
import falcon.media
import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError

from services.common import problems
from services.common.metrics import HttpMetrics, MetricsResource
from services.common.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prometheus_client.registry import Collector

    from services.common.settings import HttpSettings

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
    settings: HttpSettings,
    *,
    checks: Mapping[str, Check],
    openapi: Mapping[str, Any] | None = None,
    collectors: Sequence[Collector] = (),
) -> App:
    """An app with a resource for each path, `/health`, `/metrics`, and problem documents."""
    metrics = HttpMetrics()
    app: App = falcon.App(middleware=[Gate(settings.hosts(), metrics)], request_type=Request)
    app.resp_options.media_handlers[falcon.MEDIA_JSON] = falcon.media.JSONHandler(dumps=to_json)
    problems.register(app)
    everything = {
        "/health": Health(checks),
        "/metrics": MetricsResource(metrics, *collectors),
        **({"/openapi.json": Document(openapi)} if openapi is not None else {}),
        **resources,
    }
    for path, resource in everything.items():
        if hasattr(resource, "on_get"):
            # RFC 9110, 9.3.2: as GET, and Falcon leaves the body away.
            setattr(resource, "on_head", resource.on_get)  # noqa: B010
        app.add_route(path, resource)
    return app


class Request(falcon.Request):
    """A request that has its id and its time from the start, whatever becomes of it."""

    def __init__(self, env: dict[str, Any], options: Any = None) -> None:
        super().__init__(env, options)
        given = env.get("HTTP_X_REQUEST_ID", "")
        self.context.request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        self.context.started = time.perf_counter()


class Gate:
    """Refuses requests for foreign hosts; counts and logs each request when it is answered."""

    def __init__(self, hosts: re.Pattern[str], metrics: HttpMetrics) -> None:
        self._is_host = hosts.fullmatch
        self._metrics = metrics

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        # A web page whose name resolves to this machine (DNS rebinding) sends that name; a health
        # check in HTTP/1.0 need not send any, and no browser speaks that.
        if not self._is_host(req.env.get("HTTP_HOST", "localhost")):
            raise Problem(421, "This service does not answer for that Host; see ALLOWED_HOSTS.")

    def process_response(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        _resource: object,
        _succeeded: bool,  # noqa: FBT001
    ) -> None:
        context = req.context
        resp.set_header("X-Request-Id", context.request_id)
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
            JSON at all or has a name twice, 422 with an entry for each wrong field.
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
        Problem: 413 when over 16 KiB, 415 when it is compressed or otherwise encoded.
    """
    if req.env.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise Problem(
            415, "Send the body without Content-Encoding.", headers={"Accept-Encoding": "identity"}
        )
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
        parsed = model.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if faults[0]["type"] == "json_invalid":
            raise Problem(400, "The body is not JSON.", code="malformed-json") from None
        _refuse_repeated_names(body)
        raise Problem(
            422, "Some fields are not right; see errors.", errors=[_field_fault(f) for f in faults]
        ) from None
    # A name needs a colon; as many as fields are set are not enough for a repeated one.
    if body.count(b":") != len(parsed.model_fields_set):
        _refuse_repeated_names(body)
    return parsed


def _refuse_repeated_names(body: bytes) -> None:
    """RFC 8259, 4 leaves open which of two equal names counts: two readers could see two amounts.

    Raises:
        Problem: 400 when an object in the body has a name twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise Problem(400, "The body has a name twice.", code="malformed-json")
        return found

    # It is JSON for pydantic; what Python refuses besides is a number of thousands of digits.
    with contextlib.suppress(ValueError):
        json.loads(body, object_pairs_hook=unique, parse_int=str)


def _field_fault(fault: Any) -> dict[str, str]:
    path = fault["loc"]
    if fault["type"] == "extra_forbidden":
        # The name is the client's own, and not for repeating: it could be a misplaced secret.
        return {"pointer": "", "detail": "There is a field that is not known here."}
    pointer = "".join(f"/{part}" for part in path)
    return {"pointer": pointer, "detail": fault["msg"].removeprefix("Value error, ")}
