"""OpenAPI 3.1 documents, their schemas taken from the models that check the requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from services.common import problems

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TEMPLATE = "#/components/schemas/{model}"


class FieldFault(BaseModel):
    """A field that is wrong."""

    pointer: str = Field(description="RFC 6901, into the body")
    detail: str


class ProblemDocument(BaseModel):
    """RFC 9457, with a stable code."""

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
    """A whole document. `/health` and its answer are the same for every service."""
    described: list[type[BaseModel]] = [*models, ProblemDocument]
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (model, "validation") for model in described
    ]
    _, schemas = models_json_schema(wanted, ref_template=_TEMPLATE)
    health = {
        "summary": "Whether the service can do its work",
        "responses": {
            "200": {"description": "It can.", "content": {"application/json": {}}},
            "503": {"description": "It cannot; the checks say what is missing."},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1", "description": description},
        # Relative to this document, so right behind the router and without it.
        "servers": [{"url": "."}],
        "paths": {**paths, "/health": {"get": health}},
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": dict(security or {}),
        },
    }


def body(model: type[BaseModel]) -> dict[str, Any]:
    """A request body of this model."""
    return {"required": True, "content": {"application/json": {"schema": ref(model)}}}


def answer(description: str, model: type[BaseModel]) -> dict[str, Any]:
    """A successful answer of this model."""
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
