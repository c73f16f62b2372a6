"""Errors as RFC 9457 problem documents, each with a stable `code` for programs.

Services raise `Problem`; Falcon's errors and unexpected exceptions are converted to one here.
Client input is never echoed: it might be a secret.
"""

import http
import json
from collections.abc import Mapping, Sequence
from typing import Any

import falcon
import structlog

CONTENT_TYPE = "application/problem+json"

_CODES = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    409: "conflict",
    413: "payload-too-large",
    415: "unsupported-media-type",
    421: "misdirected-request",
    422: "invalid-request",
    429: "too-many-requests",
    500: "internal-error",
    503: "service-unavailable",
}

_DETAILS = {
    404: "There is nothing at this path.",
    405: "This path does not support that method; the Allow header lists those it does.",
    500: "Internal error; the logs have details under this request id.",
}

_log = structlog.get_logger()


class Problem(Exception):
    """An error response.

    Args:
        status: HTTP status.
        detail: what is wrong and how to fix it, for people.
        code: stable identifier for programs; by default the one of the status.
        errors: `{"pointer", "detail"}` for each invalid field (RFC 6901 pointer into the body).
        headers: added to the response.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str = "",
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code or _CODES[status]
        self.errors = errors
        self.headers = dict(headers or {})


class Unavailable(Problem):
    """503: a dependency is down or full."""

    def __init__(self, detail: str) -> None:
        super().__init__(503, detail, headers={"Retry-After": "1"})


def register(app: "falcon.App[Any, Any]") -> None:
    """Makes `app` return every error as a problem document."""
    app.add_error_handler(Exception, _unexpected)
    app.add_error_handler(falcon.HTTPError, _falcon_error)
    app.add_error_handler(Problem, respond)


def respond(
    req: falcon.Request, resp: falcon.Response, problem: Problem, _params: dict[str, Any]
) -> None:
    """Falcon error handler: writes the problem document to the response."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": http.HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": req.context.request_id,
    }
    if problem.errors:
        document["errors"] = list(problem.errors)
    resp.status = falcon.code_to_http_status(problem.status)
    resp.content_type = CONTENT_TYPE
    resp.text = json.dumps(document)
    resp.set_headers(problem.headers)


def _falcon_error(
    req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: dict[str, Any]
) -> None:
    # Falcon's other statuses are bad requests of some kind.
    status = error.status_code if error.status_code in _CODES else 400
    detail = _DETAILS.get(status) or error.description or error.title or ""
    respond(req, resp, Problem(status, detail, headers=dict(error.headers or {})), params)


def _unexpected(
    req: falcon.Request, resp: falcon.Response, _error: Exception, params: dict[str, Any]
) -> None:
    _log.exception("unexpected error")
    respond(req, resp, Problem(500, _DETAILS[500]), params)
