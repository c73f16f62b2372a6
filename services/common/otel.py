"""The half of services/common/tracing.py that needs the SDK; imported only when tracing is on."""

import http.client
import logging
import os
import threading
import time
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import falcon
import structlog
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from structlog.contextvars import bind_contextvars, get_contextvars

from services.common import tracing

# A span costs about 60 us of CPU time here and as much in the receiver, and a payment has eight:
# tracing all would halve the throughput. Each process starts at most this many traces a second;
# other requests are not traced.
TRACES_PER_SECOND_MAX = 50
# Short, so that a trace appears while its payment is being watched.
_EXPORT_SECONDS = 0.5
# Beyond this many unsent spans, new ones replace the oldest.
_QUEUED_MAX = 4096
_BATCH_MAX = 512
# Within the second that gunicorn gives its workers to stop.
STOP_SECONDS_MAX = 0.4
_HTTP_SECONDS_MAX = 2.0
_RESPONSE_BYTES_MAX = 65_536

# Attributes that a resource has bound for its log lines.
_FROM_LOGS = {"user_id": "enduser.id", "transaction_id": "platform.transaction.id"}

_log = structlog.get_logger()


class Tracing:
    """The tracer of this process, and the Falcon middleware that makes a span of each request."""

    def __init__(self, service: str, endpoint: str, processor: SpanProcessor | None = None) -> None:
        # Includes OTEL_RESOURCE_ATTRIBUTES.
        resource = OTELResourceDetector().detect().merge(Resource({"service.name": service}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.tracer = self._provider.get_tracer("platform")
        self._endpoint = endpoint
        self._second = self._count = 0
        if processor:
            self._provider.add_span_processor(processor)
        # OpenTelemetry's own messages repeat with each batch; `Exporter` logs an outage once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def start(self) -> None:
        self._provider.add_span_processor(
            BatchSpanProcessor(
                Exporter(self._endpoint),
                max_queue_size=_QUEUED_MAX,
                schedule_delay_millis=_EXPORT_SECONDS * 1000,
                max_export_batch_size=_BATCH_MAX,
            )
        )

    def stop(self) -> None:
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(STOP_SECONDS_MAX)

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        parent = tracing.extract(req.env.get("HTTP_TRACEPARENT", ""))
        if req.path in tracing.PROBED or not self._is_traced(req, parent):
            return
        attributes = {
            "http.request.method": req.method,
            "url.path": req.context.path,
            "url.scheme": req.scheme,
            "platform.request_id": req.context.request_id,
        }
        span = self.tracer.start_span(req.method, parent, SpanKind.SERVER, attributes)
        bind_contextvars(trace_id=tracing.trace_id(span))
        req.context.span = span
        req.context.outer = context.attach(trace.set_span_in_context(span))

    def _is_traced(self, req: falcon.Request, parent: Context) -> bool:
        ids = trace.get_current_span(parent).get_span_context()
        if ids.is_valid and not ids.trace_flags.sampled:
            return False
        # Limited only where a trace enters the platform; inside, the first decision holds.
        is_inside = ids.is_valid and "HTTP_X_FORWARDED_FOR" not in req.env
        return is_inside or self._may_begin()

    def _may_begin(self) -> bool:
        """Counts the traces of the current second; a race between threads lets a few more pass."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return self._count <= TRACES_PER_SECOND_MAX

    def process_response(self, req: falcon.Request, resp: falcon.Response, *_: Any) -> None:
        span = req.context.get("span")
        if span is None:
            return
        if route := req.uri_template:
            span.update_name(f"{req.method} {route}")
            span.set_attribute("http.route", route)
        bound = get_contextvars()
        span.set_attributes(
            {name: str(bound[key]) for key, name in _FROM_LOGS.items() if key in bound}
            | {"http.response.status_code": resp.status_code}
        )
        if resp.status_code >= 500:
            span.set_status(StatusCode.ERROR, f"HTTP {resp.status_code}")
        context.detach(req.context.outer)
        span.end()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any) -> None:
        """None, so that OTEL_EXPORTER_OTLP_HEADERS go to the endpoint only."""


class Exporter(SpanExporter):
    """Sends spans by OTLP over HTTP, each batch once.

    The SDK's own exporter imports requests (5 MB, 40 ms in each process), tries a batch for 10 s,
    logs each failure, and sends to the loopback through the user's proxy.
    """

    def __init__(self, endpoint: str) -> None:
        self._url = endpoint + "/v1/traces"
        self._headers = {"Content-Type": "application/x-protobuf"}
        # Decoded as by Caddy's exporter. OpenTelemetry's parser for Python drops a value with `;`,
        # and does not decode one with a space.
        for header in filter(None, os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(",")):
            name, _, value = header.partition("=")
            self._headers[name.strip()] = unquote(value).strip()
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects).open
        self._works = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        body = encode_spans(spans).SerializeToString()
        request = urllib.request.Request(self._url, body, self._headers)  # noqa: S310  from settings
        reason = ""
        try:
            with self._open(request, timeout=_HTTP_SECONDS_MAX) as response:
                response.read(_RESPONSE_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            reason = f"{type(error).__name__}: {error}"
        if reason and self._works:
            _log.warning("traces cannot be exported", reason=reason)
        elif not reason and not self._works:
            _log.info("traces are exported again")
        self._works = not reason
        return SpanExportResult.FAILURE if reason else SpanExportResult.SUCCESS
