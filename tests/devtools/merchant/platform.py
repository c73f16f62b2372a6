"""The platform without processes: its own services, behind a router that breaks promises."""

import re
import time
from typing import Any

import httpx
import jwt

from services.auth_api import app as auth_api
from services.auth_api.settings import AuthSettings
from services.common import store
from services.common.currencies import major_units
from services.core_api import app as core_api
from services.core_api.settings import CoreSettings
from services.psp_connector.queue import Queue
from services.psp_connector.records import FinalResult, Work
from services.psp_connector.settings import ConnectorSettings
from tests.support import ROOT

# As the router says it.
[TIMEOUT] = re.findall(
    r'504 gateway-timeout "Gateway Timeout" "(.*)"$',
    (ROOT / "services/router/Caddyfile").read_text(),
    re.MULTILINE,
)
SECRET = "0123456789abcdef0123456789abcdef"


class Services:
    """Auth API and Core API, and the connector's queue, on a Redis."""

    def __init__(self, redis_port: int) -> None:
        environ = {"HTTP_PORT": "1", "JWT_SECRET": SECRET, "PSP_URL": "http://127.0.0.1:1"}
        environ["REDIS_URL"] = f"redis://127.0.0.1:{redis_port}/0"
        auth = auth_api.create_app(AuthSettings.read(environ))
        core = core_api.create_app(CoreSettings.read(environ))
        self.apps = {"auth": httpx.WSGITransport(auth), "transactions": httpx.WSGITransport(core)}
        self.settings = ConnectorSettings.read(environ)


class Platform:
    """The router of the services; `fault` names a promise that it breaks.

    A queued payment is charged when its merchant first asks for it.
    """

    url = "http://127.0.0.1:2000"

    def __init__(self, services: Services, client: Any) -> None:
        self._services = services
        self._redis = client
        self._queue = Queue(client, services.settings, "one")
        self._queue.join()
        self.fault = ""
        self.polls_refused = 0
        self.requests: list[httpx.Request] = []
        self.accepted: list[str] = []
        """Ids of the transactions, without repetitions."""
        self.tokens: list[str] = []
        self.expired: set[str] = set()

    def respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path
        if self.fault == f"503 {request.method} {path}" or self._is_away(path):
            problem = {"code": "service-unavailable", "detail": "Redis is down.", "status": 503}
            headers = {"Retry-After": "1", "Content-Type": "application/problem+json"}
            response = httpx.Response(503, json=problem, headers=headers)
        elif path == "/health":
            response = httpx.Response(200, json={"status": "pass"})
        else:
            if request.method == "GET" and self.fault != "never ends":
                self._charge()
            response = self._forward(request)
        response.headers["X-Request-Id"] = request.headers["X-Request-Id"]
        if "Location" in response.headers:
            response.headers["Location"] = f"/transactions{response.headers['Location']}"
        response.headers.pop(self.fault.removeprefix("no "), None)
        return response

    def _is_away(self, path: str) -> bool:
        """Whether this status request is one of those refused."""
        if path.count("-") != 4 or not self.polls_refused:
            return False
        self.polls_refused -= 1
        return True

    def _forward(self, request: httpx.Request) -> httpx.Response:
        name, _, rest = request.url.path[1:].partition("/")
        body, token = request.content, request.headers.get("Authorization", "")[len("Bearer ") :]
        if self.fault == "hangs up on payments" and (request.method, rest) == ("POST", ""):
            raise httpx.RemoteProtocolError("Server disconnected")
        if self.fault == "does not respond in time to payments" and not rest:
            return httpx.Response(504, json={"code": "gateway-timeout", "detail": TIMEOUT})
        headers = {"Host": "localhost", "Content-Type": "application/json"}
        headers["X-Request-Id"] = request.headers["X-Request-Id"]
        if token:
            headers["Authorization"] = f"Bearer {self._token(token)}"
        if self.fault != "no idempotency" and "Idempotency-Key" in request.headers:
            headers["Idempotency-Key"] = request.headers["Idempotency-Key"]
        if self.fault in BODIES:
            body = body.replace(*BODIES[self.fault])
        url = request.url.copy_with(path=f"/{rest}")
        sent = httpx.Request(request.method, url, content=body, headers=headers)
        response = self._services.apps[name].handle_request(sent)
        response.read()
        if rest == "token" and response.is_success:
            self.tokens.append(response.json()["token"])
        elif response.status_code == 202 and "Idempotency-Replayed" not in response.headers:
            self.accepted.append(response.json()["id"])
        return response

    def _token(self, token: str) -> str:
        """The token that the Core API gets in its place."""
        if token in self.expired or self.fault == "no token is good":
            return "x"
        if self.fault == "a token is good once":
            self.expired.add(token)
        if self.fault == "any token":
            claims = jwt.decode(token, options={"verify_signature": False})
            now = int(time.time())
            return jwt.encode(claims | {"iat": now, "exp": now + 30}, SECRET)
        return token

    def _charge(self) -> None:
        """Charges what is queued."""
        for work in self._queue.begin(self._queue.read(10)):
            self._queue.save([(work, self._result(work))])
            if self.fault == "wrong balance":
                self._redis.incr(store.WHOLE.points(work.user_id))
            elif self.fault == "no credit":
                self._redis.delete(store.WHOLE.ledger(work.user_id))

    def _result(self, work: Work) -> FinalResult:
        charge = work.charge
        if charge.payment_method == "pm_sandbox_error_500":
            return FinalResult("failed")
        if "Declined" in charge.payment_method and self.fault != "never declines":
            code = "" if self.fault == "no decline code" else "generic_decline"
            return FinalResult("declined", decline_code=code)
        points = major_units(charge.amount, charge.currency)
        if self.fault == "cents everywhere":
            points = charge.amount // 100
        return FinalResult("captured", "pi_1", points=points)


BODIES = {
    "charlie may": (b'"charlie"', b'"becky"'),
    "no privacy": (b'"becky"', b'"alice"'),
    "any currency": (b'"ZZZ"', b'"USD"'),
    "no token in the body": (b'"token"', b'"tok"'),
}
"""What a fault replaces in the bodies of requests."""


class Stranger:
    """Another program, with one response for all requests."""

    def __init__(self, status: int, body: bytes, url: str = Platform.url) -> None:
        self.url = url
        self.requests: list[httpx.Request] = []
        self._response = status, body

    def respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status, body = self._response
        return httpx.Response(status, content=body)
