"""An OTLP/HTTP receiver of traces on a free loopback port."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from devtools.console.spans import by_service, decode
from devtools.console.waterfall import Span
from tests.http_service import Reply, Service, service_on


@dataclass(frozen=True)
class Receiver:
    """A receiver and what it has received."""

    service: Service

    @property
    def endpoint(self) -> str:
        return self.service.url

    @property
    def spans(self) -> list[Span]:
        assert {seen.path for seen in self.service.seen} <= {"/v1/traces"}
        requests = [ExportTraceServiceRequest.FromString(one.body) for one in self.service.seen]
        return [decode(*each) for request in requests for each in by_service(request)]


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """Receives traces during the block."""
    with service_on() as service:
        service.reply = Reply(body=b"")
        yield Receiver(service)
