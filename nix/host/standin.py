# ruff: noqa: INP001 - a script that nix/host installs as bin/process-compose, not a package
"""Stands in for process-compose on a machine where the real one cannot be had. Linux only.

It runs the same process-compose.yaml and answers the same commands and API paths, as far as
this repository uses them. What it does not know it refuses in words; nothing is ignored.

Read from the top: the file (`expand`, `load`), one process (`Process`), all of them
(`Supervisor`), the API on the Unix socket, and the commands. Every process has a thread that
runs it, one that copies its output and one that probes it. `Supervisor.changed` guards all
state; whoever waits for a state waits on it. Only the main thread decides when to stop.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import datetime as dt
import fcntl
import graphlib
import http.client
import http.server
import json
import logging
import logging.handlers
import os
import queue
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.parse
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import yaml

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Command = Callable[[argparse.Namespace], int]

KILL_SECONDS_MAX = 2  # from SIGKILL to gone; longer only for a process stuck in the kernel
STOP_ALL_SECONDS_MAX = 120
READY_SECONDS_MAX = 600
API_SECONDS_MAX = 5
POLL_SECONDS = 0.02
SIGNAL_SECONDS_MAX = 0.5  # how late a signal may be noticed that came at a bad moment
LINES_KEPT_MAX = 1000  # of each process, for `process logs`
COPIED_BYTES_MAX = 65_536
COPY_PAUSE_SECONDS = 0.01
LINES_QUEUED_MAX = 10_000  # for a terminal that is slower than the processes
SOCKET_PATH_BYTES_MAX = 107  # sun_path of unix(7), less its final zero
FILE_NAMES = ("compose.yml", "compose.yaml", "process-compose.yml", "process-compose.yaml")
LACKS = "no TUI, no attach, no terminal input"


class StandInError(Exception):
    """What the user should read; it ends the command with exit code 1."""


# --- the file -----------------------------------------------------------------------------------

_VARIABLE = re.compile(
    r"\$\$|\$\{(?:(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^{}\n]*))?\})?", re.ASCII
)
_DOTENV_LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][\w.]*)\s*=\s*
    (?:'(?P<single>[^']*)'|"(?P<double>(?:[^"\\$]|\\.)*)"|(?P<plain>(?!['"])[^$]*?))
    (?:(?:^|\s+)\#.*)?\s*""",
    re.ASCII | re.VERBOSE,
)
# Every key of a process that is known, and what holds without it; its type is the type allowed.
# As in process-compose a zero or an empty text counts as not given.
_DEFAULTS: dict[str, Any] = {
    "description": "",
    "command": "",
    "working_dir": ".",
    "environment": [],
    "disabled": False,
    "readiness_probe.exec.command": "",
    "readiness_probe.exec.working_dir": "",
    "readiness_probe.initial_delay_seconds": 0,
    "readiness_probe.period_seconds": 10,
    "readiness_probe.timeout_seconds": 1,
    "readiness_probe.failure_threshold": 3,
    "availability.restart": "no",
    "availability.backoff_seconds": 1,
    "availability.max_restarts": 0,
    "shutdown.signal": 15,
    "shutdown.timeout_seconds": 10,
    "log_location": "",
    "log_configuration.rotation.max_size_mb": 0,
    "log_configuration.rotation.max_backups": 1,
    "log_configuration.rotation.max_age_days": 0,
    "log_configuration.fields_order": [],
    "log_configuration.disable_json": True,
    "log_configuration.no_metadata": True,
    "log_configuration.no_color": True,
    "log_configuration.flush_each_line": True,
}
_PROJECT_DEFAULTS: dict[str, Any] = {
    "version": "",
    "name": "",
    "is_strict": True,
    "ordered_shutdown": False,
    "log_level": "",
    "environment": [],
}
_CHOICES = {
    # Above `info`, process-compose keeps what a process writes to its output out of its log too.
    "log_level": ("", "trace", "debug", "info"),
    "availability.restart": ("no", "on_failure", "always", "exit_on_failure"),
    "condition": (
        "process_started",
        "process_healthy",
        "process_completed",
        "process_completed_successfully",
    ),
}
_KINDS = {str: "text", bool: "true or false", int: "a whole number from 0 on", list: "a list"}


@dataclasses.dataclass(frozen=True)
class Spec:
    """One process as the file describes it; `spec["shutdown.signal"]` is the file's key."""

    name: str
    settings: dict[str, Any]
    depends_on: dict[str, str]  # name -> condition
    environment: dict[str, str]  # all that the process gets
    disabled: bool

    def __getitem__(self, key: str) -> Any:
        return self.settings[key]

    @property
    def is_probed(self) -> bool:
        """Whether `process_healthy` can be waited for."""
        return bool(self["readiness_probe.exec.command"])


@dataclasses.dataclass(frozen=True)
class Stack:
    """The whole file."""

    processes: dict[str, Spec]
    ordered_shutdown: bool


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replaces `$$`, `${NAME}` and `${NAME:-default}`; every other `$` is the shell's."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if match["name"] is None:
            line = text.count("\n", 0, match.start()) + 1
            raise StandInError(
                f"line {line}: after '${{' only NAME}} and NAME:-default}} are known;"
                " write '$${' for a '${' that the shell is to see"
            )
        return variables.get(match["name"]) or (match["default"] or "").replace("$$", "$")

    return _VARIABLE.sub(value, text)


def parse_dotenv(text: str) -> dict[str, str]:
    """Reads `KEY=VALUE` lines; a fault names the line, never its value, which may be a secret."""
    values = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _DOTENV_LINE.fullmatch(line)
        if match is None:
            raise StandInError(f".env, line {number}: not KEY=VALUE (a '$' needs single quotes)")
        double = re.sub(r"\\(.)", _unescape, match["double"] or "")
        values[match["name"]] = match["single"] or double or match["plain"] or ""
    return values


def _unescape(match: re.Match[str]) -> str:
    return {"n": "\n", "r": "\r", "t": "\t"}.get(match[1], match[1])


def load(path: Path) -> Stack:
    """Reads the file, strictly; the error that it raises has a line for each fault."""
    try:
        dotenv_file = Path(".env")
        dotenv = parse_dotenv(dotenv_file.read_text("utf-8")) if dotenv_file.is_file() else {}
        text = expand(path.read_text("utf-8"), {**os.environ, **dotenv})
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)  # the C one is 10 times faster
        node = loader.get_single_node()
        faults = list(_duplicates(node))
        document = loader.construct_document(node) if node else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, StandInError) as error:
        raise StandInError(f"{path} cannot be read: {error}") from None
    processes = document.pop("processes", None) if isinstance(document, dict) else None
    if not isinstance(processes, dict) or not processes:
        raise StandInError(f"{path}: there is no mapping `processes` with a process in it")
    project = _settings(document, _PROJECT_DEFAULTS, "", faults)
    shared = {**dotenv, **os.environ, **_pairs(project["environment"])}
    specs = {name: _spec(str(name), raw, shared, faults) for name, raw in processes.items()}
    faults += _dependency_faults(specs)
    if faults:
        raise StandInError("\n- ".join([f"{path} is not usable:", *faults]))
    return Stack(specs, project["ordered_shutdown"])


def _duplicates(node: yaml.Node | None) -> Iterator[str]:
    """PyYAML takes the last of two equal keys; process-compose refuses them."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield f"line {key.start_mark.line + 1}: the key '{key.value}' is there twice"
            seen.add(key.value)
            yield from _duplicates(value)


def _flat(mapping: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, dict) and not str(key).startswith("x-"):
            yield from _flat(value, f"{prefix}{key}.")
        elif not str(key).startswith("x-"):
            yield f"{prefix}{key}", value


def _settings(
    raw: dict[str, Any], defaults: dict[str, Any], where: str, faults: list[str]
) -> dict[str, Any]:
    """Holds what is given against what is known; notes the faults and fills in the rest."""
    settings = dict(defaults)
    for key, value in _flat(raw):
        if key not in defaults:
            faults.append(f"{where}{key}: unknown; known are {', '.join(defaults)}")
        elif key == "availability.restart" and value is False:
            pass  # YAML 1.1 reads a bare `no` so
        elif fault := _fault(key, value, type(defaults[key])):
            faults.append(f"{where}{key}: {fault}")
        else:
            settings[key] = value if value or value is False else defaults[key]
    return settings


def _fault(key: str, value: Any, kind: type) -> str:
    texts = value if isinstance(value, list) else [value]
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        return f"must be {_KINDS[kind]}"
    if key in _CHOICES and value not in _CHOICES[key]:
        return f"must be one of {', '.join(_CHOICES[key])}"
    if kind is list and not all(isinstance(text, str) for text in texts):
        return "must be a list of texts"
    if key == "environment" and not all("=" in text for text in texts):
        return "must be NAME=VALUE, each"
    return "the stand-in has no templates" if any("{{" in str(text) for text in texts) else ""


def _pairs(lines: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def _spec(name: str, raw: Any, shared: dict[str, str], faults: list[str]) -> Spec:
    if not isinstance(raw, dict) or not isinstance(raw.get("depends_on", {}), dict):
        faults.append(f"process '{name}' (or its depends_on) is not a mapping")
        raw = {}
    rest = {key: value for key, value in raw.items() if key != "depends_on"}
    settings = _settings(rest, _DEFAULTS, f"{name}.", faults)
    depends_on = {}
    for other, dependency in raw.get("depends_on", {}).items():
        given = dependency if isinstance(dependency, dict) else {"condition": None}
        where = f"{name}.depends_on.{other}."
        depends_on[other] = _settings(given, {"condition": ""}, where, faults)["condition"]
    if not settings["command"].strip():
        faults.append(f"{name}: it needs a command")
    if "readiness_probe" in raw and not settings["readiness_probe.exec.command"]:
        faults.append(f"{name}: its readiness_probe needs an exec.command")
    environment = {**shared, "PC_PROC_NAME": name, **_pairs(settings["environment"])}
    return Spec(name, settings, depends_on, environment, settings["disabled"])


def _dependency_faults(specs: dict[str, Spec]) -> Iterator[str]:
    for name, spec in specs.items():
        for other, condition in spec.depends_on.items():
            if other not in specs:
                yield f"{name} depends on {other}, which is not defined"
            elif specs[other].disabled and not spec.disabled:
                yield f"{name} depends on {other}, which is disabled"
            elif not condition:
                yield f"{name}.depends_on.{other} needs a condition"
            elif condition == "process_healthy" and not specs[other].is_probed:
                yield f"{name} waits until {other} is healthy, but that has no readiness_probe"
    try:
        order = {name: spec.depends_on for name, spec in specs.items()}
        graphlib.TopologicalSorter(order).prepare()
    except graphlib.CycleError as error:
        yield f"circular dependency: {' -> '.join(reversed(error.args[1]))}"


# --- one process --------------------------------------------------------------------------------


def verdict(condition: str, state: Mapping[str, Any]) -> bool | None:
    """Whether a dependency in this state meets a condition: yes, never, or (None) not yet."""
    status = state["status"]
    if status == "Pending":
        return None
    if status in ("Running", "Restarting", "Terminating"):
        is_met = condition == "process_started" or (
            condition == "process_healthy" and state["is_ready"] == "Ready"
        )
        return is_met or None
    if status == "Completed":
        succeeded = condition == "process_completed_successfully" and state["exit_code"] == 0
        return succeeded or condition in ("process_started", "process_completed")
    return False  # Disabled, Skipped, Error: it will not run


class LogFile(logging.handlers.RotatingFileHandler):
    """Rotates as process-compose does: `x.log` becomes `x-<time>.log`, so `x.log.1` is free."""

    def doRollover(self) -> None:  # noqa: N802 - the base class's name
        if self.stream:
            self.stream.close()
        path = Path(self.baseFilename)
        now = time.time()
        at = f"{time.strftime('%Y-%m-%dT%H-%M-%S', time.localtime(now))}.{int(now % 1 * 1000):03d}"
        with contextlib.suppress(FileNotFoundError):  # somebody has taken it away
            path.rename(path.with_name(f"{path.stem}-{at}{path.suffix}"))
        old = sorted(path.parent.glob(f"{path.stem}-????-??-??T*{path.suffix}"))
        for one in old[: max(0, len(old) - self.backupCount)]:
            one.unlink()
        self.stream = self._open()


class Process:
    """One process over all its restarts; of a scaled one, one replica."""

    def __init__(self, spec: Spec, supervisor: Supervisor, number: int = 0) -> None:
        self.spec = spec
        self.number = number
        self.replicas = 1
        self.supervisor = supervisor
        self.changed = supervisor.changed
        self.is_attached = spec.name == supervisor.main  # its output goes straight through
        self.stop_seconds: int = spec["shutdown.timeout_seconds"]
        self.status = "Disabled" if spec.disabled else "Pending"
        self.health = "-"
        self.restarts = self.exit_code = 0
        self.active = False  # a thread is at work on it
        self.stop_asked = self.restart_asked = False
        self.group = self.probe_group = 0  # process groups (and their leaders' pids), while alive
        self.lines: deque[str] = deque(maxlen=LINES_KEPT_MAX)
        self.log: LogFile | None = None

    @property
    def name(self) -> str:
        """With the replica's number, while there are several: `x-0`, of ten and more `x-00`."""
        digits = len(str(self.replicas))
        return self.spec.name + (f"-{self.number:0{digits}d}" if self.replicas > 1 else "")

    def say(self, text: str) -> None:
        """Tells a change of status to whoever watches."""
        self.supervisor.output.put(self.name, text, is_status=True)

    def state(self) -> dict[str, Any]:
        """The fields of process-compose's API, as far as they have a meaning here."""
        return {
            "name": self.name,
            "status": self.status,
            "is_ready": self.health,
            "has_ready_probe": self.spec.is_probed,
            "restarts": self.restarts,
            "exit_code": self.exit_code,
            "pid": self.group,
            "is_running": self.group > 0,
        }

    def begin(self) -> None:
        """Starts the thread that waits for the dependencies and then runs the process."""
        with self.changed:
            if self.active:
                raise StandInError(f"process {self.name} is already running")
            self.active, self.stop_asked, self.restart_asked = True, False, False
            self.restarts = self.exit_code = 0
            self.status = "Pending"
        threading.Thread(target=self._live, daemon=True).start()

    def stop(self, *, restart: bool = False) -> None:
        """Ends the process group: its signal first, SIGKILL after its bound.

        Returns when it is gone. With `restart` its thread then starts the next one.
        """
        with self.changed:
            if restart and self.status == "Pending":
                return  # it is about to start anyway
            group = self.group
            self.stop_asked, self.restart_asked = True, restart
            if group:
                self.status, self.health = "Terminating", "-"
                signal_group(group, self.spec["shutdown.signal"])
            self.changed.notify_all()

            def is_over() -> bool:
                # A replacement is another group, and must not get the old one's SIGKILL. Without
                # a group it is between two restarts, and only woken earlier.
                return (not group or self.group != group) if restart else not self.active

            if not self.changed.wait_for(is_over, self.stop_seconds):
                self.say(f"still there after {self.stop_seconds} s: killed")
                signal_group(group, signal.SIGKILL)
                self.changed.wait_for(is_over, KILL_SECONDS_MAX)

    def _live(self) -> None:
        try:
            status = "Skipped"
            if self._dependencies_met():
                while self._again(self._run_once()):
                    pass
                status = "Completed"
        except OSError as error:  # no such working directory, a log that cannot be written, ...
            self.say(f"cannot be started: {error}")
            status = "Error"
        with self.changed:
            self.active, self.status = False, status
            self.exit_code = self.exit_code if status == "Completed" else 1
            self.changed.notify_all()
        self.supervisor.ended(self)

    def _dependencies_met(self) -> bool:
        def others() -> dict[str, Process]:
            return {one.spec.name: one for one in self.supervisor.processes.values()}

        def is_met() -> bool | None:
            """None while it is open; the first dependency that cannot be met decides."""
            now = others()
            verdicts = [
                verdict(condition, now[name].state())
                for name, condition in self.spec.depends_on.items()
            ]
            return False if self.stop_asked or False in verdicts else all(verdicts) or None

        with self.changed:
            self.changed.wait_for(lambda: is_met() is not None)
            if not is_met() and not self.stop_asked:
                now = others()
                found = [f"{name} ({now[name].status})" for name in self.spec.depends_on]
                self.say(f"skipped: not all that it depends on came about: {', '.join(found)}")
            return bool(is_met())

    def _bash(self, command: str, directory: str, output: int | None) -> subprocess.Popen[bytes]:
        """Starts a shell in a session of its own, so that a signal reaches all it starts."""
        return subprocess.Popen(  # noqa: S603 - running the file's commands is the purpose
            ["bash", "-c", command],  # noqa: S607 - on the PATH of `env`
            cwd=directory,
            env={"PC_REPLICA_NUM": str(self.number), **self.spec.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True,
        )

    def _run_once(self) -> int:
        """Runs the process, and all it started, to the end; returns its exit code."""
        self._open_log()
        over = threading.Event()
        with self.changed:  # so that `stop` either sees the group or prevents the start
            if self.stop_asked:
                return self.exit_code
            output = None if self.is_attached else subprocess.PIPE
            child = self._bash(self.spec["command"], self.spec["working_dir"], output)
            self.group, self.status, self.health, self.exit_code = child.pid, "Running", "-", 0
            self.say(f"started, pid {child.pid}")
            self.changed.notify_all()
        copier = threading.Thread(target=self._copy, args=(child.stdout,), daemon=True)
        copier.start()
        if self.spec.is_probed:
            threading.Thread(target=self._probe, args=(over,), daemon=True).start()
        code = child.wait()
        code = code if code >= 0 else 128 - code  # a signal, as a shell tells it
        with self.changed:
            over.set()
            signal_group(self.probe_group, signal.SIGKILL)
        self._end_group(child.pid)
        copier.join(KILL_SECONDS_MAX)  # a program that left the group may still hold the pipe
        with self.changed:
            self.group, self.exit_code, self.status, self.health = 0, code, "Restarting", "-"
            log = self.log.baseFilename if self.log else ""
            self.say(f"exited with code {code}" + (f", see {log}" if code and log else ""))
            self.changed.notify_all()
        return code

    def _end_group(self, group: int) -> None:
        """Ends what the leader left behind; as `stop` does, and bounded as it is."""
        deadline = time.monotonic() + self.stop_seconds
        if is_alive(group):
            signal_group(group, self.spec["shutdown.signal"])
        while is_alive(group) and time.monotonic() < deadline + KILL_SECONDS_MAX:
            if time.monotonic() > deadline:
                signal_group(group, signal.SIGKILL)
            time.sleep(POLL_SECONDS)

    def _again(self, code: int) -> bool:
        """Decides whether it is started once more, and waits until that is due."""
        policy = self.spec["availability.restart"]
        seconds, most = (
            self.spec[f"availability.{key}"] for key in ("backoff_seconds", "max_restarts")
        )
        with self.changed:
            if not self.stop_asked:
                if code and policy == "exit_on_failure":
                    self.supervisor.fail(code)
                if policy != "always" and not (code and policy == "on_failure"):
                    return False
                if most and self.restarts >= most:
                    self.say(f"given up after {most} restarts")
                    return False
                self.restarts += 1
                self.say(f"restarting in {seconds} s")
                self.changed.wait_for(lambda: self.stop_asked, seconds)
            if self.restart_asked:
                self.stop_asked, self.restart_asked, self.restarts = False, False, 0
            return not self.stop_asked

    def _open_log(self) -> None:
        if self.spec["log_location"] and not self.is_attached and self.log is None:
            number = f".{self.number}" if self.replicas > 1 else ""
            path = Path(self.spec["log_location"] + number)
            path.parent.mkdir(parents=True, exist_ok=True)
            rotation = "log_configuration.rotation"
            self.log = LogFile(
                path,
                # Without rotation it is the log of this run alone.
                "a" if self.spec[f"{rotation}.max_size_mb"] else "w",
                maxBytes=self.spec[f"{rotation}.max_size_mb"] * 1024 * 1024,
                backupCount=self.spec[f"{rotation}.max_backups"],
                encoding="utf-8",
                errors="surrogateescape",
            )

    def _copy(self, pipe: IO[bytes] | None) -> None:
        rest = b""
        while chunk := cast("io.BufferedReader", pipe).read1(COPIED_BYTES_MAX) if pipe else b"":
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > COPIED_BYTES_MAX:
                lines, rest = [*lines, rest], b""
            self._copy_lines(lines)
            # What a busy process writes meanwhile is copied in one go: line by line, this was an
            # eighth of what a request cost the whole stack.
            time.sleep(COPY_PAUSE_SECONDS)
        self._copy_lines([rest] if rest else [])

    def _copy_lines(self, raw: list[bytes]) -> None:
        lines = [line.decode("utf-8", "surrogateescape").rstrip("\r") for line in raw]
        if lines and self.log is not None:
            self.log.handle(logging.makeLogRecord({"msg": "\n".join(lines)}))
        self.lines.extend(lines)
        for line in lines:
            self.supervisor.output.put(self.name, line, is_status=False)

    def _probe(self, over: threading.Event) -> None:
        """Asks again and again whether the process is ready. This gates; it never restarts."""
        begun, failures = time.monotonic(), 0
        pause_seconds = self.spec["readiness_probe.initial_delay_seconds"]
        while not over.wait(pause_seconds):
            is_ready = self._passes_probe(over)
            pause_seconds = self.spec["readiness_probe.period_seconds"]
            with self.changed:
                if over.is_set() or self.stop_asked:
                    return
                failures = 0 if is_ready else failures + 1
                if is_ready and self.health != "Ready":
                    self.say(f"ready after {time.monotonic() - begun:.1f} s")
                if failures == self.spec["readiness_probe.failure_threshold"]:
                    self.say(f"not ready: {failures} probes failed one after the other")
                self.health = "Ready" if is_ready else "Not Ready"
                self.changed.notify_all()

    def _passes_probe(self, over: threading.Event) -> bool:
        command = self.spec["readiness_probe.exec.command"]
        directory = self.spec["readiness_probe.exec.working_dir"] or self.spec["working_dir"]
        with self.changed:
            if over.is_set():
                return False
            probe = self._bash(command, directory, subprocess.DEVNULL)
            self.probe_group = probe.pid
        seconds = self.spec["readiness_probe.timeout_seconds"]
        timer = threading.Timer(seconds, signal_group, (probe.pid, signal.SIGKILL))
        timer.daemon = True
        timer.start()
        code = probe.wait()
        timer.cancel()
        with self.changed:
            self.probe_group = 0
        signal_group(probe.pid, signal.SIGKILL)  # what it left in the background
        is_alive(probe.pid)
        return code == 0


def signal_group(group: int, number: int) -> None:
    """Signals a process group, if there is one (0 means none) and anyone is left in it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if group:
            os.killpg(group, number)


def is_alive(group: int) -> bool:
    """Whether anyone is left in a group whose leader is gone; reaps the dead.

    Orphans become children of this process (see Supervisor.run), which makes this exact.
    """
    try:
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


# --- all processes ------------------------------------------------------------------------------


class Output:
    """Prints from a thread of its own: a terminal that does not read must hold nobody up."""

    def __init__(self, stream: IO[str], names: Iterable[str], *, only_status: bool) -> None:
        # Past Python's buffer, which would be flushed, and could block, at the very end.
        self.descriptor: int | None = stream.fileno()
        self.width = max(map(len, names))
        self.only_status = only_status
        path = os.environ.get("PC_LOG_FILE")
        self.log = self._open(Path(path)) if path else None
        self.dropped = 0
        self.queue: queue.Queue[tuple[str, bool] | None] = queue.Queue(LINES_QUEUED_MAX)
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to print; apart from __init__, for no thread survives a fork."""
        self.thread = threading.Thread(target=self._print, daemon=True)
        self.thread.start()

    def _open(self, path: Path) -> IO[str]:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8")

    def put(self, name: str, text: str, *, is_status: bool) -> None:
        """Queues one line; drops it, and says so later, when the reader is far behind."""
        try:
            mark = "*" if is_status else "|"
            self.queue.put_nowait((f"{name:<{self.width}} {mark} {text}\n", is_status))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Gives what is queued a second to get out."""
        with contextlib.suppress(queue.Full):
            self.queue.put(None, timeout=1)
            if self.thread is not None:
                self.thread.join(timeout=1)

    def _print(self) -> None:
        while (item := self.queue.get()) is not None:
            text = self._shown(*item)
            with contextlib.suppress(queue.Empty):
                while len(text) < COPIED_BYTES_MAX:
                    if (item := self.queue.get_nowait()) is None:
                        self.queue.put(None)  # back, for the outer loop
                        break
                    text += self._shown(*item)
            self._write(text.encode("utf-8", "surrogateescape"))

    def _shown(self, line: str, is_status: bool) -> str:  # noqa: FBT001
        """What the terminal is to see of a line; the supervisor's own go to its log, too."""
        if self.log and is_status:
            now = dt.datetime.now().astimezone()
            self.log.write(f"{now:%y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03} INF {line}")
            self.log.flush()
        if self.only_status and not is_status:
            return ""
        dropped, self.dropped = self.dropped, 0
        if not dropped:
            return line
        return f"{line}({dropped} lines are not shown: the terminal is too slow)\n"

    def _write(self, data: bytes) -> None:
        try:
            while data and self.descriptor is not None:
                data = data[os.write(self.descriptor, data) :]
        except OSError:  # the reader is gone (`... | head`); the stack is not
            self.descriptor = None


class Supervisor:
    """All processes of one start."""

    def __init__(self, stack: Stack, output: Output, *, main: str = "", keep: bool = False) -> None:
        self.changed = threading.Condition()
        self.output = output
        self.is_ordered = stack.ordered_shutdown
        self.main = main  # of `run NAME`: its end is the end of all
        self.keep = keep
        self.exit_code = 0
        self.is_stopping = self.is_stopped = False
        self.gone = threading.Event()  # no process is left, and the socket is free
        self.events: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.processes = {name: Process(spec, self) for name, spec in stack.processes.items()}
        self.scaling = threading.Lock()  # one at a time

    def run(self) -> int:
        """Runs the stack until it has ended or is told to; returns the exit code of `up`."""
        # PR_SET_CHILD_SUBREAPER of prctl(2): orphaned descendants become children of this
        # process, which therefore knows when a process group is empty, and what left its group.
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self.events.put("signal"))  # put() is reentrant
        self.output.start()
        try:
            for process in self.processes.values():
                if not process.spec.disabled:
                    process.begin()
            while not self._is_finished():
                # With a bound: a signal that comes just before the wait begins does not end it,
                # and its handler runs only when this thread comes round.
                with contextlib.suppress(queue.Empty):
                    self._react(self.events.get(timeout=SIGNAL_SECONDS_MAX))
        finally:
            self._kill_all()
            kill_children()
            self.output.close()
        return self.exit_code

    def ended(self, process: Process) -> None:
        """Is told by the thread of a process that it is done."""
        if process.is_attached:
            self.fail(process.exit_code)
        self.events.put("ended")

    def scale(self, spec: Spec, count: int) -> None:
        """Runs `count` replicas of a process; returns when those that are too many are gone."""
        if count < 1:
            raise StandInError(f"cannot scale process {spec.name} to less than 1: {count}")
        with self.scaling:
            replicas = [one for one in self.processes.values() if one.spec is spec]
            leaving = [threading.Thread(target=one.stop, daemon=True) for one in replicas[count:]]
            for thread in leaving:
                thread.start()
            for thread in leaving:
                thread.join(STOP_ALL_SECONDS_MAX)
            with self.changed:
                others = [one for one in self.processes.values() if one.spec is not spec]
                new = [Process(spec, self, number) for number in range(len(replicas), count)]
                for one in (*replicas[:count], *new):
                    one.replicas = count
                everyone = (*others, *replicas[:count], *new)
                self.processes = {one.name: one for one in everyone}
                self.changed.notify_all()
            for one in () if spec.disabled else new:
                one.begin()

    def fail(self, code: int) -> None:
        """Ends the stack with this exit code."""
        self.exit_code = code
        self.events.put("stop")

    def _is_finished(self) -> bool:
        if self.is_stopping:
            return self.is_stopped
        return not self.keep and not any(process.active for process in self.processes.values())

    def _react(self, event: str) -> None:
        if event == "signal" and self.is_stopping:
            self._kill_all()
        elif event != "ended" and not self.is_stopping:
            self.is_stopping = True
            threading.Thread(target=self._stop_all, daemon=True).start()

    def _stop_all(self) -> None:
        stoppers = [
            threading.Thread(target=self._stop_in_order, args=(process,), daemon=True)
            for process in self.processes.values()
        ]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join(STOP_ALL_SECONDS_MAX)
        self.is_stopped = True
        self.events.put("ended")

    def _stop_in_order(self, process: Process) -> None:
        users = [one for one in self.processes.values() if process.spec.name in one.spec.depends_on]
        with self.changed:
            process.stop_asked, process.restart_asked = True, False  # nothing starts from now on
            self.changed.notify_all()
            if self.is_ordered:
                self.changed.wait_for(
                    lambda: not any(user.active for user in users), STOP_ALL_SECONDS_MAX
                )
        process.stop()

    def _kill_all(self) -> None:
        with self.changed:
            for process in self.processes.values():
                signal_group(process.group, signal.SIGKILL)


def kill_children() -> None:
    """Kills the programs that had left their process group: they are our children by now."""
    deadline = time.monotonic() + KILL_SECONDS_MAX
    while time.monotonic() < deadline:
        lists = [path.read_text("ascii") for path in Path("/proc/self/task").glob("*/children")]
        pids = [int(pid) for pid in " ".join(lists).split()]
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
        time.sleep(POLL_SECONDS)


# --- the API ------------------------------------------------------------------------------------


class Api(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves the part of process-compose's API that is used here."""

    supervisor: Supervisor


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request."""

    server: Api
    timeout = API_SECONDS_MAX

    def _answer(self) -> None:
        try:
            status, body = 200, self._result()
        except StandInError as error:
            status, body = 400, {"error": str(error)}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = _answer  # noqa: N815 - http.server's names

    def log_message(self, *_: Any) -> None:
        """Says nothing: the base class would write a line for each request."""

    def _result(self) -> dict[str, Any]:
        supervisor = self.server.supervisor
        match [self.command, *self.path.partition("?")[0].strip("/").split("/")]:
            case ["GET", "processes"]:
                with supervisor.changed:
                    return {"data": [one.state() for one in supervisor.processes.values()]}
            case ["GET", "process", "logs", name, offset, limit] if (offset + limit).isdecimal():
                lines = list(self._process(name).lines)
                lines = lines[max(0, len(lines) - int(offset)) :]
                return {"logs": lines[: int(limit) or None]}
            case ["GET", "process", name]:
                return self._process(name).state()
            case ["POST", "project", "stop"]:
                supervisor.events.put("stop")
                supervisor.gone.wait(STOP_ALL_SECONDS_MAX)
                return {"status": "stopped"}
            case ["POST", "process", "start", name]:
                self._process(name).begin()
            case ["POST", "process", "restart", name]:
                process = self._process(name)
                process.stop(restart=True) if process.active else process.begin()
            case ["PATCH", "process", "scale", name, count] if count.isdecimal():
                supervisor.scale(self._process(name).spec, int(count))
            case ["PATCH", "process", "stop", name]:
                if not self._process(name).active:
                    raise StandInError(f"process {name} is not running")
                self._process(name).stop()
            case _:
                raise StandInError(f"the stand-in does not know {self.command} {self.path}")
        return {"name": name}

    def _process(self, name: str) -> Process:
        supervisor = self.server.supervisor
        if name not in supervisor.processes:
            raise StandInError(f"no such process: {name}")
        if supervisor.is_stopping and self.command != "GET":
            raise StandInError("the stack is being stopped")
        return supervisor.processes[name]


@contextlib.contextmanager
def listening(path: Path) -> Iterator[Api]:
    """Takes the socket for this stack, or says that another has it; gives it back at the end.

    The lock beside it makes that safe when two start at once and when one was killed.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_taken = is_answering(path)
        except BlockingIOError:
            is_taken = True
        if is_taken:
            raise StandInError(f"this stack is running already (socket {path}); `down` stops it")
        path.unlink(missing_ok=True)
        api = Api(str(path), Handler, bind_and_activate=False)
        api.server_bind()
        path.chmod(0o600)
        api.server_activate()
        try:
            yield api
        finally:
            path.unlink(missing_ok=True)
    api.supervisor.gone.set()  # only now, so that an `up` right after `down` finds it free
    api.server_close()


def supervise(api: Api) -> int:
    """Runs the stack with its API answering."""
    forever_seconds = 86_400.0  # between looks at a flag that nobody sets
    threading.Thread(target=api.serve_forever, args=(forever_seconds,), daemon=True).start()
    return api.supervisor.run()


def is_answering(path: Path) -> bool:
    """Whether someone listens on the socket; a dead file does not."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def ask(path: Path, method: str, url: str, timeout_seconds: float = API_SECONDS_MAX) -> Any:
    """Asks the stack that runs on the socket; raises StandInError with the reason it gives."""
    with socket.socket(socket.AF_UNIX) as unix:
        unix.settimeout(timeout_seconds)
        client = http.client.HTTPConnection("pc")
        client.sock = unix
        try:
            unix.connect(str(path))
            client.request(method, url)
            answer = client.getresponse()
            body = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise StandInError(f"no stack answers on {path} ({error}); `up` starts one") from None
    if "error" in body:
        raise StandInError(body["error"])
    return body


# --- the commands -------------------------------------------------------------------------------


def tell(text: str) -> None:
    """Writes to stderr, under the name that the user called."""
    sys.stderr.write(f"process-compose: {text}\n")


def announce() -> None:
    """Says on every start that this is not process-compose."""
    why = os.environ.get("PLATFORM_STANDIN_REASON", "")
    tell(f"a stand-in: the real one could not be had{why and f' ({why})'}; {LACKS}")


def read_stack(options: argparse.Namespace) -> Stack:
    """Finds the file by process-compose's rules and loads it; several are not merged."""
    names = options.config or list(filter(None, os.environ.get("PC_CONFIG_FILES", "").split(",")))
    if not names:
        names = [name for name in FILE_NAMES if Path(name).is_file()][:1]
        names += [str(path) for path in Path().glob("*compose.override.y*ml")]
    if len(names) != 1:
        found = ", ".join(names) or f"none of {', '.join(FILE_NAMES)} in {Path.cwd()}"
        raise StandInError(f"the stand-in needs one file and found: {found}; name it with -f")
    return load(Path(names[0]))


def select(stack: Stack, names: list[str], *, no_deps: bool) -> Stack:
    """Enables only these and what they depend on; without names all that is not disabled."""
    chosen: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in stack.processes:
            raise StandInError(f"no such process: {name}; there are {', '.join(stack.processes)}")
        chosen.add(name)
        todo += [] if no_deps else stack.processes[name].depends_on
    specs = {
        name: dataclasses.replace(
            spec,
            disabled=name not in chosen if names else spec.disabled,
            depends_on={} if no_deps else spec.depends_on,
        )
        for name, spec in stack.processes.items()
    }
    return dataclasses.replace(stack, processes=specs)


def up(options: argparse.Namespace) -> int:
    """Starts the stack and stays with it, or leaves it in the background (-D)."""
    stack = select(read_stack(options), options.names, no_deps=options.no_deps)
    if options.dry_run:
        sys.stdout.write(f"Validated {len(stack.processes)} configured processes from 1 files.\n")
        return 0
    announce()
    with listening(options.socket) as api:
        output = Output(sys.stdout, stack.processes, only_status=False)
        api.supervisor = Supervisor(stack, output, keep=options.keep_project)
        if options.detached:
            go_to_background(output.log)
        return supervise(api)


def go_to_background(log: IO[str] | None) -> None:
    """Goes on in a child. No thread runs yet, so a fork is safe; socket and lock go along."""
    if os.fork():
        tell("runs in the background; `process-compose down` stops it")
        os._exit(0)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(log.fileno() if log else nothing, 2)


def run(options: argparse.Namespace) -> int:
    """Runs one process attached, with what it depends on, as a stack of its own."""
    name = options.names[0]
    selected = select(read_stack(options), [name], no_deps=options.no_deps)
    spec = selected.processes[name]
    command = " ".join([spec["command"].rstrip(), *options.words])
    selected.processes[name] = dataclasses.replace(
        spec, settings={**spec.settings, "command": command}
    )
    announce()
    output = Output(sys.stderr, selected.processes, only_status=True)
    with listening(options.socket) as api:
        api.supervisor = Supervisor(selected, output, main=name)
        return supervise(api)


def down(options: argparse.Namespace) -> int:
    """Stops the stack that runs on the socket, and waits until it is gone."""
    ask(options.socket, "POST", "/project/stop", STOP_ALL_SECONDS_MAX)
    return 0


def list_processes(options: argparse.Namespace) -> int:
    """Prints the names of all processes, or all that is known of them as JSON."""
    states = sorted(ask(options.socket, "GET", "/processes")["data"], key=lambda one: one["name"])
    names = "\n".join(state["name"] for state in states)
    sys.stdout.write(f"{json.dumps(states, indent=2) if options.output else names}\n")
    return 0


def control(options: argparse.Namespace) -> int:
    """Starts, stops or restarts processes of the running stack."""
    method = "PATCH" if options.verb == "stop" else "POST"
    for name in options.names:
        url = f"/process/{options.verb}/{urllib.parse.quote(name, safe='')}"
        ask(options.socket, method, url, STOP_ALL_SECONDS_MAX)
        sys.stdout.write(f"{options.verb}: {name}\n")
    return 0


def scale(options: argparse.Namespace) -> int:
    """Runs so many replicas of a process of the running stack."""
    name = urllib.parse.quote(options.names[0], safe="")
    url = f"/process/scale/{name}/{options.count}"
    ask(options.socket, "PATCH", url, STOP_ALL_SECONDS_MAX)
    return 0


def logs(options: argparse.Namespace) -> int:
    """Prints the last lines of some processes."""
    for name in options.names[0].split(","):
        url = f"/process/logs/{urllib.parse.quote(name, safe='')}/{options.tail}/0"
        for line in ask(options.socket, "GET", url)["logs"]:
            sys.stdout.write(f"[{name}] {line}\n" if "," in options.names[0] else f"{line}\n")
    return 0


def is_ready(options: argparse.Namespace) -> int:
    """Tells what is not ready; with --wait it waits until all is."""
    deadline = time.monotonic() + (READY_SECONDS_MAX if options.wait else 0)
    while reasons := not_ready(options.socket):
        if time.monotonic() > deadline:
            raise StandInError("\n- ".join(["processes are not ready:", *reasons]))
        time.sleep(5 * POLL_SECONDS)
    return 0


def not_ready(path: Path) -> list[str]:
    """What keeps the stack from being ready, by process-compose's rules."""
    try:
        states = ask(path, "GET", "/processes")["data"]
    except StandInError as error:
        return [str(error)]
    reasons = []
    for state in states:
        if state["status"] in ("Pending", "Terminating", "Error"):
            reasons.append(f"{state['name']} (status is {state['status']})")
        elif state["exit_code"]:
            reasons.append(f"{state['name']} (failed with exit code {state['exit_code']})")
        elif (
            state["status"] != "Disabled"
            and state["has_ready_probe"]
            and state["is_ready"] != "Ready"
        ):
            reasons.append(f"{state['name']} (health is {state['is_ready']})")
    return reasons


def version(_: argparse.Namespace) -> int:
    """Never claims to be the real one."""
    why = os.environ.get("PLATFORM_STANDIN_REASON") or "it could not be had"
    sys.stdout.write(f"stand-in (for process-compose: {why}; {LACKS})\n")
    return 0


def completion(options: argparse.Namespace) -> int:
    """Prints what a shell completes the words of this command with."""
    import shtab  # noqa: PLC0415 - for this one command

    sys.stdout.write(shtab.complete(parser(), shell=options.shell) + "\n")
    return 0


def _flags() -> tuple[argparse.ArgumentParser, ...]:
    """Those of every command, of those that read the file, and of those that start the stack."""
    hidden: dict[str, Any] = {"default": argparse.SUPPRESS}  # else `-u X up` would forget X
    flag: dict[str, Any] = {"action": "store_true", **hidden}
    shared, files, start = (argparse.ArgumentParser(add_help=False) for _ in range(3))
    shared.add_argument("-u", "--unix-socket", metavar="FILE", **hidden)
    shared.add_argument("-U", "--use-uds", **flag)
    files.add_argument("-f", "--config", metavar="FILE", action="append", **hidden)
    files.add_argument("--no-deps", **flag)
    start.add_argument("-D", "--detached", **flag)
    start.add_argument("--keep-project", **flag)
    start.add_argument("--dry-run", **flag)
    return shared, files, start


def parser() -> argparse.ArgumentParser:
    """The command line, as process-compose has it; flags stand before or after the command."""
    shared, files, start = _flags()
    whole = argparse.ArgumentParser(
        "process-compose", description=f"A stand-in: {LACKS}.", parents=[shared, files, start]
    )
    whole.set_defaults(command=up, names=[], config=None, no_deps=False, detached=False)
    whole.set_defaults(keep_project=False, dry_run=False)
    whole.set_defaults(unix_socket=os.environ.get("PC_SOCKET_PATH", ""))
    commands = whole.add_subparsers(metavar="COMMAND")
    process, project = (
        commands.add_parser(name, help=does).add_subparsers(metavar="COMMAND", required=True)
        for name, does in (("process", "One process or some."), ("project", "All of them."))
    )

    def add(to: Any, name: str, does: Command, count: int | str = 0, *more: Any) -> Any:
        one = to.add_parser(name, help=does.__doc__, parents=[shared, *more])
        one.set_defaults(command=does, verb=name)
        if count:
            one.add_argument("names", nargs=count, metavar="PROCESS")
        return one

    add(commands, "up", up, "*", files, start)
    add(commands, "run", run, 1, files)
    add(commands, "down", down)
    add(commands, "version", version).add_argument("-s", "--short", action="store_true")
    for to in (commands, process):
        add(to, "list", list_processes).add_argument("-o", "--output", choices=["json"])
    for verb in ("start", "stop", "restart"):
        add(process, verb, control, "+")
    add(process, "scale", scale, 1).add_argument("count", type=int, metavar="COUNT")
    add(process, "logs", logs, 1).add_argument("-n", "--tail", type=int, default=LINES_KEPT_MAX)
    add(project, "is-ready", is_ready).add_argument("--wait", action="store_true")
    add(commands, "completion", completion).add_argument("shell", choices=["bash", "fish", "zsh"])
    return whole


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    # There is no TUI to switch on or off, as LACKS says: both mean plain output.
    words = [word for word in arguments[:at] if not re.fullmatch(r"(-t|--tui)(=\w+)?", word)]
    options = parser().parse_args(words)
    options.words = arguments[at + 1 :]
    return options


def check(options: argparse.Namespace) -> None:
    """Refuses what argparse lets pass."""
    options.socket = Path(options.unix_socket)
    if options.words and options.command is not run:
        raise StandInError("words after -- are for `run`")
    if options.command in (version, completion) or options.dry_run:
        return
    if not options.unix_socket:
        raise StandInError("it needs a Unix socket: set PC_SOCKET_PATH or give -u FILE")
    if len(os.fsencode(options.socket)) > SOCKET_PATH_BYTES_MAX:
        raise StandInError(
            f"the socket's path has over {SOCKET_PATH_BYTES_MAX} bytes: set PC_SOCKET_PATH"
            f" to a shorter one than {options.socket}"
        )


def main(arguments: list[str]) -> int:
    """Runs one command; returns its exit code."""
    try:
        options = parse(arguments)
        check(options)
        return int(options.command(options))
    except (StandInError, OSError) as error:  # OSError: a folder that cannot be written, say
        tell(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
