"""`./nixw run .#bench`: measures, prints a table, and saves the result.

Ends everything it starts, also after Ctrl-C and failure. `bench/README.md` explains each row.
"""

import argparse
import importlib
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from importlib import metadata
from pathlib import Path

import psutil

from bench import report, results
from bench.results import Row, Run
from bench.rows import FULL, MEASURES, QUICK, Bench, Measure, OutOfTimeError, log
from devtools.doctor import machine
from services.common.clock import now_ms, rfc3339
from tests import support

# No round starts later, so that the last one and the stop of the stacks fit into twenty minutes. A
# machine half as fast finishes all rows (378 s were measured on two cores).
_TOTAL_SECONDS_MAX = 1140
_CHILD_STOP_SECONDS_MAX = 30
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Each registers its rows, in the order of the table.
for _module in ("http", "drain", "latency", "start", "growth"):
    importlib.import_module(f"bench.{_module}_rows")


def _parse(args: Sequence[str]) -> argparse.Namespace:
    names = [row.name for rows, _ in MEASURES for row in rows]
    folder = Path(os.environ.get("PLATFORM_CHECKOUT") or support.ROOT) / "bench" / "results"
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="a rough run in two minutes")
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=names, default=names,
                        help=f"measure only these: {', '.join(names)}")  # fmt: skip
    parser.add_argument("--results", type=Path, default=folder,
                        help="where results are saved (bench/results of the checkout)")  # fmt: skip
    return parser.parse_args(args)


def main(args: Sequence[str]) -> int:
    """Measures; returns 0 if every row could be measured, else 1."""
    options = _parse(args)
    plan = QUICK if options.quick else FULL
    run = Run(mode=plan.mode, started_at=rfc3339(now_ms()), machine=_machine())
    began = time.monotonic()
    for number in _SIGNALS:
        signal.signal(number, _leave)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(plan, Path(folder), began + _TOTAL_SECONDS_MAX)
        bench.exit_stack.callback(_end_children)
        with bench.exit_stack:
            for rows, measure in MEASURES:
                _measure(bench, rows, measure, options.only, run)
    run.seconds = time.monotonic() - began
    before = results.previous(options.results, plan.mode)
    path = results.save(run, options.results)
    report.chart(run, path.with_suffix(".svg"))
    sys.stdout.write(report.table(run, before))
    log(f"saved {path} and its chart")
    return 1 if run.failures else 0


def _measure(
    bench: Bench, rows: Sequence[Row], measure: Measure, names: Collection[str], run: Run
) -> None:
    """Adds the named rows to the run, each as a result or a failure."""
    left = [row for row in rows if row.name in names]
    if not left:
        return
    try:
        for row, (samples, details) in zip(rows, measure(bench), strict=True):
            if row in left:
                run.results.append(row.result(samples, details))
                left.remove(row)
    except OutOfTimeError:
        run.failures |= dict.fromkeys((row.name for row in left), "no time was left")
    except Exception as error:  # noqa: BLE001  one row that fails is no reason to lose the others
        reason = f"{type(error).__name__}: {error}"
        run.failures |= dict.fromkeys((row.name for row in left), reason)
        log(f"{', '.join(row.name for row in left)} failed: {reason}")


def _leave(number: int, _frame: object) -> None:
    """Ends the started processes by SystemExit; a second Ctrl-C must not interrupt that."""
    for one in _SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    log("ending started processes")
    raise SystemExit(128 + number)


def _end_children() -> None:
    """Ends child processes that a signal interrupted before their context was entered."""
    children = psutil.Process().children()
    for child in children:
        child.terminate()
    _gone, alive = psutil.wait_procs(children, timeout=_CHILD_STOP_SECONDS_MAX)
    for child in alive:
        child.kill()


def _machine() -> dict[str, str]:
    """Cores, load and versions: figures of different machines are not comparable."""
    return {
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.machine()}",
        **{name: metadata.version(name) for name in ("falcon", "gunicorn")},
        **{found.name: found.value for found in machine.programs(os.environ)},
    }


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
