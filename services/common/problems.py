"""Errors as RFC 9457 problem documents, each with a stable `code` for programs.

Services raise `Problem`; Falcon's own errors and unexpected exceptions get the same form.
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


class Problem(falcon.HTTPError):
    """An error response: what is wrong and how to fix it, and a code, by default of the status.

    `errors` has `{"pointer", "detail"}` for each invalid field (RFC 6901 pointer into the body).
    """

    headers: dict[str, str]

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str = "",
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, description=detail, headers=dict(headers or {}))
        self.slug = code  # Falcon's own `code` is a number
        self.errors = errors


class Unavailable(Problem):
    """503: a dependency is down or full."""

    def __init__(self, detail: str) -> None:
        super().__init__(503, detail, headers={"Retry-After": "1"})


def serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    """Falcon error serializer: writes the problem document to the response."""
    # Falcon's other statuses are bad requests of some kind.
    status = error.status_code if error.status_code in _CODES else 400
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": error.description or _DETAILS.get(status) or error.title,
        "code": getattr(error, "slug", "") or _CODES[status],
        "request_id": req.context.request_id,
    }
    if errors := getattr(error, "errors", ()):
        document["errors"] = list(errors)
    resp.status = falcon.code_to_http_status(status)
    resp.content_type = CONTENT_TYPE
    resp.text = json.dumps(document)


def unexpected(
    _req: falcon.Request, _resp: falcon.Response, _error: Exception, _params: dict[str, Any]
) -> None:
    """Falcon error handler for exceptions without another handler."""
    _log.exception("unexpected error")
    raise falcon.HTTPInternalServerError
