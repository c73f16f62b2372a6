"""An OTLP/HTTP receiver of traces on a free loopback port."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.http_service import Answer, Service, service_on


@dataclass(frozen=True)
class Span:
    """A span as it was received."""

    service: str
    name: str
    trace_id: str
    id: str
    parent: str
    attributes: dict[str, Any]
    failed: bool


@dataclass(frozen=True)
class Receiver:
    """A receiver and what it has received."""

    service: Service

    @property
    def endpoint(self) -> str:
        return self.service.url

    @property
    def spans(self) -> list[Span]:
        assert {seen.path for seen in self.service.seen} <= {"/v1/traces"}
        return [span for seen in self.service.seen for span in _spans(seen.body)]


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """Receives traces during the block."""
    with service_on() as service:
        service.answer = Answer(body=b"")
        yield Receiver(service)


def _spans(body: bytes) -> Iterator[Span]:
    request = ExportTraceServiceRequest.FromString(body)
    for resource in request.resource_spans:
        service = _attributes(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for one in scope.spans:
                failed = one.status.code == one.status.STATUS_CODE_ERROR
                ids = one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex()
                yield Span(service, one.name, *ids, _attributes(one.attributes), failed)


def _attributes(found: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in found}
