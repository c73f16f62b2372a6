"""Spans as the services send them, for the tests of the console."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

_NS_PER_MS = 1_000_000


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
        *,
        parent: bytes = b"",
        error: str = "",
        links: tuple[bytes, ...] = (),
        **attributes: Any,
    ) -> bytes:
        """Adds a span; attribute names have `__` for a dot. Returns its id."""
        resource = self.request.resource_spans.add()
        _set(resource.resource.attributes.add(), "service.name", service)
        span = resource.scope_spans.add().spans.add()
        span.trace_id, span.span_id, span.parent_span_id = (
            self.trace_id, secrets.token_bytes(8), parent,
        )  # fmt: skip
        span.name = name
        span.start_time_unix_nano = self.start_ns + int(begin_ms * _NS_PER_MS)
        span.end_time_unix_nano = self.start_ns + int(end_ms * _NS_PER_MS)
        if error:
            span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
            span.status.message = error
        for trace_id in links:
            span.links.add().trace_id = trace_id
        for key, value in attributes.items():
            _set(span.attributes.add(), key.replace("__", "."), value)
        return bytes(span.span_id)


def _set(attribute: KeyValue, key: str, value: Any) -> None:
    attribute.key = key
    if isinstance(value, int):
        attribute.value.int_value = value
    else:
        attribute.value.string_value = value


def payment(transaction_id: str, *, attempts: int = 1, **place: Any) -> Trace:
    """A payment from the router to its capture; all attempts but the last fail."""
    trace = Trace(**place)
    about: dict[str, Any] = {"platform__transaction__id": transaction_id}
    router = trace.span("router", "POST /transactions", 0, 4.1)
    core = trace.span(
        "core-api", "POST /", 0.6, 3.6, parent=router,
        http__request__method="POST", http__response__status_code=202, **about,
    )  # fmt: skip
    send = trace.span(
        "core-api", "send queue", 1.2, 2.4, parent=core,
        messaging__system="redis", messaging__destination__name="queue", **about,
    )  # fmt: skip
    begin = 3.0
    for number in range(1, attempts + 1):
        failed = "HTTP 500" if number < attempts else ""
        process = trace.span(
            "psp-connector", "process queue", begin, begin + 9, parent=send,
            error=failed, platform__attempt=number, **about,
        )  # fmt: skip
        call = trace.span(
            "psp-connector", "POST /v1/payment_intents", begin + 1, begin + 7.5, parent=process,
            error=failed, http__request__method="POST",
        )  # fmt: skip
        trace.span(
            "psp-sandbox", "POST /v1/payment_intents", begin + 2, begin + 6.5, parent=call,
            error=failed,
        )  # fmt: skip
        begin += 9 + 12 * number
    return trace
