"""Faults for all requests, told to the sandbox while it runs; and how answers then go out."""

from __future__ import annotations

import hmac
import json
import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import falcon
from pydantic import BaseModel, ConfigDict, Field

from services.common import problems
from services.common.problems import Problem
from services.common.web import read_body
from services.psp_sandbox.behaviours import FAULTS, FaultKind
from services.psp_sandbox.errors import StripeError, crowded, handle
from services.psp_sandbox.waiting import hang_up

if TYPE_CHECKING:
    from services.common.settings import Secret
    from services.psp_sandbox.waiting import Waiting

DELAY_MS_MAX = 30_000


class Faults(BaseModel):
    """What is wrong with the sandbox at the moment; by default nothing."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    delay_ms: Annotated[int, Field(ge=0, le=DELAY_MS_MAX)] = Field(
        default=0, description="each request waits so long first"
    )
    down: FaultKind | None = Field(default=None, description="each request fails this way")
    error_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0, description="this part of the requests fails"
    )
    kinds: Annotated[list[FaultKind], Field(min_length=1, max_length=20)] = Field(
        default=["error_500"], description="... in one of these ways, each as likely"
    )
    seed: int = Field(default=0, description="the same seed makes the same series of faults")


class FaultBox:
    """The faults in force, and how many of each kind were given."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.set(Faults())

    def set(self, faults: Faults) -> None:
        with self._lock:
            self._faults = faults
            self._random = random.Random(faults.seed)  # noqa: S311  it has to be repeatable
            self._given: Counter[FaultKind] = Counter()

    def state(self) -> dict[str, object]:
        """The faults, and how many requests got one since they were set."""
        with self._lock:
            return {"faults": self._faults.model_dump(), "given": dict(self._given)}

    def draw(self) -> tuple[float, FaultKind | None]:
        """For the next request: how many seconds it waits, and how it fails."""
        with self._lock:
            faults, kind = self._faults, self._faults.down
            # Both numbers are drawn each time, so that the series depends on the seed alone.
            fails, which = self._random.random() < faults.error_rate, self._random.random()
            if kind is None and fails:
                kind = faults.kinds[int(which * len(faults.kinds))]
            if kind is not None:
                self._given[kind] += 1
            return faults.delay_ms / 1000, kind


class V1:
    """Middleware for `/v1`: faults first, errors in Stripe's shape, answers as they are to go out.

    `/_sandbox` is for programs on this machine: not for a web page from elsewhere, which a browser
    on this machine may show.
    """

    def __init__(self, box: FaultBox, waiting: Waiting) -> None:
        self._box = box
        self._waiting = waiting

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        if not _is_v1(req):
            origin = req.get_header("Origin")
            if origin is not None and origin.partition("://")[2] != req.get_header("Host"):
                raise Problem(403, "Pages of other origins may not use the sandbox.")
            return
        # Before anything waits, for a hang-up is seen only behind the body.
        req.context.body = read_body(req)
        delay_seconds, kind = self._box.draw()
        if delay_seconds and not self._waiting.wait(req.env, delay_seconds):
            raise crowded()
        if kind is None:
            return
        fault = FAULTS[kind]
        req.context.delivery = fault.delivery
        req.context.log = {"fault": kind}
        if fault.status:
            raise fault.error()

    def process_response(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        _resource: object,
        _succeeded: bool,  # noqa: FBT001
    ) -> None:
        if not _is_v1(req):
            return
        if resp.content_type == problems.CONTENT_TYPE:
            _to_stripe_shape(resp)
        for name in ("Request-Id", "X-Request-Id"):  # Stripe's name for it, and ours
            resp.set_header(name, req.context.request_id)
        delivery = req.context.get("delivery", "sent")
        if delivery == "held" and not self._waiting.wait(req.env, self._waiting.hold_seconds):
            handle(req, resp, crowded(), {})
        if delivery == "dropped" and not hang_up(req.env):
            handle(req, resp, FAULTS["unavailable"].error(), {})


class TokenGuard:
    """Middleware for `/_sandbox`: only who knows the token sees payments and switches faults."""

    def __init__(self, token: Secret) -> None:
        self._expected = f"Bearer {token.get_secret_value()}".encode()

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        is_guarded = req.path.startswith("/_sandbox/")
        if is_guarded and not hmac.compare_digest((req.auth or "").encode(), self._expected):
            detail = "Send `Authorization: Bearer` with SANDBOX_TOKEN (.state/sandbox-token)."
            raise problems.Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})


def _is_v1(req: falcon.Request) -> bool:
    return req.path == "/v1" or req.path.startswith("/v1/")


def _to_stripe_shape(resp: falcon.Response) -> None:
    """Of a problem document that Falcon or the shared modules made."""
    detail = json.loads(resp.text or "{}").get("detail", "")
    resp.text = None
    resp.content_type = falcon.MEDIA_JSON
    resp.media = {"error": StripeError(resp.status_code, detail).error}
