"""The pages' data: status and reason of a process, the command that repeats a payment."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from devtools import loglines
from devtools.console import live, overview
from devtools.console.pages.payments import elapsed
from devtools.console.parts import log_rows
from devtools.console.settings import ConsoleSettings
from devtools.console.sources import EXPECTED_ERRORS, Payment, Sources, message_for
from devtools.console.spans import SpanStore
from devtools.supervisor import ProcessState
from tests.support import CLOSED_PORT, call

RUNNING = ProcessState("core-api", "Running", 0, True, True, 0, 0, None, None)
PENDING = replace(RUNNING, status="Pending", is_running=False, is_ready=False)
ENDED = replace(RUNNING, status="Completed", is_running=False, is_ready=False)
REDIS = replace(PENDING, name="redis", status="Disabled")


def displayed(state: Path, *states: ProcessState) -> dict[str, tuple[str, str]]:
    """Status and reason of each process; all of them need Redis and preflight."""
    supervisor = SimpleNamespace(
        processes=lambda: list(states), needs=lambda _name: ["preflight", "redis"]
    )
    sources: Any = SimpleNamespace(
        supervisor=supervisor,
        first_port=8000,
        settings=SimpleNamespace(platform_state=state),
    )
    return {one["name"]: (one["status"], one["why"]) for one in overview.read(sources)}


@pytest.mark.parametrize(
    ("core_api", "status", "why"),
    [
        (RUNNING, "ready", ""),
        (replace(RUNNING, is_ready=False), "starting", "runs, but is not ready: its last line"),
        (PENDING, "waiting", "waits for redis (disabled)"),
        (ENDED, "stopped", ""),
        (replace(ENDED, exit_code=78), "completed", "ended with code 78: its last line"),
    ],
)
def test_the_reason_why_a_process_is_not_up_is_shown(
    tmp_path: Path, core_api: ProcessState, status: str, why: str
) -> None:
    """The reason is the processes it waits for, or its exit code and the end of its log."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/core-api.log").write_text("its first line\nits last line\n")
    preflight = replace(ENDED, name="preflight")
    found = displayed(tmp_path, core_api, REDIS, preflight)
    assert found["core-api"] == (status, why)
    assert found["preflight"] == ("done", "")
    assert list(found) == ["core-api", "redis", "preflight"]


def test_the_command_to_copy_runs_nothing_else(tmp_path: Path) -> None:
    """No merchant name injects a command."""
    record = {"amount": 1, "currency": "USD", "payment_method": "pm_card_visa"}
    name = f"x; touch {tmp_path}/a; $(touch {tmp_path}/b) '`touch {tmp_path}/c`"
    text = Payment(record, name, [], None).curl("http://127.0.0.1:8000")
    programs = "curl() { printf '%s' \"${@:$#}\"; }; merchant() { printf '<%s>' \"$@\" >&2; }; "
    done = call(["bash", "-c", programs + text])
    assert done.stderr == f"<token><--as><{name}>"
    assert list(tmp_path.iterdir()) == []
    assert json.loads(done.stdout) == record


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
TIMES = ["2026-11-28T10:00:00", "2026-11-28T10:00:00.5Z", "0001-01-01T00:00:00+14:00", "2026-11-28"]
FIELDS = st.fixed_dictionaries(
    {"time": st.sampled_from(TIMES), "level": st.sampled_from(["info", "INFO", "warn"])},
    optional=dict.fromkeys(("event", "msg", "service"), JSON),
)


@given(st.lists(FIELDS.map(json.dumps) | JSON.map(json.dumps), max_size=3))
def test_lines_of_any_program_are_shown(texts: list[str]) -> None:
    """As of a service with a logger of its own: the page shows all of them or none."""
    router = [f"2026-11-28T10:00:00.000Z\tinfo\tevent\t{text}" for text in texts]
    lines = [line for text in [*texts, *router] if (line := loglines.parse(text))]
    lines.sort(key=lambda line: line.at)
    assert orjson.dumps(log_rows(lines))


def test_a_fault_of_a_page_is_named_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its traceback is logged once, not with each poll, until another read succeeds."""

    async def io_bound(read: Callable[[], Any]) -> Any:
        return read()

    monkeypatch.setattr(live, "ui", ui := Mock())
    monkeypatch.setattr(live, "run", SimpleNamespace(io_bound=io_bound))
    results: Any = iter([KeyError("event"), KeyError("event"), "data", KeyError("event")])
    shown: list[str] = []
    part = live.Live(Mock(side_effect=results), shown.append)
    label = ui.label().classes().props()
    label.is_deleted = False
    with structlog.testing.capture_logs() as lines:
        for _ in range(4):
            asyncio.run(part.refresh())
    assert shown == ["data"]
    assert [line["event"] for line in lines] == ["cannot read the data of a page"] * 2
    assert "`logs --service console` has its traceback" in label.text
    assert label.visible


def test_a_line_of_another_program_has_its_time_in_utc() -> None:
    """Without a time zone it is UTC, as in all processes of the stack."""
    for time in ("2026-11-28T10:00:00", "2026-11-28T12:00:00+02:00"):
        line = loglines.parse(f'{{"level": "info", "msg": "a", "time": "{time}"}}')
        assert line
        assert (
            log_rows([line])[0] | {"at": "11-28 10:00:00.000", "text": "  msg=a"}
            == (log_rows([line])[0])
        )


def sources_of(redis_port: int, folder: Path) -> Sources:
    environ = {"HTTP_PORT": "1", "PLATFORM_PORT": "1", "PLATFORM_STATE": str(folder)}
    environ["REDIS_URL"] = f"redis://127.0.0.1:{redis_port}/0"
    return Sources(ConsoleSettings.read(environ), SpanStore(folder / "spans"))


def test_a_redis_that_is_down_is_named(tmp_path: Path) -> None:
    """The gauges of the queue have no samples then."""
    with pytest.raises(EXPECTED_ERRORS) as error:
        sources_of(CLOSED_PORT, tmp_path).gauges()
    assert message_for(error.value).startswith("Redis does not respond.")


@pytest.mark.parametrize("created_at", ["", "x", "2026-11-26T22:59:00"])
def test_a_payment_with_an_unreadable_time_is_shown(created_at: str) -> None:
    """Otherwise it would hide all others."""
    payment = {"status": "captured", "created_at": created_at, "updated_at": "2026-11-26T22:59:01Z"}
    assert elapsed(payment) == ""


def test_a_problem_of_the_core_api_is_shown(client: Any, redis_port: int, tmp_path: Path) -> None:
    """Points broken by hand are named on the page, with where to look."""
    sources = sources_of(redis_port, tmp_path)
    record = {"id": "t", "amount": 1, "currency": "USD", "payment_method": "pm", "user_id": 2}
    record |= {"status": "queued", "created_at": "", "updated_at": "", "attempts": 0}
    client.hset("transaction:t", mapping=record | {"timeline": ""})
    assert sources.payment("t") is not None
    client.set("user:2:points", "abc")
    with pytest.raises(EXPECTED_ERRORS) as error:
        sources.payment("t")
    text = "Your points are temporarily unavailable. The page Logs has the reason."
    assert message_for(error.value) == text


@pytest.mark.parametrize("owner", ["", "x", "²", "-1", pytest.param("9" * 4301, id="digits")])
def test_a_payment_of_nobody_is_not_found(
    client: Any, redis_port: int, tmp_path: Path, owner: str
) -> None:
    """An id of over 4,300 digits is not even a number to Python."""
    client.hset("transaction:t", mapping={"id": "t", "user_id": owner})
    assert sources_of(redis_port, tmp_path).payment("t") is None
