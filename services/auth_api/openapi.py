"""The Auth API's OpenAPI document."""

from __future__ import annotations

from services.auth_api.resources import TokenAnswer, TokenRequest
from services.common import openapi

DOCUMENT = openapi.document(
    "Auth API",
    "Issues tokens that are valid for 30 seconds.",
    {
        "/token": {
            "post": {
                "summary": "Get a token for a user name and password",
                "requestBody": openapi.body(TokenRequest),
                "responses": {
                    "200": openapi.response("A token.", TokenAnswer),
                    **openapi.errors(
                        e400="Not JSON.",
                        e401="User name or password is wrong.",
                        e413="Over 16 KiB.",
                        e415="Content-Type is not JSON.",
                        e422="A field is missing or invalid; see errors.",
                        e429="Too many failed logins; see Retry-After.",
                        e503="Too many logins at the moment; see Retry-After.",
                    ),
                },
            }
        }
    },
    [TokenRequest, TokenAnswer],
)
