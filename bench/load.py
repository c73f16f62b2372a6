"""The load generator wrk: its requests and its output.

Requests are built beforehand and sent in turn. wrk reads them from a file with mode 600, because
tokens must not appear in the process list.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import MeasureError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TIMEOUT_SECONDS = 5
_OVERTIME_SECONDS_MAX = 30


@dataclass(frozen=True)
class Request:
    """One request, without the address of the server."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None

    def lua(self) -> str:
        """The Lua call that formats it for wrk."""
        headers = ", ".join(f"[ {_quoted(k)} ] = {_quoted(v)}" for k, v in self.headers.items())
        body = "nil" if self.body is None else _quoted(self.body)
        return f"wrk.format({_quoted(self.method)}, {_quoted(self.path)}, {{{headers}}}, {body})"


def _quoted(text: str) -> str:
    if "]==]" in text or "\n" in text:
        raise ValueError(text)
    return f"[==[{text}]==]"


_SCRIPT = """
local requests, at = {}, 0
function init(_)
  %s
end
function request()
  at = at %% #requests + 1
  return requests[at]
end
function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format('\\n{"requests": %%d, "microseconds": %%d, "refused": %%d, "broken": %%d, '
    .. '"p50_us": %%d, "p99_us": %%d, "max_us": %%d}\\n', summary.requests, summary.duration,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
"""


@dataclass(frozen=True)
class Load:
    """The result of one run."""

    requests: int
    seconds: float
    refused: int
    """Responses with a status of 400 or more."""
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Responses below 400 per second."""
        return (self.requests - self.refused) / self.seconds

    @property
    def refusal_rate(self) -> float:
        """Refusals per second."""
        return self.refused / self.seconds


def parse(output: str) -> Load:
    """Parses wrk's output.

    Raises:
        MeasureError: no result, or requests without a response.
    """
    lines = [line for line in output.splitlines() if line.startswith('{"requests"')]
    if not lines:
        raise MeasureError(f"no result from wrk: {output.strip()[:300]}")
    told = json.loads(lines[-1])
    if told["broken"]:
        raise MeasureError(f"{told['broken']} of {told['requests']} requests got no response")
    if not told["requests"]:
        raise MeasureError("no request got a response")
    return Load(
        requests=told["requests"],
        seconds=told["microseconds"] / 1e6,
        refused=told["refused"],
        p50_ms=told["p50_us"] / 1000,
        p99_ms=told["p99_us"] / 1000,
    )


def generate(
    url: str,
    requests: Sequence[Request],
    *,
    connections: int,
    seconds: float,
    refusals: bool = False,
) -> Load:
    """Sends the requests in turn for so long; each connection sends the next after a response.

    wrk takes whole seconds; a shorter run is ended with SIGINT.

    Raises:
        MeasureError: a request got no response, or was refused and `refusals` does not expect that.
    """
    script = _SCRIPT % "\n  ".join(f"requests[#requests + 1] = {r.lua()}" for r in requests)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:  # mode 600
        file.write(script)
        file.flush()
        load = parse(_run(url, Path(file.name), connections, seconds))
    if load.refused and not refusals:
        raise MeasureError(f"{load.refused} of {load.requests} requests were refused")
    return load


def _run(url: str, script: Path, connections: int, seconds: float) -> str:
    command = [
        "wrk", "--threads", "1", "--connections", str(connections), "--script", str(script),
        "--duration", f"{int(seconds) + 1}s", "--timeout", f"{_TIMEOUT_SECONDS}s", url,
    ]  # fmt: skip
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.send_signal(signal.SIGINT)
        return process.communicate(timeout=_OVERTIME_SECONDS_MAX)[0]
    finally:
        process.kill()
        process.wait()
