"""What the measurements share: the size of a run, the stacks and the rounds."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bench import stacks
from bench.results import Details, Row, Sample
from services.common import redis_client
from services.common.store import Client
from tests import support
from tests.stack.stack import Stack


@dataclass(frozen=True)
class Plan:
    """The size of each measurement."""

    mode: str
    rounds: int
    load_seconds: float
    """Each run of the load generator."""
    drain_jobs: int
    trial_jobs: int
    """Jobs for each job queue in the search for the fastest."""
    queues: int
    """How many of `drain_rows.QUEUES` to try."""
    sandbox_jobs: int
    latency_pairs: int
    """Transactions per round, one at a time, each next to one call at the PSP."""
    growth: int
    """Transactions in the full Redis."""
    growth_calls: int


FULL = Plan(
    mode="full", rounds=5, load_seconds=3, drain_jobs=20_000, trial_jobs=3_000, queues=9,
    sandbox_jobs=1_000, latency_pairs=40, growth=1_000_000, growth_calls=500,
)  # fmt: skip
QUICK = Plan(
    mode="quick", rounds=3, load_seconds=0.5, drain_jobs=1_500, trial_jobs=300, queues=3,
    sandbox_jobs=100, latency_pairs=10, growth=20_000, growth_calls=100,
)  # fmt: skip

Measured = Iterator[tuple[list[Sample], Details]]
Measure = Callable[["Bench"], Measured]

MEASURES: list[tuple[tuple[Row, ...], Measure]] = []


def measures(*rows: Row) -> Callable[[Measure], Measure]:
    """Registers a function that yields samples and details for each of the rows, in order."""

    def register(measure: Measure) -> Measure:
        MEASURES.append((rows, measure))
        return measure

    return register


class OutOfTimeError(Exception):
    """The time for all rows has run out."""


@dataclass
class Bench:
    """One run of the benchmark: its size, its folder, and stacks that live until it ends."""

    plan: Plan
    folder: Path
    deadline: float
    exit_stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def rounds(self) -> Iterator[int]:
        """Numbers from 1; ends early when time is up, with OutOfTimeError before the first."""
        for number in range(1, self.plan.rounds + 1):
            if time.monotonic() > self.deadline:
                if number == 1:
                    raise OutOfTimeError
                return
            yield number

    def interleaved(
        self, name: str, value: Callable[[], float], floor: Callable[[], float]
    ) -> list[Sample]:
        """Measures value and floor in turn, so that noise affects both."""
        samples: list[Sample] = []
        for number in self.rounds():
            sample = value(), floor()
            samples.append(sample)
            log(
                f"{name:<16} {number}/{self.plan.rounds}  {sample[0]:,.4g} against {sample[1]:,.4g}"
            )
        return samples

    @contextlib.contextmanager
    def redis(self, *options: str) -> Iterator[tuple[str, Client]]:
        """The URL and a client of an empty Redis with the platform's configuration."""
        port = support.free_ports(1)
        url = f"redis://127.0.0.1:{port}/0"
        with (
            support.redis_server(self.folder / f"redis-{port}", port, *options),
            contextlib.closing(redis_client.connect(url, timeout_seconds=5)) as client,
        ):
            yield url, client

    @cached_property
    def platform(self) -> Stack:
        return self._start(floor=False)

    @cached_property
    def floor(self) -> Stack:
        return self._start(floor=True)

    def _start(self, *, floor: bool) -> Stack:
        """Starts the measured stack, or that with empty apps, and stops its connector."""
        log("starting the " + ("floor: the stack with empty apps" if floor else "stack"))
        stack = self.exit_stack.enter_context(stacks.running(self.folder, floor=floor))
        stacks.supervisor(stack).stop("psp-connector")
        return stack


def log(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()
