"""The OTLP/HTTP receiver: POST /v1/traces (https://opentelemetry.io/docs/specs/otlp/#otlphttp)."""

import asyncio
import gzip
import io
import sqlite3
import zlib

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from devtools.console.spans import SpanStore

PROTOBUF = "application/x-protobuf"
# An exporter sends 512 spans at a time, about 300 KiB.
BODY_BYTES_MAX = 4 * 1024 * 1024
# Requests stored concurrently; further ones are refused, and exporters repeat them.
STORING_MAX = 4


def routes(store: SpanStore) -> list[Route]:
    """The routes, for the console's app."""
    storing = asyncio.Semaphore(STORING_MAX)

    async def receive(request: Request) -> Response:
        if storing.locked():
            raise HTTPException(503, "busy", {"Retry-After": "1"})
        try:
            body = await _body(request)
            async with storing:
                await asyncio.to_thread(
                    lambda: store.add(ExportTraceServiceRequest.FromString(body))
                )
        except ClientDisconnect:  # e.g. killed while sending
            raise HTTPException(400, "request body truncated") from None
        except DecodeError:
            raise HTTPException(400, "not an ExportTraceServiceRequest") from None
        except sqlite3.Error:
            raise HTTPException(
                503, "cannot write to the span store", {"Retry-After": "5"}
            ) from None
        return Response(ExportTraceServiceResponse().SerializeToString(), media_type=PROTOBUF)

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "pass"})

    return [
        Route("/v1/traces", receive, methods=["POST"]),
        Route("/health", health),
    ]


async def _body(request: Request) -> bytes:
    # A web page needs a CORS preflight for this type, which is never granted.
    if request.headers.get("content-type", "").partition(";")[0].strip() != PROTOBUF:
        raise HTTPException(415, f"send {PROTOBUF}")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding not in {"identity", "gzip"}:
        raise HTTPException(415, "unsupported Content-Encoding: use identity or gzip")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        _check_size(body)
    if encoding == "gzip":
        try:
            body = bytearray(gzip.GzipFile(fileobj=io.BytesIO(body)).read(BODY_BYTES_MAX + 1))
        except (OSError, EOFError, zlib.error):
            raise HTTPException(400, "invalid or truncated gzip body") from None
        _check_size(body)
    return bytes(body)


def _check_size(body: bytearray) -> None:
    if len(body) > BODY_BYTES_MAX:
        raise HTTPException(413, f"more than {BODY_BYTES_MAX} bytes")
