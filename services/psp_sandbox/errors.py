"""Errors in Stripe's shape.

Shapes and codes: https://docs.stripe.com/api/errors and https://docs.stripe.com/error-codes
"""

from typing import Any

import falcon


class StripeError(Exception):
    """An error response of `/v1`.

    Args:
        status: HTTP status.
        message: what is wrong, for people.
        code: Stripe's error code.
        param: the invalid parameter.
        type_: Stripe's error type; by default derived from the status.
    """

    def __init__(
        self, status: int, message: str, *, code: str = "", param: str = "", type_: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        by_status = "api_error" if status >= 500 else "invalid_request_error"
        self.error = {"type": type_ or by_status, "message": message}
        if code:
            self.error["code"] = code
        if param:
            self.error["param"] = param


def handle(
    _req: falcon.Request, resp: falcon.Response, error: StripeError, _params: dict[str, Any]
) -> None:
    """Falcon's handler for `StripeError`."""
    resp.status = falcon.code_to_http_status(error.status)
    resp.media = {"error": error.error}
    if error.status in (429, 503):
        resp.set_header("Retry-After", "1")
