"""A client of process-compose's HTTP API on its Unix socket, for our commands.

The routes are those of https://f1bonacc1.github.io/process-compose/client/. process-compose's own
client would wait for ever for a suspended server.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from services.common import locks

NO_STACK = "no stack of this checkout is running: `platform up -D` starts one"
STOPPING_JOBS = ("preflight", "redis-cluster")  # if one fails, process-compose stops the stack
_LIVE_SECONDS_MAX = 1.0
_RESPONSE_SECONDS_MAX = 5.0
# A stop returns when the process has ended: the connector has 6 s before it is killed.
_CHANGE_SECONDS_MAX = 10.0
# After a stop, process-compose refuses to start the process again for a moment.
_START_TRIES_MAX = 20
_START_TRY_SECONDS = 0.05
# Together as long as a stack takes to stop.
_END_POLLS_MAX = 200
_END_POLL_SECONDS = 0.05
# The lock of all changes: shared by restarts, each with a lock of its own.
_CHANGES = "-changes"


class SupervisorError(Exception):
    """process-compose does not respond, or refuses the request."""


class RefusedError(SupervisorError):
    """process-compose refuses the request, or another command does not let it begin."""


class UnresponsiveError(SupervisorError):
    """process-compose runs and does not respond, as after Ctrl-Z in its terminal."""


@dataclass(frozen=True)
class ProcessState:
    """The state of one process."""

    name: str
    status: str
    """As in https://f1bonacc1.github.io/process-compose/client/, such as `Running`."""
    pid: int
    is_running: bool
    is_ready: bool
    """Whether its `ready_log_line` has appeared."""
    restarts: int
    exit_code: int
    started_at: datetime | None
    """First start; None before it, and with process-compose older than 1.110."""
    ready_at: datetime | None

    @property
    def is_pending(self) -> bool:
        """Whether it waits for its dependencies."""
        return self.status == "Pending"

    @property
    def is_stopping(self) -> bool:
        """Whether it is being stopped.

        One that was stopped before its start has this status, too, without a pid, and keeps it.
        """
        return self.status == "Terminating" and self.pid > 0

    @property
    def has_ended(self) -> bool:
        """Whether it ended for good: a job, or a service that was stopped by hand."""
        return self.status == "Completed"

    @property
    def has_succeeded(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.has_ended and self.exit_code == 0

    @property
    def has_failed(self) -> bool:
        """Whether it failed; process-compose may restart it."""
        return self.status in {"Restarting", "Error"} or (self.has_ended and self.exit_code != 0)

    @property
    def has_crashed(self) -> bool:
        """Whether it ended by itself with a fault, not by a signal, as that of a restart."""
        return self.has_failed and self.exit_code >= 0

    @property
    def service(self) -> str:
        """The name without a replica number."""
        return re.sub(r"-\d+$", "", self.name)

    @property
    def replica(self) -> int:
        """The replica number; 0 for a process that is not scaled."""
        return int(self.name.removeprefix(self.service)[1:] or 0)


class Supervisor:
    """The process-compose of one stack.

    Each method raises SupervisorError if process-compose does not respond or refuses, for example
    because the process is unknown or already stopped.
    """

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path

    def is_listening(self) -> bool:
        """False if nothing listens at its socket.

        Raises:
            UnresponsiveError: something listens, but does not respond.
        """
        try:
            self._call("GET", "/live", _LIVE_SECONDS_MAX)
        except UnresponsiveError:
            raise
        except SupervisorError:
            return False
        return True

    def processes(self) -> list[ProcessState]:
        """All processes of the stack, replicas one by one."""
        return [_state(entry) for entry in self._call("GET", "/processes")["data"]]

    def stop(self, name: str) -> None:
        """Stops a process and waits until it has ended."""
        with self._lock(_CHANGES):
            self._stop(name)

    def _stop(self, name: str) -> None:
        self._call("PATCH", f"/process/stop/{name}", _CHANGE_SECONDS_MAX)

    def start(self, name: str) -> None:
        """Starts a stopped process."""
        self._call("POST", f"/process/start/{name}", _CHANGE_SECONDS_MAX)

    def scale(self, name: str, count: int) -> None:
        """Runs `count` replicas of a process."""
        with self._lock(_CHANGES):
            self._call("PATCH", f"/process/scale/{name}/{count}", _CHANGE_SECONDS_MAX)

    def restart(self, name: str) -> None:
        """Stops a process, waits until it has ended, and starts it, also if it had ended before.

        Not process-compose's own restart, which waits a second, as after a crash. One restart of
        a process at a time: two would leave two processes, of which one keeps the port. None
        during another change: its start would undo a stop, or have a name that is gone. Refused
        before its start: process-compose would never start what it has stopped by then.
        """
        # `reload` may be in the middle of restarts of its own.
        with self._lock(_CHANGES, is_shared=name != "reload"):
            states = {state.name: state for state in self.processes()}
            if name not in states:
                raise RefusedError(f"no process {name!r}; there are {', '.join(states)}")
            if states[name].is_pending:
                needs = ", ".join(self.needs(name))
                raise RefusedError(f"{name} has not started yet; it waits for {needs}")
            with self._lock(f".{name}"):
                if self._begins_again(name):  # looks again: another restart may have just ended
                    return
                with contextlib.suppress(RefusedError):  # it has ended
                    self._stop(name)
                self._start_again(name)

    def _begins_again(self, name: str) -> bool:
        """Kills a process that others wait for; process-compose starts it as after a crash.

        Returns whether that applies. A stop would make process-compose skip the others for good.
        """
        states = self.processes()
        one = next(state for state in states if state.name == name)
        is_alive = one.is_running and one.pid > 0
        if one.is_ready or not (is_alive or one.status == "Restarting"):
            return False
        if not any(one.service in self.needs(state.name) for state in states if state.is_pending):
            return False
        if name in STOPPING_JOBS:
            raise RefusedError(f"{name} is not done yet, and others wait for it")
        if is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
        return True

    def _start_again(self, name: str) -> None:
        for tries_left in reversed(range(_START_TRIES_MAX)):
            try:
                self.start(name)
            except SupervisorError:
                if not tries_left:
                    raise
                time.sleep(_START_TRY_SECONDS)
            else:
                return

    def has_ended(self) -> bool:
        """Waits while processes are being stopped, and returns whether that was the stack's end.

        Raises:
            UnresponsiveError: process-compose runs and does not respond.
        """
        polls_without = 0
        try:
            for _ in range(_END_POLLS_MAX):
                is_stopping = any(state.is_stopping for state in self.processes())
                polls_without = 0 if is_stopping else polls_without + 1
                if polls_without == 2:  # the end stops one layer after the other
                    return False
                time.sleep(_END_POLL_SECONDS)
        except UnresponsiveError:
            raise
        except SupervisorError:
            return True
        return False

    def lock_changes(self) -> TextIO:
        """Waits for changes, and keeps others from beginning until the file is closed."""
        return self._lock(_CHANGES)

    def _lock(self, what: str, *, is_shared: bool = False) -> TextIO:
        """Locks until the file is closed; raises SupervisorError after 2 * _CHANGE_SECONDS_MAX."""
        path = Path(f"{self._socket_path}{what}.lock")
        try:
            file = path.open("a")
        except OSError as error:
            raise SupervisorError(f"no change can be locked: {error}") from error
        if not locks.take(file.fileno(), 2 * _CHANGE_SECONDS_MAX, is_shared=is_shared):
            file.close()
            raise RefusedError(f"what holds {path.name} does not end: is a command suspended?")
        return file

    def needs(self, name: str) -> list[str]:
        """The processes that a process waits for before it starts."""
        return sorted(self._info(name).get("dependsOn") or {})

    def scalable(self) -> list[ProcessState]:
        """The processes whose replicas have ports of their own."""
        states = self.processes()
        return [one for one in states if "PC_REPLICA_NUM" in self._info(one.name)["command"]]

    def _info(self, name: str) -> Any:
        return self._call("GET", f"/process/info/{name}")

    def _call(self, method: str, path: str, seconds_max: float = _RESPONSE_SECONDS_MAX) -> Any:
        connection = http.client.HTTPConnection("process-compose")
        pid = 0
        try:
            with socket.socket(socket.AF_UNIX) as connection.sock:
                connection.sock.settimeout(seconds_max)
                connection.sock.connect(self._socket_path)
                pid = _pid_of_listener(connection.sock)
                connection.request(method, path)
                response = connection.getresponse()
                body = response.read()
        except TimeoutError as error:
            remedy = f"suspended? `fg`, or `kill -CONT {pid}`"
            raise UnresponsiveError(
                f"process-compose, pid {pid}, does not respond: {remedy}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise SupervisorError(f"process-compose does not respond to {method} {path}") from error
        if response.status != 200:
            text = body.decode(errors="replace")
            raise RefusedError(f"process-compose refuses {method} {path}: {text}")
        return json.loads(body)


def _pid_of_listener(connection: socket.socket) -> int:
    is_linux = hasattr(socket, "SO_PEERCRED")  # begins with the pid; else macOS' LOCAL_PEERPID
    option = (socket.SOL_SOCKET, socket.SO_PEERCRED) if is_linux else (0, 2)
    return int.from_bytes(connection.getsockopt(*option, 4), sys.byteorder)


def _state(entry: Mapping[str, Any]) -> ProcessState:
    same = ("name", "status", "pid", "is_running", "restarts", "exit_code")
    return ProcessState(
        **{name: entry[name] for name in same},
        is_ready=entry["is_ready"] == "Ready",
        started_at=_time(entry.get("process_start_time")),
        ready_at=_time(entry.get("process_ready_time")),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
