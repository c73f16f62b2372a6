"""A fake platform behind one port that keeps the contract; each `fault` breaks one promise."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import jwt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jwt.types import Options

SECRET = "0123456789abcdef0123456789abcdef"
USERS = {"alice": (1, True), "becky": (2, True), "charlie": (3, False)}
_DIVISORS = {"USD": 100, "JPY": 1, "BHD": 1000}
HANG_UP = 0
"""In place of a status: the connection ends without a response."""


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def route(self) -> str:
        return self.path.partition("?")[0]


class Reply(NamedTuple):
    """A dict is sent as JSON, bytes unchanged."""

    status: int
    body: dict[str, Any] | bytes
    headers: Mapping[str, str] = MappingProxyType({})


class RefusedError(Exception):
    """A problem document."""

    def __init__(self, status: int, code: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.document = {"status": status, "code": code, "detail": detail, **more}


class Platform:
    """State and routes; handles one request at a time."""

    def __init__(
        self, fault: str = "", *, token_seconds: float = 30, polls_refused: int = 0
    ) -> None:
        self.fault = fault
        self.token_seconds = token_seconds
        self.polls_refused = polls_refused
        self.url = ""
        self.requests: list[Request] = []
        self.transactions: dict[str, dict[str, Any]] = {}
        self.ledgers: dict[int, list[dict[str, Any]]] = {1: [], 2: [], 3: []}
        self.accepted: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, float] = {}

    def respond(self, request: Request) -> Reply:
        self.requests.append(request)
        try:
            self._fail(request)
            return self._post(request) if request.method == "POST" else self._get(request)
        except RefusedError as refused:
            return self._problem(refused, request.headers.get("X-Request-Id", ""))

    def _fail(self, request: Request) -> None:
        is_poll = request.method == "GET" and request.route.count("-") == 4
        is_refused = self.fault == f"503 {request.method} {request.route}"
        if is_refused or (is_poll and self.polls_refused > 0):
            self.polls_refused -= 1
            raise RefusedError(503, "service-unavailable", "Redis is away.")

    def _problem(self, refused: RefusedError, request_id: str) -> Reply:
        is_json = self.fault == "errors are plain JSON"
        headers = {"Content-Type": f"application/{'' if is_json else 'problem+'}json"}
        if refused.status == 401 and self.fault != "no WWW-Authenticate":
            headers["WWW-Authenticate"] = "Bearer"
        if refused.status == 503:
            headers["Retry-After"] = "1"
        return Reply(refused.status, {**refused.document, "request_id": request_id}, headers)

    def _get(self, request: Request) -> Reply:
        route = request.route
        if route.endswith("/health"):
            is_failing = self.fault == f"failing {route}"
            return Reply(503 if is_failing else 200, {"status": "fail" if is_failing else "pass"})
        user = self._user(request)
        if route == "/transactions":
            newest = [t for t in reversed(self.transactions.values()) if t["user_id"] == user]
            limit = int(request.path.partition("limit=")[2].partition("&")[0])
            more = {"next_cursor": "bmV4dA"} if len(newest) > limit else {}
            return Reply(200, {"transactions": newest[:limit]} | more)
        if route == "/transactions/loyalty":
            ledger = self.ledgers[user][::-1]
            points = sum(credit["points"] for credit in ledger)
            return Reply(200, {"points": points, "ledger": ledger})
        transaction = self.transactions.get(route.rpartition("/")[2])
        if not transaction or (transaction["user_id"] != user and self.fault != "no privacy"):
            raise RefusedError(404, "not-found", "You have no such transaction.")
        if transaction["status"] == "queued" and self.fault != "never ends":
            self._finish(transaction)
        return Reply(200, transaction)

    def _post(self, request: Request) -> Reply:
        if request.route == "/auth/token":
            return self._token(request.body)
        if request.route == "/transactions/transaction" and self.fault == "no older path":
            raise RefusedError(404, "not-found", "There is nothing at this path.")
        if self.fault == "hangs up on payments":
            return Reply(HANG_UP, {})
        return self._pay(request)

    def _token(self, body: dict[str, Any]) -> Reply:
        user_id, enabled = USERS.get(str(body.get("username")), (0, False))
        if not user_id or body.get("password") != "password":
            raise RefusedError(401, "invalid-credentials", "User name or password is wrong.")
        now = int(time.time())
        claims = {"sub": str(user_id), "enabled": enabled, "iat": now, "exp": now + 30}
        token = jwt.encode({**claims, "jti": str(uuid.uuid4())}, SECRET, algorithm="HS256")
        self.tokens[token] = time.monotonic() + self.token_seconds
        return Reply(200, {"token": token, "expires_in": max(0, self.token_seconds)})

    def _user(self, request: Request) -> int:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token and self.fault != "no token in the body":
            token = str(request.body.get("token", ""))
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

    def _pay(self, request: Request) -> Reply:
        user, body = self._user(request), request.body
        if body["currency"] not in _DIVISORS and self.fault != "any currency":
            errors = [{"pointer": "/currency", "detail": "must be an ISO 4217 code in force"}]
            raise RefusedError(422, "invalid-request", "Some fields are invalid.", errors=errors)
        key = request.headers.get("Idempotency-Key", "")
        prefix = "" if self.fault == "Location without prefix" else "/transactions"
        if key in self.accepted and self.fault != "no idempotency":
            first = self.accepted[key]
            headers = {"Location": f"{prefix}/{first['id']}", "Idempotency-Replayed": "true"}
            return Reply(202, first, headers)
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
        return Reply(202, response, {"Location": f"{prefix}/{transaction['id']}"})

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
        self.reply = Reply(status, body)

    def respond(self, request: Request) -> Reply:
        self.requests.append(request)
        return self.reply


def _rfc3339(ms_later: int, after: str = "") -> str:
    start = datetime.fromisoformat(after) if after else datetime.now(UTC)
    moment = start + timedelta(milliseconds=ms_later)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _handler(platform: Platform) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = 5

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the client stopped reading
                super().handle()

        def do_GET(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.loads(content) if content else {}
            with lock:
                reply = platform.respond(
                    Request(self.command, self.path, dict(self.headers.items()), body)
                )
            if reply.status == HANG_UP:
                self.close_connection = True
                return
            sent = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            headers = {"Content-Type": "application/json", "Content-Length": str(len(sent))}
            if platform.fault != "no request id":
                headers["X-Request-Id"] = self.headers.get("X-Request-Id", "")
            self.send_response(reply.status)
            for name, value in {**headers, **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(sent)

        do_POST = do_GET  # noqa: N815  as http.server names it

        def log_message(self, *_arguments: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def serving(platform: Platform) -> Iterator[Platform]:
    """The platform at a free port of the loopback, until the end of the block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(platform)) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        platform.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield platform
        finally:
            server.shutdown()
            thread.join(5)
