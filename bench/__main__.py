"""`./nixw run .#bench`: measures, prints a table, and keeps the result.

Ends everything it starts, also after Ctrl-C and failure. `bench/README.md` explains each row.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bench import (
    drain_rows,
    growth_rows,
    http_rows,
    kept,
    latency_rows,
    machine,
    overload_rows,
    report,
    start_rows,
)
from bench.figures import Failure, Run
from bench.leaving import nothing_behind
from bench.plan import FULL, QUICK, TOTAL_SECONDS_MAX
from bench.rows import Bench, OutOfTime, Row
from tests import support

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS: tuple[Row, ...] = (
    *http_rows.ROWS,
    *drain_rows.ROWS,
    *latency_rows.ROWS,
    *start_rows.ROWS,
    *growth_rows.ROWS,
    *overload_rows.ROWS,
)
_PROGRAMS = ("wrk", "redis-server", "caddy", "process-compose")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="a rough run in one minute")
    parser.add_argument("--only", nargs="+", metavar="ITEM", choices=names, default=names,
                        help=f"measure only these: {', '.join(names)}")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--results", type=Path, default=_results_folder(),
                        help="where results are kept (bench/results of the checkout)")  # fmt: skip
    return parser.parse_args(words)


def _results_folder() -> Path:
    return Path(os.environ.get("PLATFORM_CHECKOUT") or support.ROOT) / "bench" / "results"


def main(words: Sequence[str]) -> int:
    """Measures; returns 0 if every row could be measured, else 1."""
    options = parse(words)
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        sys.stderr.write(
            f"bench: not on PATH: {', '.join(missing)}; start it with ./nixw run .#bench\n"
        )
        return 1
    plan = QUICK if options.quick else FULL
    run = Run(mode=plan.mode, started_at=_now(), machine=machine.facts())
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        nothing_behind(),
        contextlib.ExitStack() as ending,
    ):
        bench = Bench(plan, Path(folder), _tell, began + TOTAL_SECONDS_MAX, ending)
        for row in ROWS:
            if row.name in options.only:
                _measure(bench, row, run)
    run.seconds = time.monotonic() - began
    before = kept.previous(options.results, plan.mode)
    path = kept.keep(run, options.results)
    sys.stdout.write(
        run.model_dump_json(indent=1) + "\n" if options.json else report.table(run, before)
    )
    _tell(f"saved {path} and its chart")
    return 1 if run.failures else 0


def _measure(bench: Bench, row: Row, run: Run) -> None:
    try:
        bench.check_time()
        run.results.append(row.measure(bench, row))
    except OutOfTime:
        run.failures.append(Failure(name=row.name, reason="no time was left"))
    except Exception as error:  # noqa: BLE001  one row that fails is no reason to lose the others
        reason = f"{type(error).__name__}: {error}"
        run.failures.append(Failure(name=row.name, reason=reason))
        _tell(f"{row.name} failed: {reason}")


def _now() -> str:
    return datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _tell(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
