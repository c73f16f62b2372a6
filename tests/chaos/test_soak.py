"""20,000 transactions through one stack, in parts that are each bounded: what must not grow."""

import time

import pytest

from devtools.catalog import SERVICES
from tests.chaos.harness import CAPTURES, Chaos, figures

TRANSACTIONS = 20_000
PARTS = 4
WARM_UP = 1500
# Growth allowed to a warm Python process: threads that had not run, and heap fragments that are not
# returned. A leak of 1 KB for each transaction would be 20 MB.
GROWTH_MB_MAX = 12
# Redis keeps each transaction for FINISHED_DAYS: record, index, ledger, with room to spare.
REDIS_BYTES_EACH_MAX = 3000
_MB = 1_000_000


def send(chaos: Chaos, count: int) -> float:
    """Sends transactions and waits until all are final; returns the seconds taken."""
    began = time.monotonic()
    chaos.wait_ended(chaos.send(count, (CAPTURES,)))
    return time.monotonic() - began


def memory(chaos: Chaos) -> dict[str, float]:
    """Resident megabytes of each process of the stack, including its children."""
    found = {name: chaos.stack.process(name) for name in SERVICES}
    return {
        name: sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]) / _MB
        for name, process in found.items()
    }


@pytest.fixture(scope="module")
def before(long_running: Chaos) -> dict[str, float]:
    """Memory of a warm stack, the bound at the end."""
    send(long_running, WARM_UP)
    return memory(long_running)


@pytest.mark.parametrize("count", [TRANSACTIONS // PARTS] * PARTS)
def test_nothing_leaks(long_running: Chaos, before: dict[str, float], count: int) -> None:
    """After each quarter of 20,000 transactions, memory is as before."""
    seconds = send(long_running, count)
    after = memory(long_running)
    sent = len(long_running.accepted) - WARM_UP
    figures(
        transactions=sent, a_second=round(count / seconds),
        **{name: f"{before[name]:.1f} -> {after[name]:.1f} MB" for name in after},
    )  # fmt: skip
    grown = {name: after[name] - before[name] for name in after}
    assert grown.pop("redis") * _MB / sent <= REDIS_BYTES_EACH_MAX
    assert {name: mb for name, mb in grown.items() if mb > GROWTH_MB_MAX} == {}


def test_each_transaction_is_captured_once(long_running: Chaos) -> None:
    """After the last part, each of the 20,000 is captured once, and the streams are empty."""
    assert long_running.check() == {"captured": WARM_UP + TRANSACTIONS}
