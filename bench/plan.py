"""The size of a run: seven minutes on two fast cores, or one with --quick."""

from __future__ import annotations

from dataclasses import dataclass

CONNECTIONS = 16
# No round starts later, so that the last one and the stop of the stacks fit into twenty minutes. A
# machine half as fast finishes all rows (378 s were measured on two cores).
TOTAL_SECONDS_MAX = 1160


@dataclass(frozen=True)
class Plan:
    """The size of each measurement."""

    mode: str
    rounds: int
    load_seconds: float
    """Each run of the load generator."""
    login_seconds: float
    drain_jobs: int
    trial_jobs: int
    """Jobs for each job queue in the search for the fastest."""
    queues: tuple[str, ...]
    """The job queues to try; all if empty."""
    sandbox_jobs: int
    latency_pairs: int
    """Transactions per round, one at a time, each next to one call at the PSP."""
    start_rounds: int
    idle_seconds: float
    """Idle time of a fresh stack before its memory is read."""
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
