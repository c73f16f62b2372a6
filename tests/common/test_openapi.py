"""The OpenAPI documents match the services' behaviour, as checked by schemathesis."""

from typing import Any

import pytest
from hypothesis import settings

from services.auth_api.app import create_app as create_auth_api
from services.auth_api.settings import AuthSettings
from services.core_api.app import create_app as create_core_api
from tests.core_api.helpers import SECRET, bearer
from tests.core_api.helpers import settings as core_settings


@pytest.fixture(params=["Auth API", "Core API"])
def described(request: pytest.FixtureRequest, redis_port: int) -> Any:
    """The document of a service, and the service to check it with."""
    # Here, not above: it takes 0.3 s in each of pytest's processes.
    import schemathesis  # noqa: PLC0415

    if request.param == "Auth API":
        app = create_auth_api(AuthSettings.read({"HTTP_PORT": "1", "JWT_SECRET": SECRET}))
    else:
        app = create_core_api(core_settings(redis_port))
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    # It does not resolve the relative one of the document.
    schema.config.update(base_url="http://localhost")
    # A long token may be rejected for its size first.
    schema.config.checks.negative_data_rejection.expected_statuses.append("413")
    return schema


@pytest.mark.usefixtures("described")
def test_a_service_matches_its_document(request: pytest.FixtureRequest, client: Any) -> None:
    """All operations pass all checks of schemathesis, with a valid token."""
    import schemathesis  # noqa: PLC0415

    # The Core API's older path has the same responder: tests/core_api/test_api.py.
    operations = schemathesis.pytest.from_fixture("described").exclude(path="/transaction")

    @operations.parametrize()
    @settings(max_examples=20)
    def check(case: Any) -> None:
        client.flushall()  # or an Idempotency-Key came before with another request
        if case.meta and case.meta.generation.mode.is_positive:
            # Beyond any schema: a cursor comes from a response, a token is in one place, and 1.0 is
            # not an integer.
            case.query.pop("cursor", None)
            if isinstance(case.body, dict) and "amount" in case.body:
                case.body.pop("token", None)
                case.body["amount"] = str(case.body["amount"]).removesuffix(".0")
        case.call_and_validate(headers=bearer())

    check(request=request)
