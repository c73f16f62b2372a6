"""Runs process-compose: `python -m devtools.process_compose PROGRAM ARG...`.

A command that starts something gets the checkout's `.env`. process-compose itself would drop the
whole file if one line is invalid, and reads a second one, `.pc_env`, that could disable the socket
or preflight. Any other command gets no log file: process-compose truncates it at every command,
even `process-compose list`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from devtools.relay import relay_output
from services.common.command import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from devtools.supervisor import Supervisor

# Commands for the running stack, unless an option gives another address.
_CLIENTS = {"attach", "down", "graph", "list", "namespace", "process", "project"}
_ELSEWHERE = {"-h", "--help", "-p", "--port", "-u", "--unix-socket"}
# Commands that start something, and the number of their arguments.
_CHANGES = {
    "process start": 3,
    "process restart": 3,
    "process scale": 4,
    "namespace start": 3,
    "namespace restart": 3,
}
# process-compose closes its socket just before it ends.
_END_POLLS_MAX = 100
_END_POLL_SECONDS = 0.05
_INTERRUPTIONS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP}


def _starts(args: Sequence[str]) -> bool:
    """Whether process-compose would start processes; without a command it does `up`."""
    return not args or args[0] in {"up", "run"} or args[0].startswith("-")


def environment(args: Sequence[str], environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment of process-compose with these arguments.

    Raises:
        SystemExit: the command needs a running stack, and there is none, or it does not respond.
    """
    if _starts(args):
        from devtools import checkout, envfile  # noqa: PLC0415 - a client needs neither

        if faults := envfile.pc_env_faults(Path()):
            sys.exit(f"platform: {faults[0]}")
        # Preflight reports the faults of `.env`.
        values = envfile.read(checkout.of_stack(environ).folder / ".env").values
        return {**values, **environ, "PC_DISABLE_DOTENV": "1"}
    socket = environ.get("PC_SOCKET_PATH")
    is_client = args[0] in _CLIENTS and not _ELSEWHERE.intersection(a.split("=")[0] for a in args)
    if is_client and socket:
        from devtools.supervisor import NO_STACK, Supervisor, SupervisorError  # noqa: PLC0415

        # process-compose's own client would wait for ever for a suspended stack.
        try:
            if not Supervisor(socket).is_listening():
                sys.exit(NO_STACK)
        except SupervisorError as error:
            sys.exit(str(error))
    return {**environ, "PC_LOG_FILE": os.devnull}


def _lock_changes(environ: Mapping[str, str]) -> None:
    """Waits for restarts, and keeps `reload` from others: each would start a stopped process."""
    from devtools.supervisor import Supervisor, SupervisorError  # noqa: PLC0415

    supervisor = Supervisor(environ.get("PC_SOCKET_PATH", ""))
    # Without a lock, the change is tried all the same.
    with contextlib.suppress(SupervisorError), supervisor.lock_changes() as file:
        os.set_inheritable(os.dup(file.fileno()), True)  # until the change has ended
    # Ctrl-C would not end the change, only its lock. Go keeps an ignored signal ignored.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _change(program: str, args: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Starts, restarts or scales a process, or those of a namespace.

    Ends what process-compose leaves behind if it ends meanwhile, as after Ctrl-C in its terminal.
    """
    from devtools.supervisor import Supervisor, SupervisorError  # noqa: PLC0415

    supervisor = Supervisor(environ["PC_SOCKET_PATH"])
    outcome: str | int
    try:
        outcome = _attempt(supervisor, program, args, environ)
    except SupervisorError as error:
        outcome = str(error)
    try:
        if supervisor.has_ended():
            outcome = _end_left_behind(environ)
    except SupervisorError as error:
        outcome = str(error)
    sys.exit(outcome)


def _attempt(
    supervisor: "Supervisor", program: str, args: Sequence[str], environ: Mapping[str, str]
) -> str | int:
    """Makes the change; returns the exit code, or why it is refused."""
    if args[:2] == ["process", "restart"]:
        # Ctrl-C between stop and start would leave it stopped.
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTIONS)
        # process-compose's own has a race with that of `reload`.
        supervisor.restart(args[2])
        sys.stdout.write(f"Process {args[2]} restarted\n")
        return 0
    if args[0] == "namespace" and any(one.is_pending for one in supervisor.processes()):
        return "the stack is still starting, and process-compose would skip what waits"
    if args[:2] == ["process", "scale"]:
        states = supervisor.scalable()
        names = [one.name for one in states if args[2] in {one.name, one.service}]
        if not names:
            can = ", ".join(dict.fromkeys(one.service for one in states))
            return f"only {can} can be scaled: replicas of others would share a port"
        args = [*args[:2], names[0], args[3]]  # a replica's, once there are several
    if args[:2] != ["process", "start"]:
        _lock_changes(environ)
    return subprocess.call([program, *args], env=environ)  # noqa: S603


def _end_left_behind(environ: Mapping[str, str]) -> str:
    """Ends what was started while the stack ended; returns what has ended."""
    from devtools import processes  # noqa: PLC0415 - slow to import
    from devtools.address import state_folder  # noqa: PLC0415

    state = state_folder(environ)
    for _ in range(_END_POLLS_MAX):
        if not processes.supervisors(state):
            break
        time.sleep(_END_POLL_SECONDS)
    if Path(environ["PC_SOCKET_PATH"]).exists():  # it removes it unless it was killed
        return "process-compose was killed, and its processes work on: `platform down` ends them"
    processes.end_orphans(state)
    return "the stack has ended"


def main(program: str, args: Sequence[str]) -> None:
    """Replaces this process by process-compose."""
    environ = environment(args, os.environ)
    if _starts(args):
        relay_output()
    is_change = len(args) == _CHANGES.get(" ".join(args[:2])) and args[2][:1] != "-"
    if is_change and environ.get("PC_SOCKET_PATH"):
        _change(program, args, environ)
    stops = {"process stop", "process scale", "namespace stop"}
    if args == ["down"] or " ".join(args[:2]) in stops:
        _lock_changes(environ)
    os.execve(program, [program, *args], environ)  # noqa: S606


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
