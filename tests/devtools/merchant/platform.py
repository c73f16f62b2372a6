"""A fake platform that keeps the contract; each `fault` breaks one promise."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
from jwt.types import Options

SECRET = "0123456789abcdef0123456789abcdef"
USERS = {"alice": (1, True), "becky": (2, True), "charlie": (3, False)}
_DIVISORS = {"USD": 100, "JPY": 1, "BHD": 1000}


class RefusedError(Exception):
    """A problem document."""

    def __init__(self, status: int, code: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.document = {"status": status, "code": code, "detail": detail, **more}


class Platform:
    """State and routes; handles one request at a time."""

    def __init__(self, fault: str = "", *, polls_refused: int = 0) -> None:
        self.fault = fault
        self.polls_refused = polls_refused
        self.url = ""
        self.requests: list[httpx.Request] = []
        self.transactions: dict[str, dict[str, Any]] = {}
        self.ledgers: dict[int, list[dict[str, Any]]] = {1: [], 2: [], 3: []}
        self.accepted: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, float] = {}

    def respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        request_id = request.headers["X-Request-Id"]
        try:
            self._fail(request)
            post = request.method == "POST"
            response = self._post(request) if post else self._get(request)
        except RefusedError as refused:
            response = self._problem(refused, request_id)
        if self.fault != "no request id":
            response.headers["X-Request-Id"] = request_id
        return response

    def _fail(self, request: httpx.Request) -> None:
        is_poll = request.method == "GET" and request.url.path.count("-") == 4
        is_refused = self.fault == f"503 {request.method} {request.url.path}"
        if is_refused or (is_poll and self.polls_refused > 0):
            self.polls_refused -= 1
            raise RefusedError(503, "service-unavailable", "Redis is down.")

    def _problem(self, refused: RefusedError, request_id: str) -> httpx.Response:
        is_json = self.fault == "errors are plain JSON"
        headers = {"Content-Type": f"application/{'' if is_json else 'problem+'}json"}
        if refused.status == 401 and self.fault != "no WWW-Authenticate":
            headers["WWW-Authenticate"] = "Bearer"
        if refused.status == 503:
            headers["Retry-After"] = "1"
        document = {**refused.document, "request_id": request_id}
        return httpx.Response(refused.status, json=document, headers=headers)

    def _get(self, request: httpx.Request) -> httpx.Response:
        route = request.url.path
        if route.endswith("/health"):
            is_failing = self.fault == f"failing {route}"
            status, word = (503, "fail") if is_failing else (200, "pass")
            return httpx.Response(status, json={"status": word})
        user = self._user(request)
        if route == "/transactions":
            newest = [t for t in reversed(self.transactions.values()) if t["user_id"] == user]
            limit = int(request.url.params["limit"])
            more = {"next_cursor": "bmV4dA"} if len(newest) > limit else {}
            return httpx.Response(200, json={"transactions": newest[:limit]} | more)
        if route == "/transactions/loyalty":
            ledger = self.ledgers[user][::-1]
            points = sum(credit["points"] for credit in ledger)
            return httpx.Response(200, json={"points": points, "ledger": ledger})
        transaction = self.transactions.get(route.rpartition("/")[2])
        if not transaction or (transaction["user_id"] != user and self.fault != "no privacy"):
            raise RefusedError(404, "not-found", "You have no such transaction.")
        if transaction["status"] == "queued" and self.fault != "never ends":
            self._finish(transaction)
        return httpx.Response(200, json=transaction)

    def _post(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return self._token(_body(request))
        if request.url.path == "/transactions/transaction" and self.fault == "no older path":
            raise RefusedError(404, "not-found", "There is nothing at this path.")
        if self.fault == "hangs up on payments":
            raise httpx.RemoteProtocolError("Server disconnected", request=request)
        return self._pay(request)

    def _token(self, body: dict[str, Any]) -> httpx.Response:
        user_id, enabled = USERS.get(str(body.get("username")), (0, False))
        if not user_id or body.get("password") != "password":
            raise RefusedError(401, "invalid-credentials", "User name or password is wrong.")
        now = int(time.time())
        claims = {"sub": str(user_id), "enabled": enabled, "iat": now, "exp": now + 30}
        token = jwt.encode({**claims, "jti": str(uuid.uuid4())}, SECRET, algorithm="HS256")
        self.tokens[token] = time.monotonic() + 30
        return httpx.Response(200, json={"token": token, "expires_in": 30})

    def _user(self, request: httpx.Request) -> int:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token and self.fault != "no token in the body":
            token = str(_body(request).get("token", ""))
        is_eternal = self.fault == "eternal tokens"
        is_verified = self.fault != "any signature"
        options: Options = {"verify_signature": is_verified, "verify_exp": not is_eternal}
        try:
            claims = jwt.decode(token, SECRET, algorithms=["HS256"], options=options)
            is_over = self.tokens.get(token, time.monotonic() + 1) < time.monotonic()
            if (is_over and not is_eternal) or self.fault == "no token is good":
                raise jwt.ExpiredSignatureError
        except jwt.PyJWTError:
            raise RefusedError(401, "invalid-token", "The token is not valid.") from None
        if self.fault == "a token is good once":
            self.tokens[token] = 0
        if not claims["enabled"] and self.fault != "charlie may":
            raise RefusedError(403, "user-disabled", "This user is not enabled for transactions.")
        return int(claims["sub"])

    def _pay(self, request: httpx.Request) -> httpx.Response:
        user, body = self._user(request), _body(request)
        if body["currency"] not in _DIVISORS and self.fault != "any currency":
            errors = [{"pointer": "/currency", "detail": "must be an ISO 4217 code in force"}]
            raise RefusedError(422, "invalid-request", "Some fields are invalid.", errors=errors)
        key = request.headers.get("Idempotency-Key", "")
        prefix = "" if self.fault == "Location without prefix" else "/transactions"
        if key in self.accepted and self.fault != "no idempotency":
            first = self.accepted[key]
            headers = {"Location": f"{prefix}/{first['id']}", "Idempotency-Replayed": "true"}
            return httpx.Response(202, json=first, headers=headers)
        at = _rfc3339(0)
        transaction = {
            "id": str(uuid.uuid4()),
            "user_id": user,
            "amount": int(body["amount"]),
            "currency": body["currency"],
            "payment_method": body.get("payment_method", "pm_card_visa"),
            "status": "queued",
            "created_at": at,
            "updated_at": at,
            "attempts": 0,
            "timeline": [{"event": "queued", "at": at}],
        }
        self.transactions[transaction["id"]] = transaction
        response = transaction | {"timeline": list(transaction["timeline"])}
        if key:
            self.accepted[key] = response
        headers = {"Location": f"{prefix}/{transaction['id']}"}
        return httpx.Response(202, json=response, headers=headers)

    def _finish(self, transaction: dict[str, Any]) -> None:
        """An attempt and its outcome, at the first poll."""
        if transaction["payment_method"] == "pm_sandbox_error_500":
            outcome: dict[str, Any] = {"status": "failed"}
        elif "Declined" in transaction["payment_method"] and self.fault != "never declines":
            outcome = {"status": "declined", "decline_code": "generic_decline"}
        else:
            outcome = self._capture(transaction)
        attempt, end = (_rfc3339(ms, transaction["created_at"]) for ms in (4, 35))
        transaction |= {**outcome, "attempts": 1, "updated_at": end}
        transaction["timeline"] += [
            {"event": "processing", "at": attempt, "attempt": 1},
            {"event": outcome["status"], "at": end},
        ]

    def _capture(self, transaction: dict[str, Any]) -> dict[str, Any]:
        divisor = 100 if self.fault == "cents everywhere" else _DIVISORS[transaction["currency"]]
        points = transaction["amount"] // divisor
        credit = {name: transaction[name] for name in ("amount", "currency")}
        credit |= {"transaction_id": transaction["id"], "points": points}
        credit["at"] = transaction["created_at"]
        credited = {"no credit": 0, "double credit": 2}.get(self.fault, 1)
        self.ledgers[transaction["user_id"]] += [credit] * credited
        return {"status": "captured", "loyalty_points": points, "psp_reference": "pi_1"}


class Stranger(Platform):
    """Another program, with one response for all requests."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__()
        self._status, self._body = status, body

    def respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self._status, content=self._body)


def _body(request: httpx.Request) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request.content or "{}")
    return body


def _rfc3339(ms_later: int, after: str = "") -> str:
    start = datetime.fromisoformat(after) if after else datetime.now(UTC)
    moment = start + timedelta(milliseconds=ms_later)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Network(httpx.BaseTransport):
    """Routes requests to the fake platforms, else to the machine."""

    platforms: dict[str, Platform] = {}  # noqa: RUF012 - one network for all
    _ports = itertools.count(2000, 10)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        platform = self.platforms.get(f"http://{request.url.netloc.decode()}")
        if platform:
            return platform.respond(request)
        return httpx.HTTPTransport(trust_env=False).handle_request(request)

    @classmethod
    @contextlib.contextmanager
    def serving(cls, platform: Platform, url: str = "") -> Iterator[Platform]:
        """The platform has an address until the end of the block."""
        platform.url = url or f"http://127.0.0.1:{next(cls._ports)}"
        cls.platforms[platform.url] = platform
        try:
            yield platform
        finally:
            del cls.platforms[platform.url]


serving = Network.serving
