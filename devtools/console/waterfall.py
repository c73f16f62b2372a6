"""A payment's spans as the rows of a waterfall: children below their parents, with offsets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# Deeper spans, as in damaged data with a cycle, appear at this depth.
DEPTH_MAX = 12
_NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class Span:
    """A span; ids are in hexadecimal, times in nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    is_error: bool
    attributes: dict[str, Any]
    links: tuple[str, ...] = ()
    """The trace ids of the spans that this one is linked to."""


@dataclass(frozen=True)
class Row:
    """A span, its depth in the trace and its position in time."""

    span: Span
    depth: int
    offset_ms: float
    """From the start of the first span of all."""
    ms: float

    def __str__(self) -> str:
        """Its name and error, if any."""
        reason = self.span.attributes.get("status") or self.span.attributes.get("error.type")
        return f"{self.span.name}: {reason or 'error'}" if self.span.is_error else self.span.name


def rows(spans: Sequence[Span]) -> list[Row]:
    """The rows from top to bottom; traces are ordered by their start."""
    ordered = sorted(spans, key=lambda span: (span.start_ns, -span.end_ns))
    ids = {(span.trace_id, span.span_id) for span in ordered}
    children: dict[tuple[str, str], list[Span]] = {}
    for span in ordered:
        parent = (span.trace_id, span.parent_id)
        children.setdefault(parent if parent in ids else (span.trace_id, ""), []).append(span)

    def below(parent: tuple[str, str], depth: int) -> Iterator[Row]:
        for span in children.pop(parent, []):
            offset_ms = (span.start_ns - ordered[0].start_ns) / _NS_PER_MS
            ms = (span.end_ns - span.start_ns) / _NS_PER_MS
            yield Row(span, min(depth, DEPTH_MAX), offset_ms, ms)
            yield from below((span.trace_id, span.span_id), depth + 1)

    traces = dict.fromkeys(span.trace_id for span in ordered)
    return [row for trace_id in traces for row in below((trace_id, ""), 0)]
