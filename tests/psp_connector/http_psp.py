"""A client of the PSP, and what it is sent and gets."""

import json
from typing import Any

from services.psp_connector.psp import Charge
from services.psp_connector.settings import ConnectorSettings
from services.psp_connector.stripe_psp import StripePsp
from tests.http_service import Answer

CHARGE = Charge("8b7e8b26-0000-4000-8000-000000000001", "req-1", 1250, "USD", "pm_card_visa")


def client(url: str, timeout_seconds: float = 5) -> StripePsp:
    return StripePsp(
        ConnectorSettings.read(
            {
                "HTTP_PORT": "1",
                "REDIS_URL": "redis://127.0.0.1:1/0",
                "PSP_URL": url,
                "PSP_API_KEY": "sk_test_of_this_test",
                "PSP_TIMEOUT_SECONDS": str(timeout_seconds),
            }
        )
    )


def error(kind: str, **more: Any) -> dict[str, Any]:
    return {"error": {"type": kind, "message": "no", **more}}


def answer(status: int, body: Any, **headers: str) -> Answer:
    """A response with this JSON or text as body."""
    text = body if isinstance(body, str) else json.dumps(body)
    return Answer(status, (*headers.items(),), text.encode())
