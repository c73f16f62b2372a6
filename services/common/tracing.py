"""Traces by OpenTelemetry; off unless OTEL_EXPORTER_OTLP_ENDPOINT is set.

Off, every function here is a no-op and nothing of OpenTelemetry is imported. On, the work is done
by services/common/otel.py. A trace begins with a request (`middleware`); all other spans exist only
within a trace, so untraced work costs next to nothing.

A `traceparent` (W3C Trace Context) is text, empty without a trace. It travels through the queue in
the entry's field of that name.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.common.otel import Tracing

    Kind = Literal["internal", "server", "client", "producer", "consumer"]
    Attributes = Mapping[str, str | int]

_tracing: Tracing | None = None


class Span:
    """A span, as a context manager: current within the block, and ended with it.

    This base class, used without a trace, does nothing.
    """

    traceparent: str = ""
    trace_id: str = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Ends the span; an exception that leaves the block is its error."""

    def active(self) -> Span:
        """A context manager that makes the span current and does not end it."""
        return self

    def set(self, attributes: Attributes) -> None:
        """Sets attributes."""

    def link(self, traceparent: str) -> None:
        """Links the span to an earlier one."""

    def fail(self, reason: str) -> None:
        """Marks the span as failed."""

    def end(self, failure: str = "") -> None:
        """Ends the span, as failed if there is a reason."""


NO_SPAN = Span()


def configure(service: str, endpoint: str) -> None:
    """Prepares tracing if there is an endpoint. Before the fork, so that workers share imports."""
    global _tracing  # noqa: PLW0603  one for each process
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
    """Exports the remaining spans for at most STOP_SECONDS_MAX; then drops them."""
    if _tracing:
        _tracing.stop()


def span(
    name: str,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    *,
    parent: str | None = None,
    start_ms: int | None = None,
) -> Span:
    """Starts a span as a child of the current one, or of the traceparent `parent`.

    `start_ms` is its start if that has passed, in ms since the epoch.
    """
    return _tracing.span(name, kind, attributes, parent, start_ms) if _tracing else NO_SPAN


def middleware() -> list[Any]:
    """The Falcon middleware that makes a span of each request."""
    return [_tracing.middleware()] if _tracing else []
