"""Fault injection for all `/v1` requests, configured at run time."""

import hmac
import random
import threading
from collections import Counter
from typing import Annotated, Any

import falcon
from pydantic import BaseModel, ConfigDict, Field
from structlog.contextvars import bind_contextvars

from services.common.problems import Problem
from services.common.settings import Secret
from services.common.web import read_body
from services.psp_sandbox.behaviours import FAULTS, FaultKind
from services.psp_sandbox.errors import StripeError, is_v1
from services.psp_sandbox.waiting import Waiting, hang_up

DELAY_MS_MAX = 30_000


class Faults(BaseModel):
    """The faults to inject; none by default."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    delay_ms: Annotated[int, Field(ge=0, le=DELAY_MS_MAX)] = Field(
        default=0, description="delay of each request"
    )
    down: FaultKind | None = Field(default=None, description="fault of each request")
    error_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0, description="fraction of requests that fail"
    )
    kinds: Annotated[list[FaultKind], Field(min_length=1, max_length=20)] = Field(
        default=["error_500"], description="faults used for error_rate, equally likely"
    )
    decline: bool = Field(default=False, description="each card is declined")
    seed: int = Field(default=0, description="the same seed gives the same sequence of faults")


class FaultInjector:
    """Decides which requests fail, and counts faults by kind. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.set(Faults())

    def set(self, faults: Faults) -> None:
        with self._lock:
            self.faults = faults
            self._random = random.Random(faults.seed)  # noqa: S311  must be reproducible
            self._counts: Counter[FaultKind] = Counter()

    def state(self) -> dict[str, object]:
        """The configured faults and the number injected since then, by kind."""
        with self._lock:
            return {"faults": self.faults.model_dump(), "given": dict(self._counts)}

    def draw(self) -> tuple[float, FaultKind | None]:
        """Decides for the next request: delay in seconds, and fault if any."""
        with self._lock:
            faults, kind = self.faults, self.faults.down
            if not kind and self._random.random() < faults.error_rate:
                kind = self._random.choice(faults.kinds)
            if kind:
                self._counts[kind] += 1
            return faults.delay_ms / 1000, kind


def inject(req: falcon.Request, kind: FaultKind) -> None:
    """Raises the error of a fault, or has the response held or dropped."""
    fault = FAULTS[kind]
    req.context.delivery = fault.delivery
    bind_contextvars(fault=kind)
    if fault.status:
        raise StripeError(fault.status, fault.message, code=fault.code)


class StripeMiddleware:
    """Middleware: injects faults into `/v1`."""

    def __init__(self, injector: FaultInjector, waiting: Waiting) -> None:
        self._injector = injector
        self._waiting = waiting

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        if not is_v1(req):
            return
        # Before waiting: a disconnect is detected only after the body.
        req.context.body = read_body(req)
        delay_seconds, kind = self._injector.draw()
        if delay_seconds:
            self._waiting.wait(req.env, delay_seconds)
        if kind:
            inject(req, kind)

    def process_response(self, req: falcon.Request, resp: falcon.Response, *_: Any) -> None:
        if not is_v1(req):
            return
        resp.set_header("Request-Id", req.context.request_id)  # Stripe's name for it
        delivery = req.context.get("delivery", "sent")
        if delivery == "held":
            self._waiting.wait(req.env, self._waiting.hold_seconds)
        if delivery == "dropped" and not hang_up(req.env):
            raise StripeError(503, "The sandbox cannot close this connection.")


class ControlGuard:
    """Middleware: `/_sandbox` requires the token, if any, and refuses web pages (Origin)."""

    def __init__(self, token: Secret | None) -> None:
        self._expected = f"Bearer {token.get_secret_value()}".encode() if token else None

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        if not req.path.startswith("/_sandbox/"):
            return
        if req.get_header("Origin"):
            raise Problem(
                403, "The sandbox's control interface is for programs, not for web pages."
            )
        if self._expected and not hmac.compare_digest((req.auth or "").encode(), self._expected):
            detail = "Send `Authorization: Bearer` with SANDBOX_TOKEN (.state/sandbox-token)."
            raise Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})
