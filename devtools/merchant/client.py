"""The HTTP client of the router.

`Client` sends and gives back what was answered, whatever the status; `Session` keeps a merchant
logged in; `expect` turns an answer that is no success into an error a person can act on.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx

from devtools.merchant.errors import PlatformError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

# More than the router's own limit (15 s, then 504).
REQUEST_SECONDS_MAX = 20.0
# A page of a hundred transactions has some 60 KiB.
BODY_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """One response. `body` is None if it was not JSON."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: Any
    request_id: str
    ms: float

    @property
    def code(self) -> str:
        """The problem document's code, or empty."""
        return str(self.body.get("code", "")) if isinstance(self.body, dict) else ""


@dataclass
class Deadline:
    """The deadline of a whole command."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def seconds_left(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self.started + self.seconds - self.clock())


class Client:
    """Sends single requests, each with a new request id, within the deadline."""

    def __init__(self, url: str, deadline: Deadline) -> None:
        self.url = url
        self.deadline = deadline
        # A proxy of the environment has no business between a merchant and a local platform.
        # Certificates take 90 ms to load, and there are none to check without TLS.
        self._http = httpx.Client(trust_env=False, verify=url.startswith("https:"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.close()

    def token(self, username: str, password: str) -> Answer:
        """Requests a token."""
        return self.send("POST", "/auth/token", {"username": username, "password": password})

    def post_transaction(
        self,
        token: str,
        wanted: Mapping[str, object],
        idempotency_key: str | None = None,
        *,
        path: str = "/transactions",
    ) -> Answer:
        """Creates a transaction. Without a token, sends no Authorization header."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self.send("POST", path, wanted, token=token, headers=headers)

    def get(self, token: str, transaction_id: str) -> Answer:
        """Reads one transaction."""
        return self.send("GET", f"/transactions/{transaction_id}", token=token)

    def list(self, token: str, limit: int, cursor: str | None = None) -> Answer:
        """Lists the caller's transactions."""
        return self.send("GET", f"/transactions?{_page(limit, cursor)}", token=token)

    def loyalty(self, token: str, limit: int, cursor: str | None = None) -> Answer:
        """Reads the caller's points."""
        return self.send("GET", f"/transactions/loyalty?{_page(limit, cursor)}", token=token)

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        token: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Sends one request.

        Raises:
            UnreachableError: no complete response within the deadline.
        """
        request_id = str(uuid.uuid4())
        sent = {"X-Request-Id": request_id, **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        started = time.perf_counter()
        try:
            status, answered, content = self._exchange(
                method, self.url + path, headers=sent, json=body
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise self._unreachable(error, request_id) from None
        ms = (time.perf_counter() - started) * 1000
        return Answer(self.url + path, status, answered, _json(content), request_id, ms)

    def _exchange(self, method: str, url: str, **request: Any) -> tuple[int, httpx.Headers, bytes]:
        seconds_left = self.deadline.seconds_left()
        if not seconds_left:
            raise httpx.ReadTimeout("the time is up")
        # httpx bounds the wait for each piece; the loop, the time and the size of all of them.
        timeout_seconds = min(REQUEST_SECONDS_MAX, seconds_left)
        content = b""
        with self._http.stream(method, url, timeout=timeout_seconds, **request) as response:
            for piece in response.iter_bytes():
                content += piece
                if len(content) > BODY_BYTES_MAX:
                    raise httpx.DecodingError("response larger than 1 MiB")
                if not self.deadline.seconds_left():
                    raise httpx.ReadTimeout("the time is up")
            return response.status_code, response.headers, content

    def _unreachable(self, error: Exception, request_id: str) -> UnreachableError:
        if isinstance(error, httpx.TimeoutException):
            waited_seconds = min(REQUEST_SECONDS_MAX, self.deadline.seconds)
            return UnreachableError(
                f"{self.url} did not answer within {waited_seconds:g} s",
                hint="see what hangs: `platform status`",
                request_id=request_id,
            )
        if isinstance(error, httpx.ConnectError) and "refused" in str(error).lower():
            return UnreachableError(
                f"nothing listens at {self.url}",
                hint="start the stack with `process-compose up` (or `./nixw run`)\n"
                "or say where it is, with --url or PLATFORM_URL or PLATFORM_PORT",
                request_id=request_id,
            )
        return UnreachableError(
            f"no use of {self.url}: {error}",
            hint="is that the platform's router? say where it is, with --url or PLATFORM_URL",
            request_id=request_id,
        )


class Session:
    """A merchant who stays logged in: an expired token is replaced, once per request."""

    def __init__(self, client: Client, username: str, password: str) -> None:
        self._client = client
        self._username = username
        self._password = password
        self._token = ""
        self.on_login: Callable[[Answer], None] = lambda _answer: None

    def login(self) -> str:
        """Gets a new token."""
        answer = expect(self._client.token(self._username, self._password), 200, _LOGIN_HINTS)
        token = answer.body.get("token") if isinstance(answer.body, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token:
            raise PlatformError(f"{answer.url} answered 200, but gave no token")
        self._token = token
        self.on_login(answer)
        return token

    def send(self, request: Callable[[str], Answer]) -> Answer:
        """Sends a request with the token; after a 401 once more with a new one."""
        answer = request(self._token or self.login())
        return request(self.login()) if answer.status == 401 else answer


_LOGIN_HINTS = {
    401: "see --as, and the password: MERCHANT_PASSWORD or --password-stdin",
    429: "too many wrong passwords; wait, then see MERCHANT_PASSWORD or --password-stdin",
}
_HINTS = {
    403: "pay as a user who is enabled; `python -m services.auth_api.users list` shows them",
    404: "not one of this merchant's ids: see `merchant list --as NAME`",
    409: "see `merchant list --as NAME`; if it is not there, pay under another key",
    413: "the router takes bodies of up to 16 KiB",
    500: "the request id leads to it in the logs, in .state/logs",
    502: "a service is away: `platform status`",
    503: "a service is away or full: `platform status`",
    504: "a service hangs: `platform status`",
}


def expect(answer: Answer, status: int, hints: Mapping[int, str] | None = None) -> Answer:
    """The response, if it has this status.

    Raises:
        PlatformError: any other status, with the problem document's detail and a hint.
    """
    if answer.status == status:
        return answer
    problem = answer.body if isinstance(answer.body, dict) else {}
    hint = {**_HINTS, **(hints or {})}.get(answer.status, "")
    if (retry_after := answer.headers.get("Retry-After", "")).isdecimal():
        hint = f"try again in {retry_after} s; {hint}".removesuffix("; ")
    if answer.status < 300 or not problem:
        hint = hint or "is that the platform? see --url, PLATFORM_URL and PLATFORM_PORT"
    raise PlatformError(
        str(problem.get("detail") or f"{answer.url} answered {answer.status}, not {status}"),
        hint=hint,
        code=answer.code,
        request_id=answer.request_id,
        errors=_faults(problem.get("errors")),
        status=answer.status,
    )


def _faults(errors: object) -> list[str]:
    if not isinstance(errors, list):
        return []
    return [f"{e.get('pointer', '')} {e.get('detail', '')}" for e in errors if isinstance(e, dict)]


def _page(limit: int, cursor: str | None) -> str:
    return urlencode({"limit": limit} | ({"cursor": cursor} if cursor else {}))


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
