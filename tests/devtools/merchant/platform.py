"""A small platform behind one port, to the contract; each `fault` makes it break one promise."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import jwt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jwt.types import Options

SECRET = "0123456789abcdef0123456789abcdef"
USERS = {"alice": (1, True), "becky": (2, True), "charlie": (3, False)}
_DIVISORS = {"USD": 100, "JPY": 1, "BHD": 1000}
HANG_UP = 0
"""In place of a status: the connection ends without an answer."""


@dataclass
class Asked:
    """A request."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Reply:
    """An answer: its status, its body (a dict is JSON, bytes are sent as they are)."""

    status: int
    body: dict[str, Any] | bytes
    headers: dict[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """A problem document."""

    def __init__(self, status: int, detail: str, code: str, **more: Any) -> None:
        super().__init__(detail)
        self.status, self.detail, self.code, self.more = status, detail, code, more


class Platform:
    """The state, and what is done with it. One lock: a request at a time."""

    def __init__(
        self, fault: str = "", *, token_seconds: float = 30, polls_refused: int = 0
    ) -> None:
        self.fault = fault
        self.secret = SECRET[::-1] if fault == "another secret" else SECRET
        self.token_seconds = token_seconds
        self.polls_refused = polls_refused
        self.url = ""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.transactions: dict[str, dict[str, Any]] = {}
        self.ledgers: dict[int, list[dict[str, Any]]] = {1: [], 2: [], 3: []}
        self.first_answers: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()
        self.tokens: dict[str, float] = {}

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        self.requests.append((method, path, headers))
        route = path.partition("?")[0]
        try:
            self._break(method, route)
            if method == "POST":
                return self._post(route, Asked(path, headers, _read(body)))
            return self._read(route, Asked(path, headers, {}))
        except RefusedError as refused:
            return self._problem(refused, headers.get("X-Request-Id", ""))

    def _break(self, method: str, route: str) -> None:
        is_poll = method == "GET" and route.count("-") == 4
        if self.fault == f"503 {method} {route}" or (is_poll and self.polls_refused > 0):
            self.polls_refused -= 1
            raise RefusedError(503, "Redis is away.", "service-unavailable")

    def _problem(self, refused: RefusedError, request_id: str) -> Reply:
        document = {
            "type": "about:blank",
            "status": refused.status,
            "detail": refused.detail,
            "code": refused.code,
            "request_id": request_id,
            **refused.more,
        }
        headers = {"Content-Type": "application/problem+json"}
        if refused.status == 401 and self.fault != "no WWW-Authenticate":
            headers["WWW-Authenticate"] = "Bearer"
        if refused.status == 503:
            headers["Retry-After"] = "1"
        if self.fault == "errors are plain JSON":
            headers["Content-Type"] = "application/json"
        return Reply(refused.status, document, headers)

    def _read(self, route: str, asked: Asked) -> Reply:
        if route in ("/health", "/auth/health", "/transactions/health"):
            status = "fail" if self.fault == f"failing {route}" else "pass"
            return Reply(200 if status == "pass" else 503, {"status": status})
        user = self._user(asked)
        if route == "/transactions":
            newest = [t for t in reversed(self.transactions.values()) if t["user_id"] == user]
            limit = int(asked.path.partition("limit=")[2].partition("&")[0])
            more = {"next_cursor": "bmV4dA"} if len(newest) > limit else {}
            return Reply(200, {"transactions": newest[:limit]} | more)
        if route == "/transactions/loyalty":
            ledger = list(reversed(self.ledgers[user]))
            lost = len(ledger) if self.fault == "points and ledger differ" else 0
            return Reply(200, {"points": sum(c["points"] for c in ledger) - lost, "ledger": ledger})
        return self._get(route.rpartition("/")[2], user)

    def _post(self, route: str, asked: Asked) -> Reply:
        if route == "/auth/token":
            return self._token(asked.body)
        if route == "/transactions/transaction" and self.fault == "no older path":
            raise RefusedError(404, "There is nothing at this path.", "not-found")
        if self.fault == "hangs up on payments":
            return Reply(HANG_UP, {})
        return self._pay(asked)

    def _token(self, body: dict[str, Any]) -> Reply:
        user_id, enabled = USERS.get(str(body.get("username")), (0, False))
        known = user_id and body.get("password") == "password"
        if not known or (self.fault == "no token for charlie" and not enabled):
            raise RefusedError(401, "User name or password is wrong.", "invalid-credentials")
        now = int(time.time())
        claims = {"sub": str(user_id), "enabled": enabled, "iat": now, "exp": now + 30}
        token = jwt.encode({**claims, "jti": str(uuid.uuid4())}, self.secret, algorithm="HS256")
        self.tokens[token] = time.monotonic() + self.token_seconds
        expires_in = max(0, self.token_seconds)
        return Reply(200, {"token": token, "token_type": "Bearer", "expires_in": expires_in})

    def _user(self, asked: Asked) -> int:
        token = asked.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token and self.fault != "no token in the body":
            token = str(asked.body.get("token", ""))
        try:
            options: Options = {
                "verify_signature": self.fault != "any signature",
                "verify_exp": self.fault != "eternal tokens",
                "verify_aud": False,
            }
            claims = jwt.decode(token, self.secret, algorithms=["HS256"], options=options)
            over = self.tokens.get(token, time.monotonic() + 1) < time.monotonic()
            if (over and self.fault != "eternal tokens") or self.fault == "no token is good":
                raise jwt.ExpiredSignatureError
            if self.fault == "a token is good once":
                self.tokens[token] = 0
        except jwt.PyJWTError:
            raise RefusedError(401, "The token is not valid.", "invalid-token") from None
        if not claims["enabled"] and self.fault != "charlie may":
            raise RefusedError(403, "This user is not enabled for transactions.", "user-disabled")
        return int(claims["sub"])

    def _pay(self, asked: Asked) -> Reply:
        user, body = self._user(asked), asked.body
        if body["currency"] not in _DIVISORS and self.fault != "any currency":
            fault = {"pointer": "/currency", "detail": "must be an ISO 4217 code in force"}
            errors = [] if self.fault == "no pointers" else [fault]
            raise RefusedError(
                422, "Some fields are invalid; see errors.", "invalid-request", errors=errors
            )
        key = asked.headers.get("Idempotency-Key", "")
        if key in self.first_answers and self.fault != "no idempotency":
            first = self.first_answers[key]
            replayed = {} if self.fault == "replay not said" else {"Idempotency-Replayed": "true"}
            return Reply(202, first, {"Location": f"/transactions/{first['id']}"} | replayed)
        transaction = self._accept(user, body)
        if key:
            self.first_answers[key] = transaction
        prefix = "" if self.fault == "Location without prefix" else "/transactions"
        return Reply(202, transaction, {"Location": f"{prefix}/{transaction['id']}"})

    def _accept(self, user: int, body: dict[str, Any]) -> dict[str, Any]:
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
        return transaction | {"timeline": list(transaction["timeline"])}

    def _get(self, transaction_id: str, user: int) -> Reply:
        transaction = self.transactions.get(transaction_id)
        own = transaction and (transaction["user_id"] == user or self.fault == "no privacy")
        if not transaction or not own:
            raise RefusedError(404, "You have no such transaction.", "not-found")
        if transaction["status"] == "queued" and self.fault != "never ends":
            self._end(transaction)
        return Reply(200, transaction)

    def _end(self, transaction: dict[str, Any]) -> None:
        """An attempt, and its outcome: when it is asked for the first time."""
        if transaction["payment_method"] == "pm_sandbox_error_500":
            outcome: dict[str, Any] = {"status": "failed"}
        elif "Declined" in transaction["payment_method"] and self.fault != "never declines":
            code = "stolen" if self.fault == "another decline code" else "generic_decline"
            outcome = {"status": "declined", "decline_code": code}
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
        credit = {
            "transaction_id": transaction["id"],
            "points": points,
            "amount": transaction["amount"],
            "currency": transaction["currency"],
            "at": transaction["created_at"],
        }
        credited = 0 if self.fault == "no credit" else 2 if self.fault == "double credit" else 1
        self.ledgers[transaction["user_id"]] += [credit] * credited
        return {"status": "captured", "loyalty_points": points, "psp_reference": "pi_1"}


def _read(body: bytes) -> dict[str, Any]:
    return dict(json.loads(body)) if body else {}


def _rfc3339(ms_later: int, after: str = "") -> str:
    start = datetime.fromisoformat(after) if after else datetime.now(UTC)
    moment = start + timedelta(milliseconds=ms_later)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _handler(platform: Platform) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = 5

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            with platform.lock:
                body = self.rfile.read(length)
                reply = platform.answer(self.command, self.path, dict(self.headers.items()), body)
                sent = reply.body
                content = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
            headers = {"Content-Type": "application/json", **reply.headers}
            if platform.fault != "no request id":
                headers["X-Request-Id"] = self.headers.get("X-Request-Id", "")
            if reply.status == HANG_UP:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815  as http.server names it

        def log_message(self, *_arguments: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def serving(platform: Platform) -> Iterator[Platform]:
    """The platform at a free port of the loopback, until the end of the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(platform))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    platform.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield platform
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
