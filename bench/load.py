"""The load generator wrk: its requests and its output.

Requests are built beforehand and sent in turn. wrk reads them from a file with mode 600, because
tokens must not appear in the process list.
"""

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from bench.results import MeasureError

_TIMEOUT_SECONDS = 5
_OVERTIME_SECONDS_MAX = 30
_SCRIPT = """
local requests, at = {%s}, 0
function request()
  at = at %% #requests + 1
  return requests[at]
end
function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format('\\n{"requests": %%d, "seconds": %%f, "refused": %%d, "broken": %%d, '
    .. '"p50_ms": %%f, "p99_ms": %%f}\\n', summary.requests, summary.duration / 1e6,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True)
class Load:
    """The result of one run."""

    requests: int
    seconds: float
    refused: int
    """Responses with a status of 400 or more."""
    broken: int
    """Requests without a response."""
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Responses below 400 per second."""
        return (self.requests - self.refused) / self.seconds


def parse(output: str) -> Load:
    """Parses wrk's output; raises MeasureError if a request got no response."""
    lines = [line for line in output.splitlines() if line.startswith('{"requests"')]
    if not lines:
        raise MeasureError(f"no result from wrk: {output.strip()[:300]}")
    load = Load(**json.loads(lines[-1]))
    if load.broken or not load.requests:
        raise MeasureError(f"{load.broken} requests got no response, {load.requests} got one")
    return load


def generate(
    requests: Sequence[httpx.Request], *, connections: int, seconds: float, refusals: bool = False
) -> Load:
    """Sends the requests in turn for `seconds`; each connection awaits a response first.

    Raises MeasureError if one gets no response, or is refused and `refusals` does not expect that.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:  # mode 600
        script.write(_SCRIPT % ",\n".join(map(_lua, requests)))
        script.flush()
        load = parse(_run(str(requests[0].url), script.name, connections, seconds))
    if load.refused and not refusals:
        raise MeasureError(f"{load.refused} of {load.requests} requests were refused")
    return load


def _lua(request: httpx.Request) -> str:
    """The bytes on the wire as a Lua string; ASCII is written as in JSON there."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    head = f"{request.method} {request.url.raw_path.decode()} HTTP/1.1\r\n{headers}\r\n"
    return json.dumps(head + request.content.decode("ascii"))


def _run(url: str, script: str, connections: int, seconds: float) -> str:
    """Runs wrk. It takes whole seconds, so SIGINT ends the run."""
    command = [
        "wrk", "--threads", "1", "--connections", str(connections), "--script", script,
        "--duration", f"{int(seconds) + 1}s", "--timeout", f"{_TIMEOUT_SECONDS}s", url,
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    ) as wrk:  # fmt: skip
        try:
            time.sleep(seconds)
            wrk.send_signal(signal.SIGINT)
            return wrk.communicate(timeout=_OVERTIME_SECONDS_MAX)[0]
        finally:
            wrk.kill()
