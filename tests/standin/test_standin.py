"""Tests nix/host/standin.py the way it is used: as a program that runs real processes."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the host package set is for Linux")

PROGRAM = Path(__file__).parents[2] / "nix/host/standin.py"
WAIT_SECONDS_MAX = 30  # far more than anything here takes, on a machine that is busy


def _load_module() -> Any:
    spec = importlib.util.spec_from_file_location("standin", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["standin"] = module  # dataclasses look the module up
    spec.loader.exec_module(module)
    return module


standin = _load_module()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


class Project:
    """A directory with a process-compose.yaml; every process in it carries a mark of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "pc.sock"
        self.mark = f"standin-test-{directory}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "PC_SOCKET_PATH": str(self.socket),
            "MARK": self.mark,
        }
        self.started: list[subprocess.Popen[str]] = []

    def write(self, text: str, name: str = "process-compose.yaml") -> None:
        (self.directory / name).write_text(text, encoding="utf-8")

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *words],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def call(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=WAIT_SECONDS_MAX)
        return process.returncode, out, err

    def up(self) -> subprocess.Popen[str]:
        process = self.start("up", "-t=false")
        eventually(self.socket.exists)
        return process

    def state(self, name: str) -> dict[str, Any]:
        code, out, err = self.call("process", "list", "-o", "json")
        assert (0, "") == (code, err)
        states = {one["name"]: one for one in json.loads(out)}
        return dict(states[name])

    def has(self, file: str, text: str) -> bool:
        path = self.directory / file
        return path.exists() and text in path.read_text("utf-8")

    def living(self) -> list[int]:
        """The pids of what the stack started: they have the mark in their environment."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            if self.mark.encode() in environment:
                found.append(int(folder.name))
        return found


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    for process in project.started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_SECONDS_MAX)
    for pid in project.living():
        os.kill(pid, signal.SIGKILL)


# --- the file -----------------------------------------------------------------------------------

_PLAIN = st.text(st.characters(exclude_characters="${}", exclude_categories=["Cs"]))
_NAME = st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True)
_DEFAULT = st.text(st.characters(exclude_characters="${}\n", exclude_categories=["Cs"])).flatmap(
    lambda text: st.sampled_from([text, f"{text}$$", f"$${text}"])
)
_VARIABLES = st.dictionaries(_NAME, st.text(max_size=5), max_size=5)
# Each part is a text for the file and a function that says what it stands for.
_PARTS = st.lists(
    st.one_of(
        _PLAIN.map(lambda text: (text, lambda _: text)),
        st.just(("$$", lambda _: "$")),
        _NAME.map(lambda name: (f"${{{name}}}", lambda known: known.get(name, ""))),
        st.tuples(_NAME, _DEFAULT).map(
            lambda both: (
                f"${{{both[0]}:-{both[1]}}}",
                lambda known: known.get(both[0]) or both[1].replace("$$", "$"),
            )
        ),
        st.sampled_from(["$HOME ", "$(date) ", "$((1 + 1)) "]).map(
            lambda text: (text, lambda _: text)
        ),
    )
)


@given(_PARTS, _VARIABLES)
def test_expansion(parts: list[tuple[str, Callable[[dict[str, str]], str]]], known: Any) -> None:
    """Only `$$`, `${X}` and `${X:-default}` are replaced; a value is not expanded again."""
    text = "".join(part for part, _ in parts)

    assert "".join(meaning(known) for _, meaning in parts) == standin.expand(text, known)


@pytest.mark.parametrize("text", ["${", "${X-d}", "${!X}", "${a[@]}", "${X:?why}", "${X:-${Y}}"])
def test_an_expansion_it_does_not_know_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(standin.StandInError, match="line 2: "):
        standin.expand(f"a: $$\nb: {text}\n", {})


def test_dotenv() -> None:
    """Quotes, comments, `export` and CRLF are read as process-compose reads them."""
    text = (
        'A=1\r\n# no\r\n\r\nexport B = two words # no\nC=\'$x # y\'\nD="a\\nb\\"" # no\nE=\nF=a#b\n'
    )

    expected = {"A": "1", "B": "two words", "C": "$x # y", "D": 'a\nb"', "E": "", "F": "a#b"}
    assert expected == standin.parse_dotenv(text)


@pytest.mark.parametrize("line", ["A", "A=$B", "A='x", '="x"', 'A="x" y'])
def test_a_bad_dotenv_line_is_named_but_not_shown(line: str) -> None:
    with pytest.raises(standin.StandInError, match="line 2") as caught:
        standin.parse_dotenv(f"GOOD=1\n{line}\n")

    assert line not in str(caught.value).replace("KEY=VALUE", "")


@pytest.mark.parametrize(
    ("yaml", "complaint"),
    [
        ("processes: {a: {command: x, replicas: 2}}", "a.replicas: unknown"),
        ("processes: {a: {command: x, shutdown: {sig: 2}}}", "a.shutdown.sig: unknown"),
        ("processes: {a: {command: x}}\nproceses: 1", "proceses: unknown"),
        ("processes: {a: {command: x}, a: {command: y}}", "line 1: the key 'a' is there twice"),
        ("processes: {a: {command: [x]}}", "a.command: must be text"),
        ("processes: {a: {command: x, disabled: 1}}", "a.disabled: must be true or false"),
        ("processes: {a: {command: 'x {{.y}}'}}", "a.command: the stand-in has no templates"),
        ("processes: {a: {description: x}}", "a: it needs a command"),
        ("processes: {a: {command: x}}\nlog_level: warn", "log_level: must be one of"),
        ("processes: {a: {command: x, availability: {restart: of}}}", "must be one of no, on_fa"),
        ("processes: {a: {command: x, environment: [X]}}", "a.environment: must be NAME=VALUE"),
        (
            "processes: {a: {command: x, depends_on: {b: {condition: process_started}}}}",
            "a depends on b, which is not defined",
        ),
        (
            (
                "processes:\n"
                "  a: {command: x, depends_on: {b: {condition: process_started}}}\n"
                "  b: {command: x, depends_on: {a: {condition: process_started}}}\n"
            ),
            "circular dependency: a -> b -> a",
        ),
        (
            (
                "processes:\n"
                "  a: {command: x, depends_on: {b: {condition: process_healthy}}}\n"
                "  b: {command: x}\n"
            ),
            "a waits until b is healthy, but that has no readiness_probe",
        ),
        (
            "processes: {a: {command: x, depends_on: {b: {}}}, b: {command: x}}",
            "a.depends_on.b needs a condition",
        ),
        (
            (
                "processes:\n"
                "  a: {command: x, depends_on: {b: {condition: process_started}}}\n"
                "  b: {command: x, disabled: true}\n"
            ),
            "a depends on b, which is disabled",
        ),
    ],
)
def test_a_faulty_file_is_refused_in_words(project: Project, yaml: str, complaint: str) -> None:
    """`--dry-run` and `up` say what is wrong where, exit with 1 and start nothing."""
    project.write(yaml)

    for words in (["--dry-run"], ["up"]):
        code, out, err = project.call(*words)
        assert (1, "") == (code, out)
        assert complaint in err


def test_the_stack_of_this_repository_is_understood(project: Project) -> None:
    repository = PROGRAM.parents[2]

    code, out, err = project.call("--dry-run", "-f", str(repository / "process-compose.yaml"))
    assert (0, "Validated 9 configured processes from 1 files.\n", "") == (code, out, err)


# --- one stack ----------------------------------------------------------------------------------


def test_up_returns_when_all_has_ended_and_says_what_it_is(project: Project) -> None:
    """Lines carry their process' name; a plain failure is exit code 0, as in process-compose."""
    project.environment["PLATFORM_STANDIN_REASON"] = "the registry says 403"
    project.write("processes: {short: {command: echo one}, longer: {command: echo two; exit 3}}")

    code, out, err = project.call()
    assert 0 == code
    assert "short  | one\n" in out
    assert "longer | two\n" in out
    assert "longer * exited with code 3\n" in out
    assert err.startswith("process-compose: a stand-in: ")
    assert "(the registry says 403)" in err


def test_environment(project: Project) -> None:
    """`.env` wins over the shell in expansion, but not in the environment of a process.

    There the later of these wins: .env, shell, top environment, its own environment.
    """
    project.environment |= {"A": "shell", "B": "shell", "C": "shell", "D": "shell"}
    project.write("A=dotenv\nE=dotenv\n", ".env")
    project.write(
        "environment: [C=top, D=top]\n"
        "x-base: &base {environment: [D=own], working_dir: '${DIR:-sub}'}\n"
        "processes:\n"
        "  p: {<<: *base, command: 'echo \"${A} $A $B $C $D $E $((1 + 2)) $$HOME ${NO}$(pwd)\"'}\n"
    )
    (project.directory / "sub").mkdir()

    _, out, _ = project.call()
    expected = f"p | dotenv shell shell top own dotenv 3  {project.directory}/sub\n"
    assert expected in out


def test_order_on_health_and_completion(project: Project) -> None:
    """A dependent starts when the probe has passed, and one on success not after a failure."""
    project.write(
        "processes:\n"
        "  server:\n"
        "    command: 'sleep 0.5; echo up > file; exec sleep 100'\n"
        "    readiness_probe: {period_seconds: 1, exec: {command: test -e file}}\n"
        "  client:\n"
        "    command: cat file; exit 4\n"
        "    depends_on: {server: {condition: process_healthy}}\n"
        "  after: {command: echo no, depends_on: {client: "
        "{condition: process_completed_successfully}}}\n"
        "  anyway: {command: echo yes, depends_on: {client: {condition: process_completed}}}\n"
    )
    up = project.up()

    eventually(lambda: project.state("anyway")["status"] == "Completed")
    assert "Ready" == project.state("server")["is_ready"]
    assert ("Skipped", 1) == tuple(project.state("after")[key] for key in ("status", "exit_code"))
    code, _, err = project.call("project", "is-ready")
    assert 1 == code
    assert "client (failed with exit code 4)" in err
    assert (0, "", "") == project.call("down")
    out, _ = up.communicate(timeout=WAIT_SECONDS_MAX)
    assert out.index("server * ready after") < out.index("client | up") < out.index("anyway | yes")
    assert "no" not in [line.rpartition(" ")[2] for line in out.splitlines()]


def test_restart_with_backoff_and_limit_keeps_the_log(project: Project) -> None:
    """on_failure restarts as often as allowed, a second apart; the log file keeps every run."""
    project.write(
        "processes:\n"
        "  p:\n"
        "    command: date +%s%N; exit 1\n"
        "    log_location: logs/p.log\n"
        "    availability: {restart: on_failure, backoff_seconds: 1, max_restarts: 2}\n"
    )

    code, out, _ = project.call()
    assert 0 == code
    assert "p * given up after 2 restarts" in out
    moments = [int(line) for line in (project.directory / "logs/p.log").read_text().split()]
    assert 3 == len(moments)
    assert all(b - a >= 1e9 for a, b in pairwise(moments))


def test_a_log_without_rotation_is_that_of_the_last_start(project: Project) -> None:
    """With rotation it goes on; the supervisor's own log says when, to the millisecond."""
    rotation = "log_configuration: {rotation: {max_size_mb: 1, max_backups: 1}}"
    project.write(
        "processes:\n"
        "  p: {command: echo one, log_location: p.log}\n"
        "  q: {command: echo one, log_location: q.log, " + rotation + "}\n"
    )
    project.environment["PC_LOG_FILE"] = str(project.directory / "own.log")
    for _ in range(2):
        assert 0 == project.call()[0]
    assert "one\n" == (project.directory / "p.log").read_text()
    assert "one\none\n" == (project.directory / "q.log").read_text()
    for line in (project.directory / "own.log").read_text().splitlines():
        assert re.match(r"\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INF [pq] ", line), line


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(project: Project, shell: str) -> None:
    """It prints what a shell completes its words with, also where there is no file."""
    code, out, err = project.call("completion", shell)
    assert (0, "") == (code, err)
    assert "is-ready" in out


def test_exit_on_failure_ends_the_stack_with_its_code(project: Project) -> None:
    project.write(
        "processes:\n"
        "  other: {command: exec sleep 100}\n"
        "  check: {command: exit 78, availability: {restart: exit_on_failure}}\n"
    )

    code, _, _ = project.call()
    assert 78 == code
    assert [] == project.living()


def test_ordered_shutdown_and_sigkill_after_the_bound(project: Project) -> None:
    """What depends on a process stops before it; who ignores TERM, child or not, is killed."""
    project.write(
        "ordered_shutdown: true\n"
        "processes:\n"
        "  base: {command: 'trap \"echo base; exit\" TERM; touch 1; while :; do sleep 0.1; done'}\n"
        "  deaf:\n"
        "    command: |\n"
        "      (trap '' TERM; touch 2; sleep 100; sleep 100) &\n"
        "      trap 'echo leader' TERM; wait; wait\n"
        "    depends_on: {base: {condition: process_started}}\n"
        "    shutdown: {timeout_seconds: 1}\n"
    )
    up = project.up()
    eventually(lambda: (project.directory / "1").exists() and (project.directory / "2").exists())

    assert 3 <= len(project.living())
    assert (0, "", "") == project.call("down")
    out, _ = up.communicate(timeout=WAIT_SECONDS_MAX)
    assert [] == project.living()
    assert "deaf * still there after 1 s: killed" in out or "deaf * exited with code 0" in out
    assert out.index("deaf * exited") < out.index("base | base")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_process(project: Project, number: int) -> None:
    """Neither the processes, nor their group, nor a daemon that left the group, nor a probe."""
    project.write(
        "processes:\n"
        "  p:\n"
        "    command: |\n"
        "      sleep 100 & setsid sleep 100 & touch started; exec sleep 100\n"
        "    readiness_probe: {timeout_seconds: 100, exec: {command: touch probed; sleep 100}}\n"
        "    shutdown: {timeout_seconds: 1}\n"
    )
    up = project.up()
    names = ("started", "probed")
    eventually(lambda: all((project.directory / name).exists() for name in names))

    up.send_signal(number)
    up.communicate(timeout=WAIT_SECONDS_MAX)
    assert 0 == up.returncode
    assert [] == project.living()
    assert not project.socket.exists()


def test_a_second_signal_kills_at_once(project: Project) -> None:
    project.write(
        "processes:\n"
        "  p: {command: \"trap '' TERM; touch started; sleep 100; sleep 100\", "
        "shutdown: {timeout_seconds: 1000}}\n"
    )
    up = project.up()
    eventually((project.directory / "started").exists)

    up.send_signal(signal.SIGINT)
    eventually(lambda: project.state("p")["status"] == "Terminating")
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=WAIT_SECONDS_MAX)
    assert [] == project.living()


def test_output_that_nobody_reads_holds_nobody_up(project: Project) -> None:
    """With a full pipe the process goes on, its log is complete, and a signal still ends it."""
    project.write(
        "processes: {p: {command: 'seq 100000; touch done; exec sleep 100', log_location: log}}"
    )
    up = project.up()

    eventually((project.directory / "done").exists)
    eventually(lambda: project.has("log", "\n100000\n"))
    up.send_signal(signal.SIGTERM)
    assert 0 == up.wait(timeout=WAIT_SECONDS_MAX)
    assert [] == project.living()


# --- several commands ---------------------------------------------------------------------------

_SLEEPER = "processes: {p: {command: 'echo one; exec sleep 100', log_location: p.log}}"


def test_a_second_up_is_refused(project: Project) -> None:
    """It names the socket, exits with 1, and leaves the first alone."""
    project.write(_SLEEPER)
    project.up()
    eventually(lambda: project.has("p.log", "one"))
    pid = project.state("p")["pid"]

    code, _, err = project.call("up")
    assert 1 == code
    assert f"running already (socket {project.socket})" in err
    assert pid == project.state("p")["pid"]


def test_a_dead_socket_file_is_replaced_and_the_new_one_is_private(project: Project) -> None:
    project.write(_SLEEPER)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(project.socket))
    project.start("up")

    eventually(lambda: project.call("process", "list")[0] == 0)
    assert "0o600" == oct(project.socket.stat().st_mode & 0o777)


def test_detached(project: Project) -> None:
    """`up -D` returns with the socket answering; after `down` the next `up` is free to start."""
    project.write(_SLEEPER)

    for _ in range(2):
        # This also shows that the background does not hold our pipes open.
        assert 0 == project.call("up", "-D")[0]
        eventually(lambda: project.state("p")["status"] == "Running")
        assert (0, "", "") == project.call("project", "is-ready", "--wait")
        assert (0, "", "") == project.call("down")
        eventually(lambda: not project.living())


def test_process_commands(project: Project) -> None:
    """stop, start and restart act on one process; the log file keeps what was before."""
    project.write(_SLEEPER.replace("}}", "}, other: {command: exec sleep 100}}"))
    project.up()
    eventually(lambda: project.has("p.log", "one"))
    first = project.state("p")["pid"]

    assert (0, "restart: p\n", "") == project.call("process", "restart", "p")
    eventually(lambda: project.has("p.log", "one\none\n"))
    assert first != project.state("p")["pid"]
    assert (0, "stop: p\n", "") == project.call("process", "stop", "p")
    assert ("Completed", 143) == tuple(project.state("p")[key] for key in ("status", "exit_code"))
    assert "process p is not running" in project.call("process", "stop", "p")[2]
    assert (0, "start: p\n", "") == project.call("process", "start", "p")
    assert "process p is already running" in project.call("process", "start", "p")[2]
    assert "no such process: q" in project.call("process", "start", "q")[2]
    eventually(lambda: project.call("process", "logs", "p")[1] == "one\n" * 3)


def test_scale(project: Project) -> None:
    """Replicas have names, logs and numbers of their own; the last one has its name back."""
    project.write(_SLEEPER.replace("echo one", 'echo "one $${PC_REPLICA_NUM}"'))
    project.up()
    eventually(lambda: project.has("p.log", "one 0"))
    first = project.state("p")["pid"]

    assert (0, "", "") == project.call("process", "scale", "p", "3")
    eventually(lambda: project.has("p.log.1", "one 1") and project.has("p.log.2", "one 2"))
    assert "p-0\np-1\np-2\n" == project.call("process", "list")[1]
    assert first == project.state("p-0")["pid"]
    assert "no such process: p" in project.call("process", "scale", "p", "1")[2]
    assert "cannot scale process p" in project.call("process", "scale", "p-0", "0")[2]
    assert (0, "", "") == project.call("process", "scale", "p-2", "1")
    assert "p\n" == project.call("process", "list")[1]
    assert first == project.state("p")["pid"]
    assert 2 == len(project.living()), "the supervisor and the one"


def test_names_of_ten_replicas(project: Project) -> None:
    """As many digits as the number of replicas has, so that they sort."""
    project.write(_SLEEPER)
    project.up()
    eventually(lambda: project.has("p.log", "one"))

    assert 0 == project.call("process", "scale", "p", "10")[0]
    names = [f"p-{number:02d}" for number in range(10)]
    assert names == project.call("process", "list")[1].split()
    eventually(lambda: project.state("p-09")["status"] == "Running")
    assert (0, "", "") == project.call("down")
    eventually(lambda: not project.living())


def test_a_full_log_is_put_aside_by_its_time(tmp_path: Path) -> None:
    """Not as `x.log.1`, which is a replica's; no more are kept than were asked for."""
    log = standin.LogFile(tmp_path / "x.log", maxBytes=10, backupCount=2)
    for number in range(6):
        log.handle(standin.logging.makeLogRecord({"msg": f"line {number}"}))
        time.sleep(0.002)  # the names have milliseconds
    log.close()

    *old, now = sorted(tmp_path.iterdir(), key=lambda path: path.name.replace(".", "~"))
    assert ("x.log", "line 5\n") == (now.name, now.read_text())
    assert ["line 3\n", "line 4\n"] == [path.read_text() for path in old]
    form = r"x-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}\.log"
    assert all(re.fullmatch(form, path.name) for path in old)


def test_stopping_one_process_leaves_nothing_of_it(project: Project) -> None:
    """Neither a child that ignores TERM nor a probe; the rest of the stack goes on."""
    project.write(
        "processes:\n"
        "  p:\n"
        "    command: (trap '' TERM; touch started; sleep 99; sleep 99) >&- 2>&- & exec sleep 100\n"
        "    readiness_probe: {timeout_seconds: 100, exec: {command: touch probed; sleep 100}}\n"
        "    shutdown: {timeout_seconds: 1}\n"
        "  other: {command: exec sleep 100}\n"
    )
    up = project.up()
    names = ("started", "probed")
    eventually(lambda: all((project.directory / name).exists() for name in names))

    project.call("process", "stop", "p")
    assert {up.pid, project.state("other")["pid"]} == set(project.living())


def test_what_still_waits_stops_at_once(project: Project) -> None:
    """A process whose dependency never becomes healthy holds up neither `down` nor the rest."""
    project.write(
        "ordered_shutdown: true\n"
        "processes:\n"
        "  sick: {command: exec sleep 100, readiness_probe: {exec: {command: exit 1}}}\n"
        "  waits: {command: echo no, depends_on: {sick: {condition: process_healthy}}}\n"
    )
    up = project.up()
    eventually(lambda: project.state("sick")["is_ready"] == "Not Ready")

    assert "Pending" == project.state("waits")["status"]
    assert (0, "", "") == project.call("down")
    out, _ = up.communicate(timeout=WAIT_SECONDS_MAX)
    assert "waits *" not in out


def test_up_with_names_starts_those_and_what_they_need(project: Project) -> None:
    project.write(
        "processes:\n"
        "  a: {command: echo a}\n"
        "  b: {command: echo b, depends_on: {a: {condition: process_completed}}}\n"
        "  c: {command: echo c}\n"
    )

    assert ["a | a", "b | b"] == [
        line for line in project.call("up", "b")[1].splitlines() if "|" in line
    ]
    assert ["b | b"] == [
        line for line in project.call("up", "--no-deps", "b")[1].splitlines() if "|" in line
    ]
    assert "no such process: d" in project.call("up", "d")[2]


_JOB = (
    "processes:\n"
    "  server:\n"
    "    command: 'sleep 0.2; echo $BASHPID > server; exec sleep 100'\n"
    "    readiness_probe: {period_seconds: 1, exec: {command: test -e server}}\n"
    "  job:\n"
    "    command: |\n"
    "      cat server; exit \\\n"
    "    disabled: true\n"
    "    depends_on: {server: {condition: process_healthy}}\n"
)


def test_run_starts_what_it_needs_and_stops_it(project: Project) -> None:
    """Its output is the process' own, its exit code too; words after -- are appended."""
    project.write(_JOB)

    code, out, _ = project.call("run", "job", "--", "7")
    assert (7, (project.directory / "server").read_text()) == (code, out)
    assert [] == project.living()


def test_run_beside_the_stack_that_is_up(project: Project) -> None:
    """On the same socket it is refused, as by process-compose; with one of its own it runs."""
    project.write(_JOB)
    project.up()
    eventually(lambda: project.state("server")["is_ready"] == "Ready")

    assert "running already" in project.call("run", "job")[2]
    code, out, _ = project.call("run", "-u", "own.sock", "--no-deps", "job", "--", "5")
    assert (5, f"{project.state('server')['pid']}\n") == (code, out)
    assert "Running" == project.state("server")["status"]


def test_the_api_answers_as_that_of_process_compose(project: Project) -> None:
    """By plain HTTP on the socket, as `curl --unix-socket` asks."""
    project.write(_SLEEPER)
    project.up()

    answer = ""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WAIT_SECONDS_MAX)
        eventually(lambda: client.connect_ex(str(project.socket)) == 0)
        client.sendall(b"GET /processes HTTP/1.1\r\nHost: pc\r\n\r\n")
        while data := client.recv(65536):
            answer += data.decode()
    (state,) = json.loads(answer.partition("\r\n\r\n")[2])["data"]
    fields = {"name", "status", "is_ready", "restarts", "exit_code", "pid"}
    assert fields <= set(state)


def test_two_at_once_start_one_stack(project: Project) -> None:
    """Who has the lock goes first, even before it listens; the other is refused, not queued."""
    project.write(_SLEEPER)
    with (project.directory / "pc.sock.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        code, _, err = project.call("up")
    assert 1 == code
    assert "running already" in err


@pytest.mark.parametrize("words", [["down"], ["process", "list"], ["process", "stop", "p"]])
def test_without_a_stack_a_command_says_so(project: Project, words: list[str]) -> None:
    code, _, err = project.call(*words)
    assert 1 == code
    assert f"no stack answers on {project.socket}" in err


def test_without_a_socket_path_nothing_listens(project: Project) -> None:
    project.write(_SLEEPER)
    del project.environment["PC_SOCKET_PATH"]

    assert "set PC_SOCKET_PATH" in project.call("up")[2]
    assert project.call("version")[1].startswith("stand-in (")
