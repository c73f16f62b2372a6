"""A client of the PSP, and what it is sent and gets."""

import json
from typing import Any

from services.common.settings import Secret
from services.psp_connector.psp import Charge
from services.psp_connector.settings import ConnectorSettings
from services.psp_connector.stripe_psp import StripePsp
from tests.http_service import Reply

CHARGE = Charge("8b7e8b26-0000-4000-8000-000000000001", "req-1", 1250, "USD", "pm_card_visa")


def client(url: str, timeout_seconds: float = 5) -> StripePsp:
    settings = ConnectorSettings(
        http_port=1, redis_url="redis://127.0.0.1:1/0", psp_url=url,
        psp_api_key=Secret("sk_test_of_this_test"), psp_timeout_seconds=timeout_seconds,
    )  # fmt: skip
    return StripePsp(settings)


def error(kind: str, **more: Any) -> dict[str, Any]:
    return {"error": {"type": kind, "message": "no", **more}}


def reply(status: int, body: Any, **headers: str) -> Reply:
    """A response with this JSON or text as body."""
    text = body if isinstance(body, str) else json.dumps(body)
    return Reply(status, (*headers.items(),), text.encode())
