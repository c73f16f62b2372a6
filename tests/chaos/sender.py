"""A client of the platform that repeats requests safely.

Without a response, or after a 502, 503 or 504, it sends the same request again under the same
Idempotency-Key. A transaction that got a 202 at last must reach its final status once.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from tests.stack.stack import Stack


# What a client goes on trying for; more than any process here is away.
REPEAT_SECONDS_MAX = 60
TOKEN_SECONDS_MAX = 20  # of the 30 it is good for
_REPEATED = frozenset({401, 502, 503, 504})


class Sender:
    """One client of the platform, with its own connection and token."""

    def __init__(self, stack: Stack, username: str) -> None:
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{stack.port}",
            timeout=10,
            verify=False,  # noqa: S501  loopback only
        )
        self._username = username
        self._token = ""
        self._token_until = 0.0
        self.repeats = 0

    def pay(self, **fields: Any) -> str:
        """The id of a transaction that was accepted, however often it had to be asked for."""
        key = str(uuid.uuid4())
        deadline = time.monotonic() + REPEAT_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                response = self._http.post("/transactions", json=fields, headers=self._headers(key))
            except httpx.TransportError:
                response = None
            if response is not None and response.status_code == 202:
                return str(response.json()["id"])
            assert response is None or response.status_code in _REPEATED, response.text
            if response is not None and response.status_code == 401:
                self._token_until = 0
            self.repeats += 1
            time.sleep(0.05)
        raise AssertionError(f"not accepted within {REPEAT_SECONDS_MAX} s")

    def _headers(self, key: str) -> dict[str, str]:
        if time.monotonic() > self._token_until:
            login = {"username": self._username, "password": "password"}
            response = self._http.post("/auth/token", json=login)
            if response.status_code == 200:
                self._token = response.json()["token"]
                self._token_until = time.monotonic() + TOKEN_SECONDS_MAX
        return {"Authorization": f"Bearer {self._token}", "Idempotency-Key": key}

    def close(self) -> None:
        self._http.close()
