"""`platform`: starts, shows, stops and resets the stack of this checkout.

Its commands import what they need, so that `--help` and process-compose's own commands are quick.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from devtools import locate
from services.common.command import run_main

_HELP = """\
usage: platform [COMMAND] [ARGUMENT…]      the stack of this checkout

  up                  start it in the foreground: process-compose's screen at a terminal
  up --no-console     start it without the console
  up --cluster        start it with a Redis Cluster of six nodes instead of one Redis; other users
                      of the machine can join it
  up -D               start it in the background, and wait until it is healthy
  status              show each process with its port and health
  down                stop it
  reset               stop it and delete transactions, points, logs and secrets, after asking
  run smoke           send payments through it and check the responses
  attach              open process-compose's screen on a running stack
  process restart X   restart one process; also stop and start
  process scale psp-connector 2
                      two connectors

examples:
  platform up -D && merchant pay 1250 USD --as alice
  PLATFORM_PORT=auto platform up -D     for a second checkout on this machine
  platform process restart core-api
  platform reset --yes                  without asking

Commands without `platform`: merchant, logs, deadletters, doctor; each has --help. Anything else
goes to process-compose, whose help is `process-compose --help`.
"""
_HELP_OPTIONS = {"-h", "--help"}


def main(args: Sequence[str]) -> int:
    """Runs the command in the checkout; returns its exit code.

    Raises:
        locate.LocateError: there is none, or it cannot be used.
    """
    try:
        os.environ.update(locate.variables(os.environ, Path.cwd()))
        os.chdir(os.environ["PLATFORM_CHECKOUT"])
    except OSError as error:
        _refuse(str(error))
    return _run(args or ["up"])


def _run(args: Sequence[str]) -> int:
    command, more = args[0], args[1:]
    if command in {*_HELP_OPTIONS, "help"} or (
        command in {"down", "status"} and _HELP_OPTIONS.intersection(more[:1])
    ):
        sys.stdout.write(_HELP)
        return 0
    if command == "run" and _is_running():
        return _run_beside(more)
    if command in {"up", "run"} or command.startswith("-"):
        return _start(args)
    if command == "reset":
        return _reset(more)
    if command in {"down", "status"} and not more:
        return _down() if command == "down" else _status()
    if command in {"down", "status"} or _call(
        command, "--help", output=subprocess.DEVNULL, errors=subprocess.DEVNULL
    ):
        _refuse(f"there is no `{' '.join(args)}`; see `platform --help`", 2)
    return _become(args)


def _say(text: str) -> None:
    sys.stdout.write(f"platform: {text}\n")
    sys.stdout.flush()


def _refuse(why: str, code: int = 1) -> NoReturn:
    sys.stderr.write(f"platform: {why}\n")
    raise SystemExit(code)


def _call(*args: str, output: int | None = None, errors: int | None = None) -> int:
    """Runs process-compose; returns its exit code."""
    return subprocess.call(["process-compose", *args], stdout=output, stderr=errors)  # noqa: S603, S607


def _status() -> int:
    from devtools import health  # noqa: PLC0415

    return health.status(os.environ)


def _is_running() -> bool:
    from devtools.supervisor import Supervisor, UnresponsiveError  # noqa: PLC0415

    try:
        return Supervisor(os.environ["PC_SOCKET_PATH"]).is_listening()
    except UnresponsiveError:
        return True


def _become(args: Sequence[str]) -> NoReturn:
    """Replaces this process by process-compose."""
    os.execvp("process-compose", ["process-compose", *args])  # noqa: S606, S607


def _run_beside(args: Sequence[str]) -> int:
    """`run NAME` during a running stack, with another socket.

    process-compose refuses to share the stack's and, without a server, would remove it at exit.
    With an unknown name it would hang.
    """
    from devtools.supervisor import Supervisor, SupervisorError  # noqa: PLC0415

    try:
        processes = Supervisor(os.environ["PC_SOCKET_PATH"]).processes()
    except SupervisorError as error:
        _refuse(str(error))
    running = {process.service for process in processes if process.is_running}
    startable = sorted({process.service for process in processes} - running)
    before_options = args[: args.index("--")] if "--" in args else args
    if started := running.intersection(before_options):
        name = started.pop()
        _refuse(f"{name} is already running: `platform process restart {name}` restarts it", 2)
    if not {*startable, *_HELP_OPTIONS}.intersection(before_options):
        _refuse(f"`run` takes the name of one process, of: {' '.join(startable)}", 2)
    os.environ["PC_SOCKET_PATH"] += ".r"
    os.environ["PC_LOG_FILE"] = os.devnull
    return _become(["run", "--no-deps", *args])


def _start(args: Sequence[str]) -> int:
    if "--no-console" in args:
        os.environ["CONSOLE"] = "off"
    if "--cluster" in args:
        cluster = f"{os.environ['PLATFORM_CODE']}/process-compose.cluster.yaml"
        os.environ["PC_CONFIG_FILES"] += f",{cluster}"
    args = [arg for arg in args if arg not in {"--no-console", "--cluster"}]
    if not {*_HELP_OPTIONS, "-v", "--version", "--dry-run"}.intersection(args):
        if _is_running():
            _refuse(
                "a stack of this checkout is already running (its state is in"
                f" {os.environ['PLATFORM_STATE']}).\nplatform: `attach` in place of `up` shows it,"
                " `down` stops it."
            )
        if os.environ["PLATFORM_CODE"].startswith("/nix/store/"):
            sys.stderr.write(
                "platform: serving a copy of the code as it is now. `platform up` in"
                " `./nixw develop` reloads it at each save.\n"
            )
        if {"-D", "--detached"}.intersection(args):
            from devtools import health, supervisor  # noqa: PLC0415

            # `wait` would show an old log as the reason if the job did not get to write one.
            for job in supervisor.STOPPING_JOBS:
                Path(os.environ["PLATFORM_STATE"], f"logs/{job}.log").unlink(missing_ok=True)
            # process-compose's exit code does not show whether the processes started; `wait` does.
            # Its first line would fail in a pipe that is closed, and then it starts nothing.
            _call(*args, output=subprocess.DEVNULL)
            return health.wait(os.environ)
    return _become(args)


def _down() -> int:
    code, has_ended = _stop()
    if not code and not has_ended:
        folder = os.environ["PLATFORM_STATE"]
        _say(f"no stack of this checkout is running (its state is in {folder})")
    return code


def _stop() -> tuple[int, bool]:
    """Stops the stack, also one whose socket is gone, and what a killed supervisor left.

    Returns the exit code, and whether anything has ended.
    """
    was_running = _is_running()
    if was_running and _call("down"):
        if _is_running():
            return 1, False
        _say("the stack has ended")  # by itself, as when its terminal was closed
    from devtools import processes  # noqa: PLC0415 - later, because a broken service.toml ends it

    ended, faults = processes.end_leftovers(Path(os.environ["PLATFORM_STATE"]))
    for line in ended:
        _say(line)
    sys.stderr.writelines(f"platform: {fault}\n" for fault in faults)
    return int(bool(faults)), was_running or bool(ended)


def _reset(args: Sequence[str]) -> int:
    """Stops the stack and deletes its state, after asking."""
    from devtools import state  # noqa: PLC0415

    folder = Path(os.environ["PLATFORM_STATE"])
    reply = " ".join(args)
    if not reply:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            _refuse(
                "reset asks first, which needs a terminal; `platform reset --yes`"
                " (`nix run .#reset -- --yes`) does not ask"
            )
        _say(
            "this stops the stack and deletes its transactions, points, logs and secrets in"
            f" {folder}"
        )
        with contextlib.suppress(EOFError):
            reply = input("platform: continue? [y/N] ").lower()
    if reply not in {"--yes", "y", "yes"}:
        _refuse("nothing was changed; `platform reset` takes only --yes")
    if _stop()[0]:
        _refuse("nothing was deleted")
    if not state.was_started(folder):
        _refuse(f"there is nothing to reset: no stack has used {folder}")
    try:
        state.forget(folder)
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}")
    _say(f"deleted all state in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(lambda: main(sys.argv[1:])))
