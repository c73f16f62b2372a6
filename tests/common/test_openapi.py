"""The OpenAPI documents match the services' behaviour, as checked by schemathesis."""

from typing import Any

import pytest
import schemathesis
from hypothesis import settings

from services.auth_api.app import create_app as create_auth_api
from services.auth_api.settings import AuthSettings
from services.common.web import App
from services.core_api.app import create_app as create_core_api
from tests.core_api.helpers import SECRET, bearer
from tests.core_api.helpers import settings as core_settings


def described(app: App) -> Any:
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    # It does not resolve the relative one of the document.
    schema.config.update(base_url="http://localhost")
    # A long token may be rejected for its size first.
    schema.config.checks.negative_data_rejection.expected_statuses.append("413")
    return schema


@pytest.fixture
def auth_api() -> Any:
    return described(create_auth_api(AuthSettings.read({"HTTP_PORT": "1", "JWT_SECRET": SECRET})))


@pytest.fixture
def core_api(redis_port: int, client: Any) -> Any:  # noqa: ARG001  it empties Redis
    return described(create_core_api(core_settings(redis_port)))


AUTH_API = schemathesis.pytest.from_fixture("auth_api")
# Its older path has the same responder: tests/core_api/test_api.py.
CORE_API = schemathesis.pytest.from_fixture("core_api").exclude(path="/transaction")


@AUTH_API.parametrize()
@settings(max_examples=20)
def test_the_auth_api_matches_its_document(case: Any) -> None:
    """All operations pass all checks of schemathesis."""
    case.call_and_validate()


@CORE_API.parametrize()
@settings(max_examples=20)
def test_the_core_api_matches_its_document(case: Any, client: Any) -> None:
    """All operations pass all checks of schemathesis, with a valid token."""
    client.flushall()  # or an Idempotency-Key came before with another request
    if case.meta and case.meta.generation.mode.is_positive:
        # Beyond any schema: a cursor comes from a response, a token is in one place, and 1.0 is not
        # an integer.
        case.query.pop("cursor", None)
        if isinstance(case.body, dict):
            case.body.pop("token", None)
            case.body["amount"] = str(case.body["amount"]).removesuffix(".0")
    case.call_and_validate(headers=bearer())
