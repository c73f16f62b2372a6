"""Runs process-compose: `python -m devtools.process_compose PROGRAM ARG...`.

A command that starts something gets the checkout's `.env`. process-compose itself would drop the
whole file if one line is invalid, and reads a second one, `.pc_env`, that could disable the socket
or preflight. Any other command gets no log file: process-compose truncates it at every command,
even `process-compose list`.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from devtools.relay import relay_output
from services.common.command import EXIT_INTERRUPTED

# Commands for the running stack, unless an option gives another address.
_CLIENTS = {"attach", "down", "graph", "list", "namespace", "process", "project"}
_ELSEWHERE = {"-h", "--help", "-p", "--port", "-u", "--unix-socket"}
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

    with contextlib.suppress(SupervisorError):  # the change is tried all the same
        Supervisor(environ.get("PC_SOCKET_PATH", "")).lock_changes()


def _restart(environ: Mapping[str, str], name: str) -> NoReturn:
    """Restarts a process without the race of process-compose's own restart with `reload`'s."""
    from devtools.supervisor import Supervisor, SupervisorError  # noqa: PLC0415

    # Ctrl-C between stop and start would leave it stopped.
    signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTIONS)
    try:
        Supervisor(environ.get("PC_SOCKET_PATH", "")).restart(name)
    except SupervisorError as error:
        sys.exit(str(error))
    sys.stdout.write(f"Process {name} restarted\n")
    sys.exit()


def main(program: str, args: Sequence[str]) -> None:
    """Replaces this process by process-compose."""
    environ = environment(args, os.environ)
    if _starts(args):
        relay_output()
    is_restart = args[:2] == ["process", "restart"] and len(args) == 3 and args[2][:1] != "-"
    if args == ["down"] or args[:2] in (["process", "stop"], ["process", "scale"]):
        _lock_changes(environ)
        # Ctrl-C would not end the change, only its lock. Go keeps an ignored signal ignored.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    if is_restart:
        _restart(environ, args[2])
    os.execve(program, [program, *args], environ)  # noqa: S606


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
