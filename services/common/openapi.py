"""Builds OpenAPI 3.1 documents from the routes; `operation` describes each responder.

The schemas are those of the models that validate the requests.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, Field
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from services.common import problems

_TEMPLATE = "#/components/schemas/{model}"
_METHODS = ("get", "post", "put", "patch", "delete")
# What `web.read_json` rejects.
_BODY_ERRORS = {
    400: "Not JSON.",
    413: "Over 16 KiB.",
    415: "Content-Type is not JSON.",
    422: "A field is missing or invalid; see errors.",
}
_HEALTH = {
    "summary": "Health of the service",
    "responses": {
        "200": {"description": "Healthy.", "content": {"application/json": {}}},
        "503": {"description": "Unhealthy; `checks` names what failed."},
    },
}

ResponderT = TypeVar("ResponderT", bound="Callable[..., None]")


class FieldFault(BaseModel):
    """An invalid field."""

    pointer: str = Field(description="RFC 6901, into the body")
    detail: str


class ProblemDocument(BaseModel):
    """RFC 9457 problem, with a stable code."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldFault] = []


def operation(
    summary: str,
    response: type[BaseModel],
    *,
    request: type[BaseModel] | None = None,
    success: tuple[int, str] = (200, "OK."),
    errors: Mapping[int, str] | None = None,
    **more: Any,
) -> Callable[[ResponderT], ResponderT]:
    """Describes a responder, such as `on_get`, with `more` fields of an OpenAPI operation.

    `errors` are problem documents by status; `request` adds those of its body.
    """
    problem = {problems.CONTENT_TYPE: {"schema": ref(ProblemDocument)}}
    meanings = {**(_BODY_ERRORS if request else {}), **(errors or {})}
    status, meaning = success
    fields = {
        "summary": summary,
        **({"requestBody": {"required": True, "content": _json(request)}} if request else {}),
        "responses": {
            str(status): {"description": meaning, "content": _json(response)},
            **{str(s): {"description": d, "content": problem} for s, d in meanings.items()},
        },
        **more,
    }

    def describe(responder: ResponderT) -> ResponderT:
        vars(responder)["openapi"] = (fields, [model for model in (request, response) if model])
        return responder

    return describe


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": ref(model)}}


def document(
    title: str,
    description: str,
    routes: Mapping[str, object],
    security: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Builds the document of these routes, and of `/health`, by path."""
    paths: dict[str, Any] = {}
    models: dict[type[BaseModel], None] = {}
    for path, resource in routes.items():
        item = paths.setdefault(re.sub(r"{(\w+):\w+}", r"{\1}", path), {})
        for method in _METHODS:
            fields, used = getattr(getattr(resource, f"on_{method}", None), "openapi", ({}, ()))
            if fields:
                item[method] = fields
                models |= dict.fromkeys(used)
    models[ProblemDocument] = None
    inputs: list[tuple[type[BaseModel], JsonSchemaMode]] = [(m, "validation") for m in models]
    _, schemas = models_json_schema(inputs, ref_template=_TEMPLATE)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1", "description": description},
        # Relative to this document, so correct both behind the router and without it.
        "servers": [{"url": "."}],
        "paths": {**paths, "/health": {"get": _HEALTH}},
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": dict(security or {}),
        },
    }


def ref(model: type[BaseModel]) -> dict[str, str]:
    """A reference to the model's schema."""
    return {"$ref": _TEMPLATE.format(model=model.__name__)}
