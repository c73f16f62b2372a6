"""A client of the platform that repeats requests safely.

Without a response, or after a 502, 503 or 504, it sends the same request again under the same
Idempotency-Key. A transaction that got a 202 at last must reach its final status once.
"""

import contextlib
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import urllib3

# How long a client retries; longer than any outage here.
REPEAT_SECONDS_MAX = 60
TOKEN_SECONDS_MAX = 20  # of the 30 it is good for
_REPEATED = frozenset({0, 401, 502, 503, 504})


def accepted(post: Callable[[str], tuple[int, str]], refused: Callable[[int], None]) -> str:
    """Posts under a new Idempotency-Key until there is a 202; returns the transaction's id.

    `refused` is called with each other status, or with 0 if there was no response.
    """
    key = str(uuid.uuid4())
    deadline = time.monotonic() + REPEAT_SECONDS_MAX
    while time.monotonic() < deadline:
        status = 0
        with contextlib.suppress(urllib3.exceptions.HTTPError, httpx.TransportError):
            status, text = post(key)
            if status == 202:
                return str(json.loads(text)["id"])
        refused(status)
        time.sleep(0.05)
    raise AssertionError(f"not accepted within {REPEAT_SECONDS_MAX} s")


class Sender:
    """One client of the platform, with its own connection and token.

    Not httpx, which takes more processor time than the platform does.
    """

    def __init__(self, port: int, username: str) -> None:
        self._http = urllib3.HTTPConnectionPool("127.0.0.1", port, timeout=10, retries=False)
        self._username = username
        self._token = ""
        self._token_until = 0.0
        self.repeats = 0

    def pay(self, **fields: Any) -> str:
        """Pays until accepted, with as many requests as it takes; returns the transaction's id."""
        return accepted(lambda key: self._pay(key, fields), self._refused)

    def _pay(self, key: str, fields: dict[str, Any]) -> tuple[int, str]:
        if time.monotonic() > self._token_until:
            login = {"username": self._username, "password": "password"}
            status, text = self._post("/auth/token", login)
            if status != 200:
                return status, text
            self._token = json.loads(text)["token"]
            self._token_until = time.monotonic() + TOKEN_SECONDS_MAX
        headers = {"Authorization": f"Bearer {self._token}", "Idempotency-Key": key}
        return self._post("/transactions", fields, headers)

    def _post(
        self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        response = self._http.request("POST", path, json=body, headers=headers)
        return response.status, response.data.decode()

    def _refused(self, status: int) -> None:
        assert status in _REPEATED, status
        if status == 401:
            self._token_until = 0
        self.repeats += 1

    def close(self) -> None:
        self._http.close()
