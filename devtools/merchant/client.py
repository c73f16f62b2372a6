"""The HTTP client of the router.

`Client` returns responses of any status; `Session` keeps a merchant logged in; `expect` turns an
unexpected status into an error with a remedy.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from devtools.catalog import SERVICES
from devtools.merchant.errors import PlatformError, UnreachableError

AUTH = f"/{SERVICES['auth-api'].route}"
TRANSACTIONS = f"/{SERVICES['core-api'].route}"

# Above the router's own limit (15 s, then 504).
REQUEST_SECONDS_MAX = 20.0
# A page of a hundred transactions has about 60 KiB.
BODY_BYTES_MAX = 1024 * 1024

_WHERE = "--url or PLATFORM_URL or PLATFORM_PORT"
_LOGIN_HINTS = {
    401: "check --as and MERCHANT_PASSWORD",
    429: "too many wrong passwords; wait, and check MERCHANT_PASSWORD",
}
_HINTS = {
    403: "pay as a user who is enabled; `python -m services.auth_api.users list` shows them",
    404: f"is that the platform's router? see {_WHERE}",
    409: "check the console's payments; if the payment is not there, pay under another key",
    413: "the router takes bodies of up to 16 KiB",
    500: "find the reason by the request id: `logs --request ID`",
    502: "a service is down: `platform status`",
    503: "a service is down or full: `platform status`",
    504: "a service hangs: `platform status`",
}


@dataclass(frozen=True)
class Response:
    """One response. `body` is None if it was not JSON."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: Any
    request_id: str
    ms: float
    sent: str = ""
    """The request as it was sent, without the token."""

    @property
    def document(self) -> dict[str, Any]:
        """The body, or empty if it is no JSON object."""
        return self.body if isinstance(self.body, dict) else {}

    @property
    def code(self) -> str:
        """The problem document's code, or empty."""
        return str(self.document.get("code", ""))


class Token(BaseModel):
    """The response to a login."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    token: Annotated[str, Field(pattern=r"^[!-~]+$")]
    expires_in: Annotated[float, Field(ge=0)]


ModelT = TypeVar("ModelT", bound=BaseModel)


def read(model: type[ModelT], response: Response) -> ModelT:
    """The response's body as a `model`; other fields are ignored.

    Raises:
        PlatformError: the body does not match; the message names the fields.
    """
    try:
        return model.model_validate(response.body)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, fault["loc"])) or "body" for fault in error.errors())
        raise PlatformError(
            f"{response.url} returned {response.status} with an unexpected body ({fields})",
            request_id=response.request_id,
            hint="is that the platform, and of the same version as this client?",
        ) from None


@dataclass
class Deadline:
    """The deadline of a whole command."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    def seconds_left(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self.started + self.seconds - time.monotonic())


class Client:
    """Sends single requests, each with a new request id, within the deadline."""

    def __init__(self, url: str, deadline: Deadline) -> None:
        self.url = url
        self.deadline = deadline
        # Without the environment's proxy. Certificates take 90 ms to load: only for TLS.
        self._http = httpx.Client(trust_env=False, verify=url.startswith("https:"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.close()

    def token(self, username: str, password: str) -> Response:
        """Requests a token."""
        return self.send("POST", f"{AUTH}/token", body={"username": username, "password": password})

    def post_transaction(
        self, token: str, body: Mapping[str, object], idempotency_key: str | None = None
    ) -> Response:
        """Creates a transaction."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self.send("POST", TRANSACTIONS, token=token, body=body, headers=headers)

    def get(self, token: str, transaction_id: str) -> Response:
        """Reads one transaction."""
        return self.send("GET", f"{TRANSACTIONS}/{transaction_id}", token=token)

    def send(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Sends one request; without a token, no Authorization header.

        Raises:
            UnreachableError: no complete response within the deadline.
        """
        request_id = str(uuid.uuid4())
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        sent = {"X-Request-Id": request_id, **authorization, **(headers or {})}
        url, started = self.url + path, time.perf_counter()
        try:
            response, content = self._exchange(method, url, headers=sent, json=body)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise self._unreachable(error, request_id) from None
        ms = (time.perf_counter() - started) * 1000
        return Response(
            url, response.status_code, response.headers, _json(content), request_id, ms,
            _sent(response.request),
        )  # fmt: skip

    def _exchange(self, method: str, url: str, **request: Any) -> tuple[httpx.Response, bytes]:
        seconds_left = self.deadline.seconds_left()
        if not seconds_left:
            raise httpx.ReadTimeout("timeout")
        # httpx bounds the wait for each piece; the loop bounds their sum in time and size.
        timeout_seconds = min(REQUEST_SECONDS_MAX, seconds_left)
        content = b""
        with self._http.stream(method, url, timeout=timeout_seconds, **request) as response:
            for piece in response.iter_bytes():
                content += piece
                if len(content) > BODY_BYTES_MAX:
                    raise httpx.DecodingError("response larger than 1 MiB")
                if not self.deadline.seconds_left():
                    raise httpx.ReadTimeout("timeout")
            return response, content

    def _unreachable(self, error: Exception, request_id: str) -> UnreachableError:
        if isinstance(error, httpx.TimeoutException):
            seconds = min(REQUEST_SECONDS_MAX, self.deadline.seconds)
            detail = f"{self.url} did not respond within {seconds:g} s"
            hint = "see what hangs: `platform status`"
        elif isinstance(error, httpx.ConnectError) and "refused" in str(error).lower():
            detail = f"nothing listens at {self.url}"
            hint = "start the stack with `platform up -D`, or see its port in `platform status`\n"
            hint += f"or give its address with {_WHERE}"
        else:
            detail = f"no usable response from {self.url}: {error}"
            hint = f"is that the platform's router? give its address with {_WHERE}"
        return UnreachableError(detail, hint, request_id=request_id)


class Session:
    """Keeps a merchant logged in: replaces an expired token once per request."""

    def __init__(
        self,
        client: Client,
        username: str,
        password: str,
        on_login: Callable[[Response], None] = lambda _response: None,
    ) -> None:
        self._client = client
        self._credentials = username, password
        self._on_login = on_login
        self._token = ""

    def login(self) -> str:
        """Gets a new token."""
        response = expect(self._client.token(*self._credentials), 200, _LOGIN_HINTS)
        self._token = read(Token, response).token
        self._on_login(response)
        return self._token

    def send(self, request: Callable[[str], Response]) -> Response:
        """Sends a request with the token; after a 401 once more with a new one."""
        response = request(self._token or self.login())
        return request(self.login()) if response.status == 401 else response


def expect(response: Response, status: int, hints: Mapping[int, str] = _HINTS) -> Response:
    """The response, if it has this status.

    Raises:
        PlatformError: any other status, with the problem document's detail and a hint.
    """
    if response.status == status:
        return response
    problem = response.document
    hint = hints.get(response.status) or _HINTS.get(response.status, "")
    if (retry_after := response.headers.get("Retry-After", "")).isdecimal():
        hint = f"try again in {retry_after} s; {hint}".removesuffix("; ")
    if response.status < 300 or not problem:
        hint = hint or f"is that the platform? see {_WHERE}"
    errors = problem.get("errors")
    faults = [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []
    raise PlatformError(
        str(problem.get("detail") or f"{response.url} returned {response.status}, not {status}"),
        hint=hint,
        code=response.code,
        request_id=response.request_id,
        errors=[f"{fault.get('pointer', '')} {fault.get('detail', '')}" for fault in faults],
        status=response.status,
    )


def _sent(request: httpx.Request) -> str:
    head = [f"{request.method} {request.url.raw_path.decode()} HTTP/1.1"]
    head += [
        f"{name}: {'Bearer <token>' if name == 'authorization' else value}"
        for name, value in request.headers.items()
    ]
    body = "" if b'"password"' in request.content else request.content.decode()
    return "\n".join([*head, "", body])


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
