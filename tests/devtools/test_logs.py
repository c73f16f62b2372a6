"""`logs`: the logs of all processes, merged and filtered by lnav, with our format file."""

import contextlib
import gzip
import os
import re
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools import follow
from devtools.logs import main
from tests.devtools.conftest import at_terminal
from tests.support import ROOT, call, program, script, wait_until

T1 = "3ffad832-4908-4697-aaed-7256802ccb64"
T2 = "6c2f2ea8-fac0-4b48-9ef6-d2db68d3bccf"
DAY = "2026-11-24T13:19"
LINES = {
    "process-compose.log": ["\x1b[90m26-11-24 13:19:00.000\x1b[0m \x1b[32mINF\x1b[0m began"],
    "redis.log": ["7:M 24 Nov 2026 13:19:01.000 # no memory"],
    "core-api.log": [
        f"{DAY}:03.000Z info    core-api      request a=1 transaction_id={T1} request_id=r-1",
        f'{{"service": "core-api", "event": "x \\"level\\": \\"error\\"", "request_id": "r-9",'
        f' "level": "warning", "time": "{DAY}:04.500000Z"}}',
        f"{DAY}:05.000Z error   core-api      b request_id=r-11",
        "    Traceback (most recent call last):",
        "    ValueError: r-99",
    ],
    "router.log": [
        f'{DAY}:04.000Z\tinfo\tc\t{{"path": "/request_id=r-2", "request_id": "r-1"}}',
        # As Caddy writes it with time_format rfc3339_nano.
        f'{{"level":"info","time":"{DAY}:07.123456789Z","event":"f","path":"/","service":"router"}}',
        f'{DAY}:08.000Z\twarn\td\t{{"method": "GET", "path": "/{T1}", "request_id": "r-3"}}',
    ],
    "psp-connector.log.1": [
        f'{{"time": "{DAY}:06.000Z", "level": "info", "transaction_id": "{T2}", "event": "e", '
        '"service": "psp-connector", "request_id": "r-2"}',
        f"{DAY}:06.500Z info    psp-connector f",
    ],
}
COMPRESSED = f"{DAY}:02.000Z info    core-api      old request_id=r-1"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with logs."""
    (tmp_path / "version").write_text("1\n")
    folder = tmp_path / "logs"
    folder.mkdir()
    for name, lines in LINES.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    rotated = folder / "core-api-2026-11-24T13-19-02.055.log.gz"
    rotated.write_bytes(gzip.compress((COMPRESSED + "\n").encode()))
    return tmp_path


LOGS = [sys.executable, "-m", "devtools.logs"]


@pytest.fixture
def environ(state: Path) -> dict[str, str]:
    return {**os.environ, "PLATFORM_STATE": str(state)}


Logs = Callable[..., tuple[int, str, str]]


@pytest.fixture
def logs(environ: dict[str, str], capfd: pytest.CaptureFixture[str]) -> Logs:
    """Runs `logs` in a pipe; returns exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments, environ)
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capfd.readouterr()

    return run


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ("", "0123445..6678"),
        ("--service redis --service router", "1478"),
        ("--service core-api", "2345.."),
        ("--service core-api -n 2", ".."),
        ("--level warning", "145..8"),
        ("--level error", "5.."),
        (f"--since {DAY}:05+00:00", "5..6678"),
        (f"--since {DAY}:05+00:00 -n 1", "8"),
        ("--request r-1", "234"),
        ("--request r-9", "4"),
        ("--request r-11 --level error", "5.."),
        (f"--transaction {T1}", "234"),
        (f"--transaction {T2}", "6"),
        ("--level error --since 5m", ""),
    ],
)
def test_lines_are_filtered_and_in_time_order(logs: Logs, options: str, seconds: str) -> None:
    """All processes and formats; a traceback follows its line.

    A digit is the line's second, a dot a line of a traceback.
    """
    code, out, err = logs(*options.split())
    found = re.findall(r":19:0(\d)\.|^ +(?:Trace|Value)", out, re.MULTILINE)
    seconds_found = "".join(second or "." for second in found)
    assert (code, seconds_found, err) == (0, seconds, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--request r-4", "nothing about r-4 in "),
        (f"--transaction {T1[:-1]}5", f"nothing about {T1[:-1]}5 in "),
        ("-f -n 2", "leave out -n"),
        ("-f --since 1h", "leave out -n"),
        ("--service core", "there are: core-api, process-compose, psp-connector, redis, router"),
    ],
)
def test_nothing_to_show_is_an_error(logs: Logs, options: str, message: str) -> None:
    """The exit code is 1, with a message."""
    code, out, err = logs(*options.split())
    assert (code, out) == (1, "")
    assert message in err


@pytest.mark.parametrize(
    "option",
    [
        *("--since=x", "--since=2026-13-01", "--since=0001-01-01T00+14"),
        *("-n=0", "-n=-5", "-n=x", "-n=11111111111"),
    ],
)
def test_a_wrong_time_or_count_is_wrong_usage(logs: Logs, option: str) -> None:
    """Even one out of range; the message says what is valid."""
    code, out, err = logs(*option.split("="))
    assert (code, out) == (2, "")
    assert re.search("argument (--since: must be like 5m or 2026|-n: must be a number, 1 or)", err)


def test_a_transaction_may_have_any_number_of_requests(state: Path, logs: Logs) -> None:
    """Such as of a client that repeats its POST for ever; lnav is silent about a long pattern."""
    ids = [str(uuid.uuid4()) for _ in range(3_000)]
    said = f"{DAY}:07.000Z info    core-api      request transaction_id={T1} request_id="
    (state / "logs/core-api.log").write_text("".join(f"{said}{id_}\n" for id_ in ids))
    code, out, _ = logs("--transaction", T1)
    assert (code, out.count("\n")) == (0, len(ids))


def test_following_in_a_pipe_prints_new_lines(state: Path, environ: dict[str, str]) -> None:
    """Lines are filtered as without -f, even after a rotation, and of a replica that is new."""
    core, output = state / "logs" / "core-api.log", state / "output"
    replica, new = state / "logs" / "core-api.log.1", state / "logs" / "new-api.log"

    def shows(text: str) -> bool:
        with core.open("a") as file:
            file.write(f"{DAY}:59.000Z info    core-api      not this\n")
            file.write(f"{DAY}:59.000Z error   core-api      nor this\n")
            file.write(f"{DAY}:59.000Z error   core-api      {text} \x1b[1mid={T1}\x1b[0m\n")
            file.write("    traceback\n")
        return text in output.read_text()

    argv = [*LOGS, "-f", "--level", "warning", "--transaction", T1]
    with program(argv, environ=environ, output=output):
        wait_until(lambda: shows("first"), what="the first line")
        core.rename(state / "logs" / "core-api-2026-11-24T13-20-00.000.log")
        wait_until(lambda: shows("second"), what="the second line")
        with core.open("a") as file:
            # More than what is written before the file is read again.
            file.write("x" * 100_000 + "\n")
        time.sleep(2 * follow.POLL_SECONDS)
        core.write_text("")
        wait_until(lambda: shows("third"), what="the line of a truncated file")
        core = replica
        wait_until(lambda: shows("fourth"), what="the line of a new replica")
        core = new
        wait_until(lambda: shows("fifth"), what="the line of a new service")
    text = output.read_text()
    assert "traceback" in text
    assert "this" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("options", [[], ["--level", "error"], ["--service", "core-api"]])
def test_following_shows_text_without_times(
    state: Path, environ: dict[str, str], options: list[str]
) -> None:
    """Such as the traceback of a service that cannot start, whatever other processes log."""
    core, output = state / "logs" / "core-api.log", state / "output"
    frames = ["  frame", "", "SyntaxError: invalid syntax"]

    def shows() -> bool:
        with core.open("a") as file, (state / "logs" / "router.log").open("a") as router:
            file.write("\n".join(["Traceback (most recent call last):", *frames]) + "\n")
            router.write(f"{DAY}:59.000Z\tdebug\td\t{{}}\n  of debug\n")
        return "SyntaxError" in output.read_text()

    with program([*LOGS, "-f", *options], environ=environ, output=output):
        wait_until(shows, what="the traceback")
    assert "Traceback (most recent call last):\n" + "\n".join(frames) in output.read_text()
    assert not options or "of debug" not in output.read_text()


def test_following_yields_whole_lines(tmp_path: Path) -> None:
    """Of a line that is being written, and of a file that was truncated and is longer again."""
    file = tmp_path / "process-compose.log"
    file.write_text("old\nit be")
    whole, longer = "old\nit began\n", "it began again\nlast\n"
    with contextlib.closing(follow.new_lines(tmp_path, lambda _path: True)) as lines:
        threading.Timer(0.3, file.write_text, [whole]).start()
        assert next(lines) == (file, b"it began\n")
        threading.Timer(0.3, file.write_text, [longer]).start()
        assert [next(lines), next(lines)] == [(file, b"it began again\n"), (file, b"last\n")]


def test_following_by_id_shows_no_text_without_times(state: Path, environ: dict[str, str]) -> None:
    """It is about no request."""
    core, output = state / "logs" / "core-api.log", state / "output"

    def shows() -> bool:
        with core.open("a") as file:
            file.write("Traceback (most recent call last):\n")
            file.write(f"{DAY}:59.000Z info    core-api      a request_id=r-1\n")
        return "r-1" in output.read_text()

    with program([*LOGS, "-f", "--request", "r-1"], environ=environ, output=output):
        wait_until(shows, what="the line")
    assert "Traceback" not in output.read_text()


@pytest.mark.parametrize(
    ("options", "variables", "last"),
    [
        (["-f"], {}, "router.log"),
        (["-n", "5"], {}, "-n"),
        ([], {"NO_COLOR": "1"}, "-n"),
    ],
)
def test_a_terminal_gets_the_viewer(
    state: Path, environ: dict[str, str], options: list[str], variables: dict[str, str], last: str
) -> None:
    """The viewer opens, unless plain lines are requested, with a home that keeps no filter."""
    script(state / "lnav", 'echo "$HOME" "$@"')
    own = {"TERM": "xterm", "NO_COLOR": "", "PATH": f"{state}:{os.environ['PATH']}"}
    env = environ | own | {"HOME": "/mine"} | variables
    code, screen = at_terminal([*LOGS, *options], env)
    home, *args = screen.split()
    assert (code, home != "/mine", Path(args[-1]).name) == (0, True, last)


def test_the_path_of_a_checkout_is_no_pattern(
    logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lnav would look for `w/...` and drop the lines of Redis, which only our format knows."""
    ours = shutil.copytree(ROOT / "devtools/lnav/formats/platform", tmp_path / "[work]/platform")
    monkeypatch.setattr("devtools.logs._FORMAT", ours)
    assert "no memory" in logs("--service", "redis", "--level", "warning")[1]


def test_lnav_accepts_the_format() -> None:
    """Loading it prints no warning; lnav checks the samples, too."""
    formats = str(ROOT / "devtools/lnav")
    done = call(["lnav", "-C", "-W", "-I", formats])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
