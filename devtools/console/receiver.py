"""The OTLP/HTTP receiver, and the API that reads traces.

POST /v1/traces                  https://opentelemetry.io/docs/specs/otlp/#otlphttp
GET  /api/traces/<id>            of a transaction
GET  /health
"""

import asyncio
import gzip
import io
import re
import sqlite3
import zlib
from dataclasses import asdict

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
from devtools.console.waterfall import Span

PROTOBUF = "application/x-protobuf"
# An exporter sends 512 spans at a time, some 300 KiB.
BODY_BYTES_MAX = 4 * 1024 * 1024
# Requests stored concurrently; further ones are refused, and exporters repeat them.
STORING_MAX = 4
TRANSACTION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


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
            raise HTTPException(400, "cut off") from None
        except DecodeError:
            raise HTTPException(400, "not an ExportTraceServiceRequest") from None
        except sqlite3.Error:
            raise HTTPException(503, "cannot write the store", {"Retry-After": "5"}) from None
        return Response(ExportTraceServiceResponse().SerializeToString(), media_type=PROTOBUF)

    async def read(request: Request) -> Response:
        id_ = request.path_params["id"]
        if not TRANSACTION_ID.fullmatch(id_):
            raise HTTPException(400, "not a transaction's id")
        spans = await asyncio.to_thread(store.of_transaction, id_)
        return JSONResponse(as_document(id_, spans))

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "pass"})

    return [
        Route("/v1/traces", receive, methods=["POST"]),
        Route("/api/traces/{id}", read),
        Route("/health", health),
    ]


def as_document(id_: str, spans: list[Span]) -> dict[str, object]:
    """The response of `/api/traces/<id>`."""
    return {"id": id_, "spans": [asdict(span) for span in spans]}


async def _body(request: Request) -> bytes:
    # A web page needs a CORS preflight for this type, which is never granted.
    if request.headers.get("content-type", "").partition(";")[0].strip() != PROTOBUF:
        raise HTTPException(415, f"send {PROTOBUF}")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding not in {"identity", "gzip"}:
        raise HTTPException(415, "send it plain or with gzip")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        _check_size(body)
    if encoding == "gzip":
        try:
            body = bytearray(gzip.GzipFile(fileobj=io.BytesIO(body)).read(BODY_BYTES_MAX + 1))
        except (OSError, EOFError, zlib.error):
            raise HTTPException(400, "not gzip, or cut off") from None
        _check_size(body)
    return bytes(body)


def _check_size(body: bytearray) -> None:
    if len(body) > BODY_BYTES_MAX:
        raise HTTPException(413, f"more than {BODY_BYTES_MAX} bytes")
