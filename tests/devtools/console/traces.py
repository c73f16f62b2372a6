"""Spans as the services send them, for the tests of the console."""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

_NS_PER_MS = 1_000_000
_CHARGE = "POST /v1/payment_intents"


@dataclass
class Trace:
    """A trace under construction; `request` holds its spans, by service."""

    start_ns: int = 1_800_000_000_000_000_000
    trace_id: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    request: ExportTraceServiceRequest = field(default_factory=ExportTraceServiceRequest)

    def span(
        self,
        service: str,
        name: str,
        begin_ms: float,
        end_ms: float,
        attributes: Mapping[str, str] | None = None,
        *,
        parent: bytes = b"",
        error: str = "",
        links: Iterable[bytes] = (),
    ) -> bytes:
        """Adds a span; returns its id."""
        resource = self.request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        span = resource.scope_spans.add().spans.add(
            trace_id=self.trace_id, span_id=secrets.token_bytes(8), parent_span_id=parent,
            start_time_unix_nano=self.start_ns + int(begin_ms * _NS_PER_MS),
            end_time_unix_nano=self.start_ns + int(end_ms * _NS_PER_MS),
            name=name, links=[Span.Link(trace_id=one) for one in links],
        )  # fmt: skip
        if error:
            span.status.code, span.status.message = Status.STATUS_CODE_ERROR, error
        for key, value in (attributes or {}).items():
            span.attributes.add(key=key).value.string_value = value
        return bytes(span.span_id)


def about(transaction_id: str, method: str = "") -> dict[str, str]:
    """The attributes of a span that knows the transaction."""
    return {"platform.transaction.id": transaction_id} | (
        {"http.request.method": method} if method else {}
    )


def payment(transaction_id: str, *, attempts: int = 1, **trace: Any) -> Trace:
    """A payment from the router to its capture; all attempts but the last fail."""
    made, own = Trace(**trace), about(transaction_id)
    router = made.span("router", "POST /transactions", 0, 4.1)
    core = made.span("core-api", "POST /", 0.6, 3.6, about(transaction_id, "POST"), parent=router)
    send = made.span("core-api", "send queue", 1.2, 2.4, own, parent=core)
    at = 3.0
    for number in range(1, attempts + 1):
        error = "HTTP 500" if number < attempts else ""
        attempt = made.span(
            "psp-connector", "process queue", at, at + 9, own, parent=send, error=error
        )
        call = made.span("psp-connector", _CHARGE, at + 1, at + 7.5, parent=attempt, error=error)
        made.span("psp-sandbox", _CHARGE, at + 2, at + 6.5, parent=call, error=error)
        at += 9 + 12 * number
    return made
