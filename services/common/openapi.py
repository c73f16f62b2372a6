"""OpenAPI 3.1 documents, with schemas from the models that validate the requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from services.common import problems

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TEMPLATE = "#/components/schemas/{model}"


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


def document(
    title: str,
    description: str,
    paths: Mapping[str, Any],
    models: Sequence[type[BaseModel]],
    security: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Builds a document; adds `/health`, which is the same for every service."""
    described: list[type[BaseModel]] = [*models, ProblemDocument]
    inputs: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (model, "validation") for model in described
    ]
    _, schemas = models_json_schema(inputs, ref_template=_TEMPLATE)
    health = {
        "summary": "Health of the service",
        "responses": {
            "200": {"description": "Healthy.", "content": {"application/json": {}}},
            "503": {"description": "Unhealthy; `checks` names what failed."},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1", "description": description},
        # Relative to this document, so correct both behind the router and without it.
        "servers": [{"url": "."}],
        "paths": {**paths, "/health": {"get": health}},
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": dict(security or {}),
        },
    }


def body(model: type[BaseModel]) -> dict[str, Any]:
    """A JSON request body."""
    return {"required": True, "content": {"application/json": {"schema": ref(model)}}}


def response(description: str, model: type[BaseModel]) -> dict[str, Any]:
    """A successful JSON response."""
    return {"description": description, "content": {"application/json": {"schema": ref(model)}}}


def errors(**descriptions: str) -> dict[str, Any]:
    """Problem documents: `errors(e401="…")`."""
    content = {problems.CONTENT_TYPE: {"schema": ref(ProblemDocument)}}
    return {
        status.removeprefix("e"): {"description": description, "content": content}
        for status, description in descriptions.items()
    }


def ref(model: type[BaseModel]) -> dict[str, str]:
    """A reference to the model's schema."""
    return {"$ref": _TEMPLATE.format(model=model.__name__)}
