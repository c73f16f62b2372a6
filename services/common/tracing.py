"""Traces by OpenTelemetry; off unless OTEL_EXPORTER_OTLP_ENDPOINT is set.

Off, every span is INVALID_SPAN, which does nothing, and only OpenTelemetry's API is imported. On,
services/common/otel.py makes and exports them. A trace begins with a request; all other spans exist
only within a trace, so untraced work costs next to nothing.

A `traceparent` (W3C Trace Context) is text, empty without a trace. Queue entries have it, too.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from services.common.otel import Tracing

_tracing: Tracing | None = None
_redacted: Callable[[str], str] = str
_UNCHANGED = contextlib.nullcontext()
_W3C = TraceContextTextMapPropagator()
# Probes and scrapers request these every few seconds.
PROBED = frozenset({"/health", "/metrics"})


def configure(service: str, endpoint: str, redacted: Callable[[str], str] = str) -> None:
    """Prepares tracing if there is an endpoint. Before the fork, so that workers share imports.

    `redacted` is applied to the text of each exception.
    """
    global _tracing, _redacted  # noqa: PLW0603  one for each process
    _redacted = redacted
    # See services/__init__.py; the SDK needs the module hidden from redis-py.
    if endpoint:
        sys.modules.pop("opentelemetry.metrics", None)
        from services.common.otel import Tracing  # noqa: PLC0415

        _tracing = Tracing(service, endpoint)


def start() -> None:
    """Starts the exporter's thread; call in the process that makes the spans."""
    if _tracing:
        _tracing.start()


def stop() -> None:
    """Exports the remaining spans for at most `otel.STOP_SECONDS_MAX`; then drops them."""
    if _tracing:
        _tracing.stop()


def middleware() -> list[Any]:
    """The Falcon middleware that makes a span of each request."""
    return [_tracing] if _tracing else []


def span(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, str | int] | None = None,
    *,
    parent: str | None = None,
    start_ms: int | None = None,
) -> Span:
    """Starts a span as a child of the current one, or of the traceparent `parent`.

    `start_ms`, in ms since the epoch, sets an earlier start; a later one counts as now.
    """
    if _tracing is None:
        return INVALID_SPAN
    within = None if parent is None else extract(parent)
    ids = trace.get_current_span(within).get_span_context()
    if not ids.is_valid or not ids.trace_flags.sampled:
        return INVALID_SPAN
    start_ns = None if start_ms is None else min(start_ms * 1_000_000, time.time_ns())
    return _tracing.tracer.start_span(name, within, kind, attributes, start_time=start_ns)


def use(span: Span, *, end: bool = True) -> AbstractContextManager[object]:
    """Makes a span current in the block, with an exception as its error; ends it if `end`."""
    if span is INVALID_SPAN:
        return _UNCHANGED
    return _using(span, end_on_exit=end)


@contextlib.contextmanager
def _using(span: Span, *, end_on_exit: bool) -> Iterator[None]:
    with trace.use_span(span, end_on_exit, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except Exception as error:
            failure = _redacted(f"{type(error).__name__}: {error}")
            span.set_status(StatusCode.ERROR, failure)
            raise


def end(span: Span, failure: str = "") -> None:
    """Ends a span, as failed if there is a reason."""
    if failure:
        span.set_status(StatusCode.ERROR, failure)
    span.end()


def trace_id(span: Span) -> str:
    """The id of the span's trace, for log lines; empty without one."""
    return traceparent(span)[3:35]


def traceparent(span: Span) -> str:
    """The traceparent of the spans within this one."""
    ids = span.get_span_context()
    return f"00-{ids.trace_id:032x}-{ids.span_id:016x}-01" if ids.is_valid else ""


def extract(traceparent: str) -> Context:
    """The context of the span that a traceparent names; empty if it is malformed."""
    return _W3C.extract({"traceparent": traceparent})


def link(span: Span, traceparent: str) -> None:
    """Links a span to that of an earlier traceparent, unless that is empty."""
    if traceparent:
        span.add_link(trace.get_current_span(extract(traceparent)).get_span_context())
