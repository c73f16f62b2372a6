"""How much is measured: all of it in ten minutes, or a look in one."""

from __future__ import annotations

from dataclasses import dataclass

CONNECTIONS = 16
# No round begins later than this; the last one, and ending the stacks, fit into ten minutes.
TOTAL_SECONDS_MAX = 560


@dataclass(frozen=True)
class Plan:
    """The size of everything."""

    mode: str
    rounds: int
    load_seconds: float
    """Each run of the load generator."""
    login_seconds: float
    drain_jobs: int
    trial_jobs: int
    """For finding the best job queue, each is given so many."""
    queues: tuple[str, ...]
    """Those job queues alone are tried; all when it is empty."""
    sandbox_jobs: int
    latency_pairs: int
    """Transactions of a round, one at a time, each beside one call at the PSP."""
    start_rounds: int
    idle_seconds: float
    """How long a fresh stack rests before its memory is read."""
    growth_small: int
    growth_large: int
    growth_calls: int


FULL = Plan(
    mode="full",
    rounds=5,
    load_seconds=3,
    login_seconds=2,
    drain_jobs=20_000,
    trial_jobs=3_000,
    queues=(),
    sandbox_jobs=1_000,
    latency_pairs=40,
    start_rounds=5,
    idle_seconds=2,
    growth_small=1_000,
    growth_large=1_000_000,
    growth_calls=500,
)
QUICK = Plan(
    mode="quick",
    rounds=3,
    load_seconds=0.5,
    login_seconds=0.5,
    drain_jobs=1_500,
    trial_jobs=300,
    # The fastest two of every full run so far.
    queues=("dramatiq", "taskiq"),
    sandbox_jobs=100,
    latency_pairs=10,
    start_rounds=1,
    idle_seconds=1,
    growth_small=1_000,
    growth_large=20_000,
    growth_calls=100,
)
