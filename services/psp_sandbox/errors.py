"""Errors in Stripe's shape.

Shapes and codes: https://docs.stripe.com/api/errors and https://docs.stripe.com/error-codes
"""

import falcon

from services.common import problems


class StripeError(falcon.HTTPError):
    """An error response of `/v1`, with Stripe's code, parameter and type."""

    def __init__(
        self, status: int, message: str, *, code: str = "", param: str = "", type_: str = ""
    ) -> None:
        headers = {"Retry-After": "1"} if status in (429, 503) else None
        super().__init__(status, description=message, headers=headers)
        by_status = "api_error" if status >= 500 else "invalid_request_error"
        self.error = {"type": type_ or by_status, "message": message}
        if code:
            self.error["code"] = code
        if param:
            self.error["param"] = param


def serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    """Falcon error serializer: Stripe's shape for `/v1`, also for errors of the shared modules."""
    if is_v1(req) and not isinstance(error, StripeError):
        error = StripeError(error.status_code, error.description or error.title)
    if isinstance(error, StripeError):
        resp.media = {"error": error.error}
    else:
        problems.serialize(req, resp, error)


def is_v1(req: falcon.Request) -> bool:
    """Whether the path is one of Stripe's."""
    return req.path == "/v1" or req.path.startswith("/v1/")
