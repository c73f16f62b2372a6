"""Log lines: what `services/common/logs.py` writes, `devtools/loglines.py` reads back."""

import json
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devtools import loglines
from services.common import logs
from services.common.settings import Settings

FORMATS = pytest.mark.parametrize("log_format", ["console", "json"])
NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(
    lambda name: name not in {"service", "level", "event", "time", "exc_info", "stack", "exception"}
)
VALUES = st.text() | st.integers() | st.booleans() | st.lists(st.text(), max_size=2) | st.none()


@contextmanager
def configured(log_format: str) -> Iterator[None]:
    """Logging configured as in a service."""
    root = logging.getLogger()
    handlers, level, before = root.handlers[:], root.level, structlog.get_config()
    try:
        logs.configure("core-api", Settings.read({"LOG_FORMAT": log_format}))
        yield
    finally:
        structlog.configure(**before)
        root.handlers, root.level = handlers, level


@FORMATS
@given(fields=st.dictionaries(NAMES, VALUES, max_size=4))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_line_loses_nothing(
    log_format: str, fields: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    """Any client input is logged as one printable line whose fields can be read back."""
    with configured(log_format):
        structlog.get_logger().warning("request", **fields)
    (text,) = capfd.readouterr().out.splitlines()
    line = loglines.parse(text)
    assert text.isprintable()
    assert line is not None
    as_text = {n: v if isinstance(v, str) else json.dumps(v) for n, v in fields.items()}
    assert (line.level, line.fields) == (
        "warning",
        {"service": "core-api", "event": "request", **as_text},
    )


def test_a_line_begins_with_what_is_read_first(capfd: pytest.CaptureFixture[str]) -> None:
    """The first 100 columns have time, level, process, event and outcome; ids come last."""
    with configured("console"):
        structlog.get_logger().info("request", request_id="r-1", transaction_id="t-1", status=202)
    text = capfd.readouterr().out
    ids = "transaction_id=t-1 request_id=r-1"
    assert text[23:] == f"Z info    core-api      request status=202 {ids}\n"


@FORMATS
def test_a_traceback_shows_no_local_variable(
    log_format: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A local variable could be a password. Console tracebacks are indented and escaped."""
    password = "marker-" + "4711"
    with configured(log_format):
        try:
            int("\x1b[31m\n2026-11-24T13:19:18.852Z")
        except ValueError:
            logging.getLogger("gunicorn").exception("request failed")
    text = capfd.readouterr().out
    first, *rest = text.splitlines()
    assert "request failed" in first
    assert "ValueError" in text
    assert password not in text
    assert "\x1b" not in text
    assert all(line.startswith("    ") for line in rest)


def test_the_latest_lines_of_all_files_are_in_time_order(tmp_path: Path) -> None:
    """Only whole lines are read; a traceback stays with its line, and is an error without one."""
    log, time = tmp_path / "core-api.log", "2026-11-24T13:19:"
    log.write_text(
        f"{time}18.852Z info    core-api      one\n    at line 7\n"
        "Traceback (most recent call last):\n  at\n"
        f"{time}19.000Z info "
    )
    for name, text in {
        "redis": "17:M 24 Nov 2026 13:19:15.055 # zero",
        "process-compose": "\x1b[90m26-11-24 13:19:16.055\x1b[0m \x1b[32mERR\x1b[0m Exited",
        "router": f'{time}17.055Z\twarn\tslow\t{{"ms": 5}}',
    }.items():
        (tmp_path / f"{name}.log").write_text(f"{text}\n")
    lines = loglines.latest(tmp_path)
    assert [(one.fields["service"], one.level, one.fields["event"]) for one in lines] == [
        ("redis", "warning", "zero"),
        ("process-compose", "error", "Exited"),
        ("router", "warning", "slow"),
        ("core-api", "info", "one"),
        ("core-api", "info", "    at line 7"),
        ("core-api", "error", "Traceback (most recent call last):"),
        ("core-api", "error", "  at"),
    ]
    assert [line.at.second for line in lines] == [15, 16, 17, 18, 18, 18, 18]
    assert {line.at.isoformat()[:17] for line in lines} == {time}
    with log.open("a") as file:
        file.write("   core-api    two\n")
    assert loglines.latest(tmp_path)[-1].fields["event"] == "two"


@FORMATS
def test_a_lone_surrogate_is_replaced(log_format: str, capfd: pytest.CaptureFixture[str]) -> None:
    """JSON permits it, as in what a client sent; pages and terminals cannot show it."""
    with configured(log_format):
        structlog.get_logger().info("received", name="a\ud800b", **{"key\udfff": "c"})
    texts = capfd.readouterr().out.splitlines()
    texts.append('2026-11-24T13:19:18.852Z\tinfo\treceived\t{"name": "a\\ud800b", "path": "/"}')
    for text in texts:
        line = loglines.parse(text)
        assert line
        assert line.fields["name"] == "a?b"
        assert "".join([*line.fields, *line.fields.values()]).encode()


@FORMATS
def test_an_id_is_found_only_as_a_whole(
    log_format: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not within another id, nor in a path or an event; neither by request nor by transaction."""
    with configured(log_format):
        log = structlog.get_logger()
        log.info("1", request_id="1", transaction_id=f"{uuid.UUID(int=1)}", method="POST")
        log.info("2", request_id="1.5", transaction_id=f"{uuid.UUID(int=2)}", method="POST")
        log.info("request_id=1", request_id="11", path="/request_id=1")
        log.info("3", request_id="-1", reason='"request_id": "1"', trace_id="1")
    (tmp_path / "core-api.log").write_text(capfd.readouterr().out)
    router = '{"path": "/request_id=1", "status": 1, "request_id": "'
    texts = [f'2026-11-24T13:19:17.055Z\tinfo\t{id_}\t{router}{id_}"}}\n' for id_ in ("1", "01")]
    (tmp_path / "router.log").write_text("".join(texts))
    found = {
        (line.fields["event"], line.fields["request_id"]) for line in loglines.find(tmp_path, {"1"})
    }
    assert found == {("1", "1")}
    about = loglines.about(tmp_path, f"{uuid.UUID(int=1)}")
    assert {line.fields["event"] for line in about} == {"1"}
    assert len(about) == 2


def test_a_common_id_parses_few_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing is the expensive part of a search: with request id 1, too, most lines are not."""
    line = "2026-11-24T13:19:18.852Z info    core-api      request status=201 request_id=r-{}\n"
    (tmp_path / "core-api.log").write_text("".join(map(line.format, range(1000))))
    monkeypatch.setattr(loglines, "parse", lambda _text: pytest.fail("parsed"))
    assert list(loglines.find(tmp_path, {"1"})) == []
