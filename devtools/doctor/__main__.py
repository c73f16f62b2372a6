"""`doctor`: checks everything the stack needs, whether it is running or not.

Read-only. Exit code 0 without faults, else 1; warnings are not faults.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from devtools import arguments, environment, preflight, processes
from devtools.address import DEFAULT_PORT, AddressError, clashes, is_cluster, running_port
from devtools.checkout import Checkout, current
from devtools.doctor import findings, machine
from devtools.doctor.findings import Finding, Status
from devtools.doctor.stack import Running
from devtools.locate import access_fault
from devtools.new import unsynced
from devtools.settings import FAULTS, OTHERS, SETTINGS, dotenv_faults, readers, warnings
from devtools.supervisor import Supervisor, SupervisorError
from devtools.terminal import Output
from services.common.command import run_main
from services.common.settings import masked

Probe = Callable[[], list[Finding]]

# Probes have their own timeouts; this one covers calls without any, such as a hung network disk.
_PROBES_SECONDS_MAX = 20.0
_REMEDY = "correct it where it is set: in the shell or in .env"
_EPILOG = """\
Read-only. X marks a fault, ! a warning; -> shows the remedy.

example:
  $ doctor
  ...
  X core-api       8002  not listening
      -> see .state/logs/core-api.log; platform process start core-api
  faults (X): 1, warnings (!): 0

environment:
  All settings of the stack; the report shows the origin of each.

exit codes:
  0  no fault; there may be warnings
  1  at least one fault
  2  wrong usage
"""


def examine(environ: Mapping[str, str]) -> list[Finding]:
    """All findings in the order of the report."""
    checkout = current(environ)
    with _without_changes(checkout):
        # Without access, each probe of the stack would fail in its own way.
        stack = {} if access_fault(checkout.state) else _probes_of_stack(checkout)
        probes: dict[str, Probe] = {
            "programs": lambda: machine.programs(environ),
            **stack,
            "state": lambda: machine.state(checkout) + machine.dotenv(checkout),
            "machine": lambda: machine.disk(checkout) + machine.clock(checkout),
        }
        return run(probes)


@contextlib.contextmanager
def _without_changes(checkout: Checkout) -> Iterator[None]:
    """Waits for restarts: between its stop and its start, a process looks like a fault.

    Others wait meanwhile, so Ctrl-Z takes effect only afterwards.
    """
    socket = processes.running_environ(checkout.state).get("PC_SOCKET_PATH", "")
    with contextlib.ExitStack() as afterwards:
        afterwards.callback(signal.pthread_sigmask, signal.SIG_UNBLOCK, {signal.SIGTSTP})
        if Path(socket).is_socket():
            with contextlib.suppress(SupervisorError):  # examined all the same
                afterwards.enter_context(Supervisor(socket).lock_changes())
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
        yield


def _probes_of_stack(checkout: Checkout) -> dict[str, Probe]:
    try:
        first, faults = running_port(checkout.merged), []
    except AddressError as error:
        first, faults = DEFAULT_PORT, [str(error)]
    running = Running(checkout, first)
    moved = [] if faults else running.moved()

    def of_files() -> list[Finding]:
        lines = clashes(first, checkout.merged) + unsynced.faults()
        return [Finding(line, "", "fault") for line in lines]

    def lost_logs() -> list[Finding]:
        return machine.logs(checkout, running.listed.values())

    probes: dict[str, Probe] = {
        "ports": lambda: of_files() + moved + running.ports() + running.left_behind(),
        "health": lambda: running.health() + running.psp() + running.changed() + lost_logs(),
        "redis": running.redis,
    }
    if unreachable := running.unreachable():
        probes = {"health": lambda: unreachable}
    return {
        **probes,
        "settings": lambda: settings(checkout, first, faults),
    }


def run(probes: Mapping[str, Probe], seconds_max: float = _PROBES_SECONDS_MAX) -> list[Finding]:
    """Runs the probes of all sections concurrently; one that fails or hangs becomes a fault."""
    done: dict[str, list[Finding]] = {}

    def attempt(section: str, probe: Probe) -> None:
        try:
            done[section] = probe()
        except Exception as error:  # noqa: BLE001 - reported below; the other probes continue
            message = f"{type(error).__name__}: {error}"
            done[section] = [Finding("probe", "failed", "fault", message, "please report it")]

    deadline = time.monotonic() + seconds_max
    threads = [threading.Thread(target=attempt, args=item, daemon=True) for item in probes.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    hangs = [Finding("probe", "timed out", "fault", f"no result within {seconds_max:.0f} s")]
    return [
        replace(finding, section=section)
        for section in probes
        for finding in done.get(section, hangs)
    ]


def settings(checkout: Checkout, first_port: int, faults: Sequence[str] = ()) -> list[Finding]:
    """Every setting with its origin, broken code, `faults`, those of the settings, warnings."""
    further = dotenv_faults(checkout) + preflight.wrong_settings(
        first_port, checkout.state, checkout.merged
    )
    given = {**checkout.dotenv.values, **checkout.environ}
    further += preflight.wrong_cluster(given, with_cluster=is_cluster(checkout.merged))
    return [
        *_of_stack(checkout, first_port),
        *_of_services(checkout, first_port),
        *(Finding(fault, "", "fault", "", "correct that file") for fault in FAULTS),
        *(Finding(fault, "", "fault", "", _REMEDY) for fault in (*faults, *further)),
        *(Finding(warning, "", "warning") for warning in warnings(checkout)),
    ]


def _of_stack(checkout: Checkout, first_port: int) -> list[Finding]:
    """The settings that are in no settings class."""
    last = "the last start" if (checkout.state / "environment").exists() else "default"
    secret = {"MERCHANT_PASSWORD": "<secret>"}
    if url := checkout.merged.get("PLATFORM_URL"):
        secret["PLATFORM_URL"] = masked(url)
    defaults = {name: default for name, (_, default, _) in OTHERS.items()}
    values = {**defaults, **checkout.merged, **secret, "PLATFORM_PORT": str(first_port)}
    origins = {name: checkout.origin(name) for name in OTHERS}
    if not checkout.merged.get("PLATFORM_PORT"):
        origins["PLATFORM_PORT"] = last
    return [_setting(name, values[name], origin, "stack") for name, origin in origins.items()]


def _of_services(checkout: Checkout, first_port: int) -> list[Finding]:
    """The services' settings at the next start; one for each distinct value."""
    services_by_setting: dict[tuple[str, str, str], list[str]] = {}
    for service, settings in SETTINGS.items():
        stack = environment.environment(service, first_port, checkout.state, checkout.merged)
        for setting in settings.explain({**checkout.origins, "stack": stack}):
            services_by_setting.setdefault(setting, []).append(service)
    return [
        _setting(*setting, readers(services))
        for setting, services in services_by_setting.items()
        if setting[0] != "HTTP_PORT"  # in the section `ports`
    ]


def _setting(name: str, value: str, origin: str, readers: str) -> Finding:
    status: Status = "ok" if origin in {"default", "stack", "not set"} else "note"
    return Finding(name, value or "-", status, f"{origin} [{readers}]")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = arguments.Parser(
        "doctor",
        "Checks everything that can keep the stack from working, running or not.",
        _EPILOG,
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document of a stable schema"
    )
    return parser


def main(argv: Sequence[str], environ: Mapping[str, str], out: TextIO) -> int:
    """Prints the report; returns the exit code."""
    options = parser().parse_args(argv)
    results = examine(environ)
    if options.json:
        out.write(findings.as_json(results))
    else:
        findings.print_text(results, Output(out, environ))
    return 1 if findings.count(results, "fault") else 0


if __name__ == "__main__":
    sys.exit(run_main(lambda: main(sys.argv[1:], os.environ, sys.stdout)))
