"""The OpenTelemetry half of services/common/tracing.py, imported only when tracing is on."""

from __future__ import annotations

import logging
import re
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from opentelemetry import trace
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from structlog.contextvars import bind_contextvars, get_contextvars

from services.common import tracing
from services.common.otlp import Exporter

if TYPE_CHECKING:
    import falcon

    from services.common.tracing import Attributes, Kind

# A span costs some 60 us of CPU time here and as much in the receiver, and a payment has eight:
# tracing all would halve the throughput. Each process starts at most this many traces a second,
# after a burst; other requests are not traced.
TRACES_PER_SECOND_MAX = 50
TRACES_BURST_MAX = 100
# Short, so that a trace appears while its payment is being watched.
_EXPORT_SECONDS = 0.5
# Beyond this many unsent spans, new ones replace the oldest.
_QUEUED_MAX = 4096
_BATCH_MAX = 512
# Within the second that gunicorn gives its workers to stop.
STOP_SECONDS_MAX = 0.4

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_KINDS = {kind.name.lower(): kind for kind in SpanKind}
# Probes and scrapers request these every few seconds.
_UNTRACED = frozenset({"/health", "/metrics"})


def parse(traceparent: str) -> SpanContext | None:
    """The span context of a valid traceparent (W3C Trace Context, version 00)."""
    if not (match := _TRACEPARENT.fullmatch(traceparent)):
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    found = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return found if found.is_valid else None


class RecordedSpan(tracing.Span):
    """A span that is exported."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._active = self.active()
        ids = span.get_span_context()
        self.trace_id = f"{ids.trace_id:032x}"
        self.traceparent = f"00-{self.trace_id}-{ids.span_id:016x}-01"

    def __enter__(self) -> Self:
        self._active.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._active.__exit__(None, None, None)
        self.end(type(error[1]).__name__ if any(error) else "")

    def active(self) -> Any:
        return trace.use_span(self._span, record_exception=False, set_status_on_exception=False)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def link(self, traceparent: str) -> None:
        if found := parse(traceparent):
            self._span.add_link(found)

    def rename(self, name: str) -> None:
        """Replaces the name."""
        self._span.update_name(name)

    def fail(self, reason: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, reason))

    def end(self, failure: str = "") -> None:
        if failure:
            self.fail(failure)
        self._span.end()


class Tracing:
    """The tracer of this process."""

    def __init__(self, service: str, endpoint: str, processor: SpanProcessor | None = None) -> None:
        # Includes OTEL_RESOURCE_ATTRIBUTES.
        resource = OTELResourceDetector().detect().merge(Resource({"service.name": service}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._tracer = self._provider.get_tracer("platform")
        self._endpoint = endpoint
        if processor:
            self._provider.add_span_processor(processor)
        # Its messages repeat with each batch; the exporter below logs an outage once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def start(self) -> None:
        """Starts the exporter's thread."""
        self._provider.add_span_processor(
            BatchSpanProcessor(
                Exporter(self._endpoint),
                max_queue_size=_QUEUED_MAX,
                schedule_delay_millis=_EXPORT_SECONDS * 1000,
                max_export_batch_size=_BATCH_MAX,
            )
        )

    def stop(self) -> None:
        """Exports the remaining spans, for at most STOP_SECONDS_MAX."""
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(STOP_SECONDS_MAX)

    def span(
        self,
        name: str,
        kind: Kind,
        attributes: Attributes | None,
        parent: str | None,
        start_ms: int | None,
    ) -> tracing.Span:
        """See `tracing.span`."""
        if parent is None:
            ids, within = trace.get_current_span().get_span_context(), None
        else:
            ids = parse(parent) or trace.INVALID_SPAN_CONTEXT
            within = trace.set_span_in_context(NonRecordingSpan(ids))
        if not ids.is_valid or not ids.trace_flags.sampled:
            return tracing.NO_SPAN
        start_ns = None if start_ms is None else min(start_ms * 1_000_000, time.time_ns())
        return RecordedSpan(
            self._tracer.start_span(
                name, within, _KINDS[kind], dict(attributes or {}), start_time=start_ns
            )
        )

    def root(self, name: str, parent: str, attributes: Attributes) -> RecordedSpan:
        """The span of a request: in the trace of `parent`, else in a new one."""
        ids = parse(parent) or trace.INVALID_SPAN_CONTEXT
        within = trace.set_span_in_context(NonRecordingSpan(ids))
        span = self._tracer.start_span(name, within, SpanKind.SERVER, dict(attributes))
        return RecordedSpan(span)

    def middleware(self) -> Any:
        """A new middleware for an app."""
        return Middleware(self)


class _Limit:
    """A token bucket."""

    def __init__(self) -> None:
        self._tokens = float(TRACES_BURST_MAX)
        self._filled_at = time.monotonic()

    def take(self) -> bool:
        """Whether one more trace may begin. A race between threads lets a few more pass."""
        now = time.monotonic()
        gained = (now - self._filled_at) * TRACES_PER_SECOND_MAX
        self._filled_at = now
        self._tokens = min(self._tokens + gained, TRACES_BURST_MAX)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Middleware:
    """Falcon middleware: a server span for each request (semantic conventions for HTTP)."""

    def __init__(self, tracing_: Tracing) -> None:
        self._tracing = tracing_
        self._limit = _Limit()

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        if req.path in _UNTRACED or not self._is_traced(req):
            return
        attributes = {
            "http.request.method": req.method,
            "url.path": req.path,
            "url.scheme": req.scheme,
            "platform.request_id": req.context.request_id,
        }
        parent = req.env.get("HTTP_TRACEPARENT", "")
        span = self._tracing.root(req.method, parent, attributes)
        bind_contextvars(trace_id=span.trace_id)
        req.context.span = span.__enter__()

    def _is_traced(self, req: falcon.Request) -> bool:
        parent = parse(req.env.get("HTTP_TRACEPARENT", ""))
        if parent and not parent.trace_flags.sampled:
            return False
        # Limited only where a trace enters the platform; inside, the first decision holds.
        is_inside = parent and "HTTP_X_FORWARDED_FOR" not in req.env
        return bool(is_inside) or self._limit.take()

    def process_response(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        _resource: object,
        _succeeded: bool,  # noqa: FBT001
    ) -> None:
        span = req.context.get("span")
        if span is None:
            return
        route = req.uri_template
        if route:
            span.rename(f"{req.method} {route}")
            span.set({"http.route": route})
        span.set({"http.response.status_code": resp.status_code})
        bound = get_contextvars()
        span.set({name: str(bound[key]) for key, name in _FROM_LOGS.items() if key in bound})
        if resp.status_code >= 500:
            span.fail(f"HTTP {resp.status_code}")
        span.__exit__()


# Attributes that a resource has bound for its log lines.
_FROM_LOGS = {"user_id": "enduser.id", "transaction_id": "platform.transaction.id"}
