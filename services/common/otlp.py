"""Sends spans to a receiver; imported only when tracing is on."""

from __future__ import annotations

import contextlib
import http.client
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.util.re import parse_env_headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

_HTTP_SECONDS_MAX = 2.0
_RESPONSE_BYTES_MAX = 65_536

_log = structlog.get_logger()


class Exporter(SpanExporter):
    """Sends spans by OTLP over HTTP, each batch once.

    The SDK's own exporter imports requests (5 MB, 40 ms in each process), tries a batch for 10 s,
    logs each failure, and sends to the loopback through the user's proxy.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint + "/v1/traces")
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=_HTTP_SECONDS_MAX)
        self._path = parts.path
        given = parse_env_headers(os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", ""), liberal=True)
        self._headers = {"Content-Type": "application/x-protobuf", **given}
        self._works = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            reason = self._send(encode_spans(spans).SerializeToString())
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a header
            self._connection.close()
            reason = type(error).__name__
        if reason and self._works:
            _log.warning("traces cannot be exported", reason=reason)
        elif not reason and not self._works:
            _log.info("traces are exported again")
        self._works = not reason
        return SpanExportResult.FAILURE if reason else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._connection.close()

    def _send(self, body: bytes) -> str:
        """Sends a batch; returns the reason if it was refused, else an empty text."""
        # The receiver may have closed the connection while it was idle.
        with contextlib.suppress(ConnectionError, http.client.BadStatusLine):
            return self._post(body)
        self._connection.close()
        return self._post(body)

    def _post(self, body: bytes) -> str:
        self._connection.request("POST", self._path, body, self._headers)
        response = self._connection.getresponse()
        response.read(_RESPONSE_BYTES_MAX)
        if not response.isclosed():  # longer than the limit
            self._connection.close()
        return "" if response.status < 300 else f"HTTP {response.status}"
