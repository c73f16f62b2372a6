"""The size of a run: ten minutes on two fast cores, or two with --quick."""

from dataclasses import dataclass

CONNECTIONS = 16
# No round starts later, so that the last one and the stop of the stacks fit into twenty minutes. A
# machine half as fast finishes all rows (378 s were measured on two cores).
TOTAL_SECONDS_MAX = 1140


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
