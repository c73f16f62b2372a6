"""The Core API's resources: transactions and loyalty points."""

import functools
import re
from uuid import UUID

import falcon
from pydantic import ValidationError
from structlog.contextvars import bind_contextvars

from services.common import openapi
from services.common.problems import Problem
from services.common.tokens import Merchant, TokenError, Tokens
from services.common.transaction import Transaction
from services.common.web import is_json, parse_json, read_body, read_json
from services.core_api.models import Loyalty, Page, TokenInBody, TransactionRequest
from services.core_api.transactions import PAGE_MAX, Transactions, invalid_parameter

_PAGE_DEFAULT = 20
# Visible ASCII without the comma, which joins repeated headers (RFC 9110, 5.3).
IDEMPOTENCY_KEY = r"[\x21-\x2b\x2d-\x7e]{1,255}"
_REALM = 'Bearer realm="transactions"'

_UNAUTHENTICATED = {401: "Missing, invalid or expired token.", 403: "The user is not enabled."}
_UNAVAILABLE = {503: "Redis is unavailable; see Retry-After."}
_BEARER: list[dict[str, list[str]]] = [{"bearer": []}]
_describe_post = functools.partial(
    openapi.operation,
    "Create a transaction; it is queued and charged asynchronously",
    Transaction,
    request=TransactionRequest,
    success=(202, "Accepted; see Location."),
    errors={
        400: "Not JSON, a token in both header and body, or an invalid Idempotency-Key.",
        409: "The key was used before, but its stored response is unreadable.",
        422: "Invalid field, or the key was used with another request.",
        **_UNAUTHENTICATED,
        **_UNAVAILABLE,
    },
    # Without the header, the body may contain the token.
    security=[*_BEARER, {}],
    parameters=[
        {
            "name": "Idempotency-Key",
            "in": "header",
            "schema": {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY}$"},
            "description": "Makes the request safe to repeat for 24 hours.",
        }
    ],
)
_describe_list = functools.partial(
    openapi.operation,
    errors={422: "Invalid parameter.", **_UNAUTHENTICATED, **_UNAVAILABLE},
    security=_BEARER,
    parameters=[
        {
            "name": "limit",
            "in": "query",
            "schema": {
                "type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": _PAGE_DEFAULT,
            },
        },
        {"name": "cursor", "in": "query", "schema": {"type": "string"}},
    ],
)  # fmt: skip


class Authentication:
    """Authenticates requests by bearer token (RFC 6750)."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def merchant(self, req: falcon.Request, token: str | None = None) -> Merchant:
        """The merchant of the token in the header, or else of `token`.

        Raises Problem 401 without a valid token, 403 if the merchant is disabled.
        """
        header = req.get_header("Authorization")
        token = token if header is None else _from_header(header)
        if not token:
            raise Problem(
                401,
                "Get a token from the Auth API and send it as Authorization: Bearer.",
                headers={"WWW-Authenticate": _REALM},
            )
        try:
            merchant = self._tokens.verify(token)
        except TokenError as error:
            raise _bad_token(str(error)) from None
        bind_contextvars(user_id=merchant.user_id)
        if not merchant.enabled:
            raise Problem(403, "This user is not enabled for transactions.", code="user-disabled")
        return merchant


def _from_header(header: str) -> str:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _bad_token("The Authorization header must be: Bearer, a space, the token.")
    return token.strip()


def _bad_token(detail: str) -> Problem:
    challenge = f'{_REALM}, error="invalid_token", error_description="{detail}"'
    return Problem(401, detail, code="invalid-token", headers={"WWW-Authenticate": challenge})


class _Resource:
    def __init__(self, authentication: Authentication, transactions: Transactions) -> None:
        self._authentication = authentication
        self._transactions = transactions


class TransactionsResource(_Resource):
    """`POST /` accepts a transaction, `GET /` lists the caller's."""

    @_describe_post()
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        if req.get_header("Authorization") is not None:
            merchant = self._authentication.merchant(req)
            request = read_json(req, TransactionRequest)
            if request.token is not None:
                raise Problem(400, "Send the token in the header or in the body, not in both.")
        else:
            # Authenticate before validating: no token is 401 even if the body is malformed.
            body = read_body(req) if is_json(req) else b""
            merchant = self._authentication.merchant(req, _token_in(body))
            request = parse_json(body, TransactionRequest)
        accepted = self._transactions.accept(
            merchant.user_id, request, req.context.request_id, _idempotency_key(req)
        )
        bind_contextvars(transaction_id=accepted.transaction_id)
        if accepted.replayed:
            resp.set_header("Idempotency-Replayed", "true")
        resp.status = falcon.HTTP_202
        # The router adds its prefix: /transactions/{id}.
        resp.location = f"/{accepted.transaction_id}"
        resp.text = accepted.response

    @_describe_list("The caller's transactions", Page)
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        merchant = self._authentication.merchant(req)
        page = self._transactions.page(merchant.user_id, *_paging(req))
        resp.text = page.model_dump_json(exclude_none=True)


class TransactionPathResource:
    """`POST /transaction`: the same as `POST /`, for clients of this API's first version."""

    def __init__(self, transactions: TransactionsResource) -> None:
        self._transactions = transactions

    @_describe_post(deprecated=True)
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._transactions.on_post(req, resp)


class TransactionResource(_Resource):
    """`GET /{id}`: one of the caller's transactions."""

    @openapi.operation(
        "One of the caller's transactions",
        Transaction,
        errors={404: "The caller has no such transaction.", **_UNAUTHENTICATED, **_UNAVAILABLE},
        security=_BEARER,
        parameters=[
            {
                "name": "transaction_id",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "format": "uuid"},
            }
        ],
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, transaction_id: UUID) -> None:
        merchant = self._authentication.merchant(req)
        transaction = self._transactions.get(merchant.user_id, str(transaction_id))
        if transaction is None:
            raise Problem(404, "You have no such transaction.")
        bind_contextvars(transaction_id=str(transaction_id))
        resp.text = transaction.to_json()


class LoyaltyResource(_Resource):
    """`GET /loyalty`: the caller's points and credits."""

    @_describe_list("The caller's loyalty points", Loyalty)
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        merchant = self._authentication.merchant(req)
        loyalty = self._transactions.loyalty(merchant.user_id, *_paging(req))
        resp.text = loyalty.model_dump_json(exclude_none=True)


def _token_in(body: bytes) -> str | None:
    try:
        return TokenInBody.model_validate_json(body).token
    except ValidationError:
        return None


def _idempotency_key(req: falcon.Request) -> str | None:
    key = req.get_header("Idempotency-Key")
    if key is not None and not re.fullmatch(IDEMPOTENCY_KEY, key):
        raise Problem(
            400, "Send one Idempotency-Key, of 1 to 255 visible ASCII characters without a comma."
        )
    return key


def _paging(req: falcon.Request) -> tuple[int, str | None]:
    if req.params.keys() - {"limit", "cursor"}:
        raise invalid_parameter("", "unknown parameter")
    limit = req.get_param("limit", default=str(_PAGE_DEFAULT))
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= PAGE_MAX:
        raise invalid_parameter("?limit", f"must be a number from 1 to {PAGE_MAX}")
    return int(limit), req.get_param("cursor")
