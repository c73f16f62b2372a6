"""`merchant trace`: where a transaction's time went, from its record and the stack's logs."""

from __future__ import annotations

import io
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from devtools.merchant.cli import main
from tests.devtools.merchant.platform import Platform, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNKNOWN_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
PAYMENT = "5d9c5f6e-2a2b-4f5e-9a5a-0c6b8d1f7e11"
RECORD = {
    "id": PAYMENT, "user_id": 1, "amount": 1250, "currency": "USD",
    "payment_method": "pm_card_visa", "status": "captured",
    "created_at": "2026-11-23T07:00:00.003Z", "updated_at": "2026-11-23T07:00:00.040Z",
    "attempts": 1, "psp_reference": "pi_1", "loyalty_points": 12,
}  # fmt: skip


def at(ms: float) -> str:
    """A moment after 07:00, as logs have it: to the microsecond."""
    moment = datetime.fromisoformat("2026-11-23T07:00:00+00:00") + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def event(name: str, ms: float, **more: Any) -> dict[str, Any]:
    return {"event": name, "at": at(ms)[:-4] + "Z", **more}


def captured_at_once() -> list[dict[str, Any]]:
    return [event("queued", 3), event("processing", 5, attempt=1), event("captured", 40)]


def routed(end_ms: float, ms: float, method: str = "POST", request_id: str = "r-1") -> str:
    return json.dumps({
        "level": "info", "time": at(end_ms), "event": "handled request", "service": "router",
        "method": method, "path": "/transactions", "ms": ms, "status": 202,
        "request_id": request_id,
    })  # fmt: skip


def request(service: str, end_ms: float, ms: float, path: str, **more: Any) -> str:
    return json.dumps({
        "service": service, "request_id": "r-1", "method": "POST", "path": path, "status": 202,
        "ms": ms, "event": "request", "level": "info", "time": at(end_ms),
        "transaction_id": PAYMENT, **more,
    })  # fmt: skip


def attempt(number: int, end_ms: float, psp_ms: float, **more: Any) -> str:
    return json.dumps({
        "service": "psp-connector", "request_id": "r-1", "transaction_id": PAYMENT,
        "attempt": number, "psp_ms": psp_ms, "effective": True, "event": "attempt",
        "level": "info", "time": at(end_ms), **more,
    })  # fmt: skip


@pytest.fixture
def platform() -> Iterator[Platform]:
    """One where alice has a payment."""
    with serving(Platform()) as running:
        running.transactions[PAYMENT] = RECORD | {"timeline": captured_at_once()}
        yield running


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """What the stack logged of it."""
    folder = tmp_path / "logs"
    folder.mkdir()
    written = {
        "router.log": [routed(10, 10)],
        "core-api.log": [request("core-api", 8, 6, "/")],
        "psp-connector.log": [attempt(1, 42, 30)],
        "psp-sandbox.log": [request("psp-sandbox", 34, 20, "/v1/payment_intents")],
        "redis.log": ["17:M 23 Nov 2026 07:00:00.000 * Ready to accept connections"],
    }
    for name, lines in written.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def trace(platform: Platform, *words: str, **environ: str) -> tuple[int, list[str], str]:
    """Exit code, lines and complaints of `merchant trace` as alice."""
    stdout, stderr = io.StringIO(), io.StringIO()
    command = ["trace", *words, "--as", "alice", "--url", platform.url]
    code = main(command, environ, stdout, stderr=stderr)
    return code, stdout.getvalue().splitlines(), stderr.getvalue()


def table(platform: Platform, *words: str, **environ: str) -> list[str]:
    """The lines, with a single blank where there are several."""
    code, lines, stderr = trace(platform, PAYMENT, *words, **environ)
    assert (code, stderr) == (0, "")
    return [" ".join(line.split()) for line in lines]


def test_each_hop_has_its_time(platform: Platform, logs: Path) -> None:
    """A row a span, in order of beginning; then what each hop took of its own."""
    assert [
        f"transaction {PAYMENT}",
        "request r-1",
        "+0.0 router 10.0 ms POST /transactions 202",
        "+2.0 core-api 6.0 ms POST / 202",
        "+3.0 queue 2.0 ms waits for attempt 1",
        "+5.0 psp-connector 37.0 ms attempt 1: captured PSP 30.0 ms finish 7.0 ms",
        "+14.0 psp-sandbox 20.0 ms POST /v1/payment_intents 202",
        "spent router 4.0 ms Core API 6.0 ms queue 2.0 ms PSP 30.0 ms finish 7.0 ms all 42.0 ms",
        "captured USD 12.50 12 points in 37 ms",
    ] == table(platform, "--logs", str(logs))


def test_the_table_is_aligned(platform: Platform, logs: Path) -> None:
    """The times stand one below the other."""
    _code, lines, _stderr = trace(platform, PAYMENT, "--logs", str(logs))
    assert len({line.index(" ms ") for line in lines[2:7]}) == 1


def test_the_logs_are_in_the_state_folder(platform: Platform, logs: Path) -> None:
    """As the stack and all its other tools know it."""
    assert "request r-1" in table(platform, PLATFORM_STATE=str(logs.parent))


def test_without_logs_the_record_tells_what_it_can(platform: Platform, tmp_path: Path) -> None:
    """And the note says what is missing and where to look: the stack may run elsewhere."""
    lines = table(platform, PLATFORM_STATE=str(tmp_path / "elsewhere"))
    assert lines[1:4] == [
        "+0.0 queue 2.0 ms waits for attempt 1",
        "+2.0 psp-connector 35.0 ms attempt 1: captured",
        "spent queue 2.0 ms attempt 35.0 ms all 37.0 ms",
    ]
    assert lines[-1].startswith(f"note: no log in {tmp_path}/elsewhere/logs mentions it")
    assert lines[-1].endswith("say where the logs are with --logs or PLATFORM_STATE")


def test_attempts_that_failed_for_now_are_told_apart(platform: Platform, logs: Path) -> None:
    """What was waited on purpose is not the queue's time."""
    platform.transactions[PAYMENT]["timeline"] = [
        *captured_at_once()[:2],
        event("retry", 40, reason="HTTP 500", next_attempt_at=at(240)),
        event("processing", 250, attempt=2),
        event("captured", 270),
    ]
    with (logs / "psp-connector.log").open("a") as file:
        file.write(attempt(2, 271, 15) + "\n")
    lines = table(platform, "--logs", str(logs))
    assert lines[5:10] == [
        "+5.0 psp-connector 37.0 ms attempt 1: retry reason HTTP 500 PSP 30.0 ms finish 7.0 ms",
        "+14.0 psp-sandbox 20.0 ms POST /v1/payment_intents 202",
        "+40.0 queue 200.0 ms waits before the next attempt",
        "+240.0 queue 10.0 ms waits for attempt 2",
        "+250.0 psp-connector 21.0 ms attempt 2: captured PSP 15.0 ms finish 6.0 ms",
    ]
    spent = "router 4.0 ms Core API 6.0 ms queue 12.0 ms PSP 45.0 ms finish 13.0 ms"
    assert f"spent {spent} backoff 200.0 ms all 271.0 ms" == lines[10]


def test_a_connector_that_died_shows(platform: Platform, logs: Path) -> None:
    """An attempt without an outcome, the take-over, and what the dead one said too late."""
    platform.transactions[PAYMENT]["timeline"] = [
        *captured_at_once()[:2],
        event("processing", 6005, attempt=2),
        event("captured", 6030),
    ]
    taken = {"event": "reclaimed", "transaction_id": PAYMENT, "time": at(6004)}
    taken |= {"level": "warning", "service": "psp-connector"}
    lines = [
        json.dumps(taken), attempt(1, 9000, 8990, effective=False, outcome="captured"),
        attempt(2, 6031, 20),
    ]  # fmt: skip
    (logs / "psp-connector.log").write_text("\n".join(lines) + "\n")
    shown = table(platform, "--logs", str(logs))
    lost = "+5.0 psp-connector 6000.0 ms attempt 1: no outcome, the connector stopped; taken over"
    assert lost in shown
    assert "+6004.0 psp-connector reclaimed" in shown
    late = "attempt attempt 1 psp_ms 8990 effective false outcome captured"
    assert f"+9000.0 psp-connector {late}" in shown


@pytest.mark.parametrize(
    ("timeline", "row"),
    [
        ([event("queued", 3)], "+0.0 queue waits for an attempt"),
        (captured_at_once()[:2], "+2.0 psp-connector attempt 1: not over"),
    ],
)
def test_an_open_transaction_is_shown_as_such(
    platform: Platform, tmp_path: Path, timeline: list[dict[str, Any]], row: str
) -> None:
    """As far as it has come."""
    platform.fault = "never ends"
    platform.transactions[PAYMENT] |= {"status": "queued", "timeline": timeline}
    lines = table(platform, PLATFORM_STATE=str(tmp_path))
    assert row in lines
    assert "queued USD 12.50 still open" in lines


def test_a_replayed_transaction_has_two_first_attempts(platform: Platform, logs: Path) -> None:
    """Each with its own line, though the numbers began again."""
    platform.transactions[PAYMENT]["timeline"] = [
        *captured_at_once()[:2],
        event("failed", 40, reason="given up"),
        event("queued", 1000),
        event("processing", 1005, attempt=1),
        event("captured", 1020),
    ]
    with (logs / "psp-connector.log").open("a") as file:
        file.write(attempt(1, 1021, 10) + "\n")
    lines = table(platform, "--logs", str(logs))
    told = [line for line in lines if "PSP" in line and "attempt 1" in line]
    assert told == [
        "+5.0 psp-connector 37.0 ms attempt 1: failed reason given up PSP 30.0 ms finish 7.0 ms",
        "+1005.0 psp-connector 16.0 ms attempt 1: captured PSP 10.0 ms finish 6.0 ms",
    ]


def test_a_replay_is_not_taken_for_the_first_attempt(platform: Platform, logs: Path) -> None:
    """Where the first one's line was rotated away long ago."""
    platform.transactions[PAYMENT]["timeline"] = [
        *captured_at_once()[:2],
        event("failed", 40, reason="given up"),
        event("queued", 50_000),
        event("processing", 50_005, attempt=1),
        event("captured", 50_020),
    ]
    (logs / "psp-connector.log").write_text(attempt(1, 50_021, 10) + "\n")
    lines = table(platform, "--logs", str(logs))
    assert "+5.0 psp-connector 35.0 ms attempt 1: failed reason given up" in lines
    second = "+50005.0 psp-connector 16.0 ms attempt 1: captured PSP 10.0 ms finish 6.0 ms"
    assert second in lines


def test_nothing_waits_before_it_was_asked_for(platform: Platform, logs: Path) -> None:
    """The record has whole milliseconds, the logs finer ones: the finer one counts."""
    (logs / "core-api.log").write_text(request("core-api", 9.4, 6, "/") + "\n")
    assert table(platform, "--logs", str(logs))[3:5] == [
        "+3.4 core-api 6.0 ms POST / 202",
        "+3.4 queue 1.6 ms waits for attempt 1",
    ]


def test_a_router_line_of_another_request_is_no_hop(platform: Platform, logs: Path) -> None:
    """A client may send all its requests under one id: only the one around the Core API's."""
    with (logs / "router.log").open("a") as file:
        file.write(routed(500, 100) + "\n")
    lines = table(platform, "--logs", str(logs))
    assert "+400.0 router 100.0 ms POST /transactions 202" in lines
    assert lines[-2].startswith("spent router 4.0 ms ")


def test_who_only_asked_is_not_shown(platform: Platform, logs: Path) -> None:
    """A table of a hundred polls would hide the payment."""
    with (logs / "core-api.log").open("a") as file:
        file.write(request("core-api", 60, 1, f"/{PAYMENT}", method="GET", request_id="r-2") + "\n")
    lines = table(platform, "--logs", str(logs))
    assert "request r-2" not in lines


def test_json_is_one_document_with_rows_sums_and_lines(platform: Platform, logs: Path) -> None:
    """For a program: numbers, not words."""
    code, lines, _stderr = trace(platform, PAYMENT, "--logs", str(logs), "--json")
    document = json.loads("\n".join(lines))
    assert code == 0
    assert RECORD | {"timeline": captured_at_once()} == document["transaction"]
    assert document["request_ids"] == ["r-1"]
    assert document["spent_ms"] == {
        "router": 4, "Core API": 6, "queue": 2, "PSP": 30, "finish": 7
    }  # fmt: skip
    assert document["all_ms"] == 42
    assert document["rows"][3] == {
        "offset_ms": 5, "process": "psp-connector", "ms": 37, "attempt": 1,
        "what": "attempt 1: captured  PSP 30.0 ms  finish 7.0 ms", "hops": {"PSP": 30, "finish": 7},
    }  # fmt: skip
    assert [line["process"] for line in document["lines"]] == [
        "core-api",
        "router",
        "psp-sandbox",
        "psp-connector",
    ]


def test_an_unknown_id_ends_as_it_does_for_show(platform: Platform, logs: Path) -> None:
    """Whatever the logs may hold: only one's own are told of."""
    code, lines, stderr = trace(platform, UNKNOWN_ID, "--logs", str(logs))
    shown = io.StringIO()
    show = ["show", UNKNOWN_ID, "--as", "alice", "--url", platform.url]
    assert main(show, {}, io.StringIO(), stderr=shown) == code == 4
    assert lines == []
    assert shown.getvalue().splitlines()[:-1] == stderr.splitlines()[:-1]


def test_a_logs_folder_that_is_none_is_wrong_usage(platform: Platform, tmp_path: Path) -> None:
    """Unlike the one that is only supposed: somebody wrote this."""
    code, _lines, stderr = trace(platform, PAYMENT, "--logs", str(tmp_path / "none"))
    assert code == 2
    assert "argument --logs: must be a folder with files like core-api.log" in stderr


def test_hostile_lines_steer_no_terminal_and_break_nothing(platform: Platform, logs: Path) -> None:
    """Wrong types, endless texts, escapes: a row for each at the most."""
    odd: list[dict[str, Any]] = [
        {"event": "request", "ms": "x", "path": "\x1b[2J", "method": ["POST"]},
        {"event": "request", "ms": 1e300, "path": "y" * 5000, "method": "POST"},
        {"event": ["attempt"], "attempt": {}, "psp_ms": None},
        {"event": "attempt", "attempt": 1, "psp_ms": -1},
    ]
    with (logs / "core-api.log").open("a") as file:
        for fields in odd:
            line = {"transaction_id": PAYMENT, "time": at(50), "level": "info", **fields}
            file.write(json.dumps(line) + "\n")
    code, lines, stderr = trace(platform, PAYMENT, "--logs", str(logs))
    assert (code, stderr) == (0, "")
    assert 2 + 5 + len(odd) + 2 == len(lines)
    assert "\x1b" not in "".join(lines)
    assert max(map(len, lines)) < 300
