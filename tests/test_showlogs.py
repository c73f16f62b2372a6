"""`logs`: all processes' lines merged, chosen, shown; from files of any size, and as they grow."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from services import logstream
from services.showlogs import main
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAYMENT = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER = "11111111-d9cb-469f-a165-70867728950e"
MIB = 1024 * 1024


def said(second: float, event: str = "e", *, level: str = "info", **fields: Any) -> str:
    at = datetime(2026, 11, 23, 7, tzinfo=UTC) + timedelta(seconds=second)
    time = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return json.dumps({**fields, "event": event, "level": level, "time": time}) + "\n"


def routed(second: float, request_id: str, method: str = "POST", uri: str = "/x") -> str:
    at = datetime(2026, 11, 23, 7, tzinfo=UTC) + timedelta(seconds=second)
    return json.dumps({
        "level": "info", "ts": at.isoformat(), "msg": "handled request", "status": 202,
        "request": {"method": method, "uri": uri}, "duration": 0.01, "request_id": request_id,
    }) + "\n"  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder without logs."""
    (tmp_path / "logs").mkdir()
    return tmp_path


def write(state: Path, **texts: str) -> None:
    for process, text in texts.items():
        (state / "logs" / f"{process.replace('_', '-')}.log").write_text(text)


def logs(state: Path, *words: str) -> tuple[int, list[str], str]:
    """Exit code, lines, and what was said beside them."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words, {"PLATFORM_STATE": str(state)}, out, err)
    except SystemExit as end:
        code = int(end.code or 0)
    return code, out.getvalue().splitlines(), err.getvalue()


def shown(state: Path, *words: str) -> list[str]:
    """Service and event of each line."""
    code, lines, _err = logs(state, *words)
    assert 0 == code
    found = []
    for line in lines:
        _time, service, *rest = re.split(r"  +", line)
        found.append(f"{service} {rest[1] if len(rest) > 1 else rest[0]}")
    return found


def test_all_processes_are_merged_by_time(state: Path) -> None:
    """Redis and the router too, each with its own format."""
    now = datetime(2026, 11, 23, 7, 0, 2, 500_000, tzinfo=UTC).astimezone()
    write(
        state,
        core_api=said(2, "a") + said(4, "b"),
        router=routed(3, "r-1"),
        redis=f"17:M {now:%d %b %Y %H:%M:%S}.500 * Ready\n",
    )
    assert ["core-api a", "redis Ready", "router request", "core-api b"] == shown(state)


def test_a_line_has_its_columns(state: Path) -> None:
    """The router's as the services'."""
    write(state, router=routed(1, "r-1"))
    line = (
        f"2026-11-23T07:00:01.000Z  {'router':<15}  info     request     {'r-1':<36}  "
        "method=POST path=/x status=202 ms=10.0"
    )
    assert [line] == logs(state)[1]


def test_a_line_without_a_time_keeps_its_place(state: Path) -> None:
    """A traceback stands below the line that it came after, and is no threat to the terminal."""
    traceback = "Traceback (most recent call last):\n  File x, line 1\nValueError: \x1b[31mno\n"
    write(state, auth_api=said(1, "a") + traceback + said(3, "c"), core_api=said(2, "b"))
    _code, lines, _err = logs(state)
    assert ["a", "Traceback", "File", "ValueError:", "b", "c"] == [
        word for line in lines for word in line.split() if word in
        ("a", "b", "c", "Traceback", "File", "ValueError:")
    ]  # fmt: skip
    assert "2026-11-23T07:00:01.000Z  auth-api           File x, line 1" == lines[2]
    assert "\x1b" not in "".join(lines)


def test_the_last_lines_are_shown(state: Path) -> None:
    """A hundred by default, of all processes together; -n says how many, or `all`."""
    write(
        state,
        core_api="".join(said(second, f"c{second}") for second in range(0, 300, 2)),
        auth_api="".join(said(second, f"a{second}") for second in range(1, 300, 2)),
    )
    assert 100 == len(shown(state))
    assert ["auth-api a297", "core-api c298", "auth-api a299"] == shown(state, "-n", "3")
    assert 300 == len(shown(state, "-n", "all"))
    assert ["auth-api a297", "auth-api a299"] == shown(state, "-n", "2", "--service", "auth-api")


def chain(state: Path) -> None:
    """A payment, another one, and somebody who asks how the first one stands."""
    made = {"request_id": "r-1", "transaction_id": PAYMENT}
    other = {"request_id": "r-2", "transaction_id": OTHER}
    asked = {"request_id": "r-3", "transaction_id": PAYMENT}
    write(
        state,
        router=routed(2, "r-1") + routed(3, "r-2") + routed(6, "r-3", "GET", f"/x/{PAYMENT}"),
        core_api=said(1, "made", method="POST", **made)
        + said(2, "other", method="POST", **other)
        + said(6, "asked", method="GET", **asked),
        psp_connector=said(4, "attempt", transaction_id=PAYMENT) + said(5, "attempt 2", **other),
        psp_sandbox=said(3.5, "charged", level="warning", **made),
    )


def test_a_transaction_is_followed_through_its_requests(state: Path) -> None:
    """The router knows the request only, the connector here the transaction only."""
    chain(state)
    assert ["core-api made", "router request", "psp-sandbox charged", "psp-connector attempt"] == (
        shown(state, "--transaction", PAYMENT)
    )
    assert "1 lines of requests that only asked" in logs(state, "--transaction", PAYMENT)[2]
    assert ["core-api asked", "router request"] == (
        shown(state, "--transaction", PAYMENT, "--all")[-2:]
    )


def test_a_request_is_followed_through_its_transaction(state: Path) -> None:
    """The other way round: what names only the transaction that the request made is shown."""
    chain(state)
    assert ["core-api made", "router request", "psp-sandbox charged", "psp-connector attempt"] == (
        shown(state, "--request", "r-1")
    )
    # Who only asks has made nothing.
    assert ["core-api asked", "router request"] == sorted(shown(state, "--request", "r-3"))


def test_what_belongs_together_is_learned_from_all_processes(state: Path) -> None:
    """Also where only one of them is to be shown."""
    chain(state)
    assert ["router request"] == shown(state, "--transaction", PAYMENT, "--service", "router")
    assert ["psp-sandbox charged"] == shown(state, "--request", "r-1", "--level", "warning")


def test_a_traceback_goes_with_its_line(state: Path) -> None:
    """In the columns of LOG_FORMAT=console it is indented below; nobody else's is shown."""
    line = "2026-11-23T07:00:0{0}.000Z  core-api  error  failed  r-{0}\n    ValueError: {0}\n"
    write(state, core_api=line.format(1) + line.format(2))
    _code, lines, _err = logs(state, "--request", "r-1")
    assert 2 == len(lines)
    assert lines[1].endswith("    ValueError: 1")


def test_an_id_that_occurs_nowhere(state: Path) -> None:
    """It is said where was looked; exit code 1."""
    chain(state)
    missing = PAYMENT.replace("0", "9")
    code, lines, err = logs(state, "--transaction", missing)
    assert (1, []) == (code, lines)
    assert (
        f"logs: nothing about transaction {missing} in the 4 log files of core-api, psp-connector, "
        f"psp-sandbox, router in {state}/logs\n"
    ) == err


@pytest.mark.parametrize(
    ("level", "events"),
    [("debug", "abcd"), ("info", "bcd"), ("warning", "cd"), ("error", "d")],
)
def test_a_level_and_what_is_more_severe(state: Path, level: str, events: str) -> None:
    """A text that says no level may be a crash, and is always shown."""
    levels = ["debug", "info", "warn", "critical"]
    write(
        state,
        core_api="".join(said(n, "abcd"[n], level=name) for n, name in enumerate(levels)) + "Oh!\n",
    )
    assert [*(f"core-api {event}" for event in events), "core-api Oh!"] == (
        shown(state, "--level", level)
    )


def test_since_a_time(state: Path) -> None:
    """RFC 3339, or so long ago."""
    now = datetime.now(UTC).isoformat()
    write(state, core_api=said(1, "a") + said(3, "b") + json.dumps({"time": now, "event": "c"}))
    assert ["core-api b", "core-api c"] == shown(state, "--since", "2026-11-23T09:00:02+02:00")
    assert ["core-api c"] == shown(state, "--since", "2m")


def test_json_is_for_programs(state: Path) -> None:
    """Each line is an object: as it was written, or made of what is no JSON."""
    written = said(1, "a", odd="ü")
    column = "2026-11-23T07:00:02.000Z  core-api  info  b  r-1  ms=1.5\n"
    write(state, core_api=written + column + "Traceback\n")
    _code, lines, _err = logs(state, "--json")
    assert written == lines[0] + "\n"
    second, third = map(json.loads, lines[1:])
    assert ("b", 1.5) == (second["event"], second["ms"])
    assert ("core-api", "Traceback") == (third["service"], third["event"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--service", "cor-api"), "logs: no log of cor-api; there are: core-api\n"),
        (("--request", "a b"), "must be a request's id"),
        (("--transaction", "7"), "must be a transaction's id"),
        (("--since", "yesterday"), "must be like 30s, 5m, 2h, 1d or 2026-11-24T13:19:00Z"),
        (("--since", "2026-11-24T13:19:00"), "must be like"),
        (("-n", "0"), "must be a number from 1 to 9999999, or `all`"),
        (("--level", "loud"), "invalid choice: 'loud'"),
    ],
)
def test_wrong_usage_is_explained(state: Path, words: tuple[str, ...], told: str) -> None:
    """Exit code 2, and nothing is shown."""
    write(state, core_api=said(1))
    code, lines, err = logs(state, *words)
    assert (2, []) == (code, lines)
    assert told in err


def test_without_logs_it_says_what_to_do(state: Path) -> None:
    """No state folder, or an empty one: exit code 1."""
    for folder, why in ((state / "none", "No such file"), (state, "has no file like")):
        code, lines, err = logs(folder)
        assert (1, []) == (code, lines)
        assert why in err
        assert "start the stack (`platform up -D`)" in err


def test_what_was_rotated_out_comes_first(state: Path) -> None:
    """Compressed or not, a process's lines are one stream."""
    write(state, core_api=said(3, "new"))
    (state / "logs" / "core-api.log.1").write_text(said(2, "old"))
    with gzip.open(state / "logs" / "core-api.log.2.gz", "wb") as file:
        file.write(said(1, "oldest").encode())
    for age, name in enumerate(["core-api.log", "core-api.log.1", "core-api.log.2.gz"]):
        os.utime(state / "logs" / name, (1e9 - age, 1e9 - age))
    assert ["core-api oldest", "core-api old", "core-api new"] == shown(state, "-n", "all")
    assert ["core-api old", "core-api new"] == shown(state, "-n", "2")


def test_a_damaged_file_is_said_and_the_rest_is_read(state: Path) -> None:
    write(state, core_api=said(1, "a"))
    (state / "logs" / "router.log.1.gz").write_bytes(b"no gzip at all")
    code, lines, err = logs(state)
    assert (0, 1) == (code, len(lines))
    assert "logs: note: router.log.1.gz could not be read to its end: it is damaged\n" == err


def test_workers_of_one_process_are_put_in_order(state: Path) -> None:
    """Each writes in its own time, milliseconds apart."""
    write(state, core_api=said(1, "a") + said(1.002, "c") + said(1.001, "b"))
    assert ["core-api a", "core-api b", "core-api c"] == shown(state)


@pytest.mark.parametrize(
    "words", [(), ("--since", "2026-11-23T07:00:29Z"), ("--request", "r-1"), ("--level", "error")]
)
def test_large_files_are_not_held_in_memory(state: Path, words: tuple[str, ...]) -> None:
    """48 MiB in two files: a few MiB at any time, and the end is found without reading it all."""
    filling = said(1, "x" * 1000, request_id="r-2") * (24 * MIB // 1100)
    end = said(30, "end", level="error", request_id="r-1")
    write(state, core_api=filling + end, router=filling)
    del filling
    tracemalloc.start()
    try:
        code, lines, _err = logs(state, *words)
        _now, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 == code
    assert "end" in lines[-1]
    assert peak_bytes < 16 * MIB


class Follower:
    """A running `logs -f`."""

    def __init__(self, state: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.showlogs", "-f", *words],
            env={**os.environ, "PLATFORM_STATE": str(state), "PYTHONPATH": str(support.ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line)

    def wait_for(self, *events: str) -> None:
        """Waits for lines with these words, in this order and no others."""

        def seen() -> list[str]:
            return [word for line in self.lines for word in line.split() if word in events]

        support.wait_until(lambda: list(events) == seen(), what=f"{events}, not {self.lines}")

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(10)
        self._reader.join(10)
        if self.process.stdout:
            self.process.stdout.close()
        return code


@pytest.fixture
def follow(state: Path) -> Iterator[Any]:
    """Starts a follower, and ends it."""
    started: list[Follower] = []

    def start(*words: str) -> Follower:
        started.append(Follower(state, *words))
        return started[-1]

    yield start
    for follower in started:
        if follower.process.poll() is None:
            follower.end(signal.SIGKILL)


def append(state: Path, process: str, text: str) -> None:
    with (state / "logs" / f"{process}.log").open("a") as file:
        file.write(text)


def test_following_shows_what_comes_in_time_order(state: Path, follow: Any) -> None:
    """The end of what is there, then each whole line, of processes that start later too."""
    write(state, core_api=said(1, "EV0") + said(2, "EV1"))
    follower = follow("-n", "1")
    follower.wait_for("EV1")
    append(state, "router", said(4, "EV3"))
    append(state, "core-api", said(3, "EV2") + said(5, "EV4")[:-20])
    follower.wait_for("EV1", "EV2", "EV3")
    append(state, "core-api", said(5, "EV4")[-20:])
    follower.wait_for("EV1", "EV2", "EV3", "EV4")
    assert 130 == follower.end()
    assert "Traceback" not in "".join(follower.lines)


def test_following_goes_through_rotation_and_truncation(state: Path, follow: Any) -> None:
    """No line is lost or shown twice; a reset of the state folder's logs is survived."""
    write(state, core_api=said(1, "EV1"))
    log = state / "logs" / "core-api.log"
    follower = follow()
    follower.wait_for("EV1")
    append(state, "core-api", said(2, "EV2"))
    log.rename(log.with_name("core-api.log.1"))
    append(state, "core-api", said(3, "EV3"))
    follower.wait_for("EV1", "EV2", "EV3")
    log.write_text(said(4, "EV4"))
    follower.wait_for("EV1", "EV2", "EV3", "EV4")
    log.unlink()
    append(state, "core-api", said(5, "EV5"))
    follower.wait_for("EV1", "EV2", "EV3", "EV4", "EV5")


def test_following_a_transaction(state: Path, follow: Any) -> None:
    """The router's line comes last, and belongs to it by what was learned before."""
    write(state, core_api=said(1, "EV0"))
    follower = follow("--transaction", PAYMENT, "--json")
    made = {"request_id": "r-1", "transaction_id": PAYMENT}
    append(state, "core-api", said(2, "EV1", **made) + said(3, "EV2", request_id="r-2"))
    support.wait_until(lambda: "EV1" in "".join(follower.lines), what="EV1")
    append(state, "router", routed(4, "r-2") + routed(5, "r-1"))
    support.wait_until(lambda: "r-1" in follower.lines[-1], what="r-1")
    assert "r-2" not in "".join(follower.lines)


def test_following_waits_for_a_start(state: Path, follow: Any) -> None:
    """In an empty state folder it says so, and goes on."""
    follower = follow()
    support.wait_until(lambda: follower.lines, what="a word")
    assert "waiting for a start" in follower.lines[0]
    append(state, "core-api", said(1, "EV1"))
    follower.wait_for("EV1")


def test_a_large_growth_is_followed_whole(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one look takes in, and a line that is too long among it."""
    monkeypatch.setattr(logstream, "_READ_BYTES_MAX", 1000)
    write(state, core_api=said(1, "a"))
    stream = logstream.Logs(state / "logs", grow=True)
    append(state, "core-api", "".join(said(n, f"{n}") for n in range(2, 50)))
    append(state, "core-api", "x" * 200_000 + "\n" + said(50, "50"))
    seen: list[str] = []
    with contextlib.closing(stream.follow()) as batches:
        for batch in batches:
            seen += [line.fields["event"] for line in batch]
            if "50" in seen:
                break
    assert [str(n) for n in range(2, 51)] == seen


def test_nobody_reads_any_more(state: Path) -> None:
    """`logs | head -1` ends without a word."""
    write(state, core_api=said(1, "x" * 1000) * 5000)
    script = f"{sys.executable} -m services.showlogs -n all | head -1"
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PLATFORM_STATE": str(state), "PYTHONPATH": str(support.ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ("", 1) == (done.stderr, len(done.stdout.splitlines()))
