"""Connectors are added and removed by `process-compose process scale`, under load."""

from functools import partial

import httpx

from devtools.catalog import SERVICES
from tests import support
from tests.chaos.harness import PLAIN, Chaos

REPLICAS = 3
WORK_SECONDS_MAX = 30


def attempts(chaos: Chaos, number: int) -> float:
    """Attempts that a connector has finished; 0 if it does not respond."""
    url = SERVICES["psp-connector"].url(chaos.stack.port, number)
    try:
        text = support.http.get(f"{url}/metrics").text
    except httpx.TransportError:
        return 0
    lines = [line for line in text.splitlines() if line.startswith("psp_attempts_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def works(chaos: Chaos, number: int) -> None:
    support.wait_until(
        partial(attempts, chaos, number), seconds_max=WORK_SECONDS_MAX, what=f"work of {number}"
    )


def test_scaled_up_and_down(chaos: Chaos) -> None:
    """Scaled to 3, one killed, scaled to 1: work is shared, and each transaction ends once."""
    with chaos.traffic(PLAIN):
        works(chaos, 0)
        chaos.scale("psp-connector", REPLICAS)
        for number in range(REPLICAS):
            works(chaos, number)
        killed = chaos.stack.process("psp-connector-1")
        chaos.kill(killed)
        support.wait_until(
            partial(chaos.stack.restarted, "psp-connector-1", killed), seconds_max=30, what="it"
        )
        works(chaos, 1)
        first = chaos.stack.process("psp-connector-0")
        chaos.scale("psp-connector-0", 1)
        assert first.pid == chaos.stack.process("psp-connector").pid
        assert [attempts(chaos, number) for number in range(1, REPLICAS)] == [0, 0]
    chaos.check()
    logs = [chaos.events(number) for number in range(REPLICAS)]
    starts = [sum(line["event"] == "listening" for line in log) for log in logs]
    assert starts == [1, 2, 1]
    assert all(any(line["event"] == "attempt" for line in log) for log in logs)
    assert [(log[-1]["event"], log[-1]["unfinished"]) for log in logs[1:]] == [("stopped", "0")] * 2
