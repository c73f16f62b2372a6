"""A log's reader or disk may fail at any time without affecting the process."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from services.common import logs
from services.common.logs import Output
from tests.support import ROOT

LINE = "x" * 1000 + "\n"


@pytest.mark.parametrize("fault", ["no reader", "idle reader", "full disk"])
def test_a_log_that_cannot_be_written_blocks_nothing(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A closed pipe, a stalled pipe and a full disk cost lines, and one short wait in all."""
    monkeypatch.setattr(Output, "STALL_SECONDS_MAX", 0.05)
    reader, writer = os.pipe()
    if fault == "no reader":
        os.close(reader)
    output = Output(os.open("/dev/full", os.O_WRONLY) if fault == "full disk" else writer)
    started = time.monotonic()
    for _ in range(1000):
        output.write(LINE)
    assert time.monotonic() - started < 20 * Output.STALL_SECONDS_MAX


def test_a_reader_that_comes_back_gets_the_next_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are dropped only while there is no room for them."""
    monkeypatch.setattr(Output, "STALL_SECONDS_MAX", 0.01)
    reader, writer = os.pipe()
    output = Output(writer)
    for _ in range(100):
        output.write(LINE)
    while len(os.read(reader, 65_536)) == 65_536:
        pass
    output.write("the next\n")
    assert os.read(reader, 100) == b"the next\n"


def test_a_line_longer_than_the_pipe_is_written_as_it_is_read() -> None:
    """All of it, or if its reader stalls, its beginning; the next one is a line of its own."""
    reader, writer = os.pipe()
    output, text = Output(writer), "x" * 300_000 + "\n"
    with os.fdopen(reader, "rb") as stream:
        thread = threading.Thread(target=output.write, args=(text,))
        thread.start()
        assert stream.readline() == text.encode()
        thread.join()
        output.write(text)
        cut = os.read(reader, 1_000_000)
        output.write("the next\n")
        assert (cut, os.read(reader, 100)) == (b"x" * len(cut), b"\nthe next\n")


def test_a_secret_from_a_remote_server_is_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    """In a line of ours, a library's warning or log, a traceback, also of a crash."""
    code = (
        "import logging, threading, warnings, structlog; from services.common import logs;"
        "from services.psp_connector.settings import ConnectorSettings;"
        "logs.configure('x', ConnectorSettings.read({'HTTP_PORT': '1', 'REDIS_URL': 'redis://a/0',"
        " 'PSP_URL': 'http://b', 'PSP_API_KEY': KEY, 'LOG_FORMAT': FORMAT}));"
        "structlog.get_logger().info('one', reason=KEY); warnings.warn(f'two {KEY}');"
        "logging.getLogger('urllib3').warning('three %s %s', KEY, quote(KEY))\n"
        "try: raise ValueError(f'four {KEY}')\n"
        "except ValueError: structlog.get_logger().exception('five')\n"
        "def crash(*args): raise ValueError(f'six {KEY}')\n"
        "thread = threading.Thread(target=crash); thread.start(); thread.join(); crash()"
    )
    for style in ("json", "console"):
        given = f"from urllib.parse import quote; KEY, FORMAT = 'sk_test_\"+A', {style!r};"
        command = [sys.executable, "-c", given + code]
        done = subprocess.run(command, cwd=ROOT, check=False, timeout=60)
        logged, errors = capfd.readouterr()
        words = ("one", "two", "three", "four", "five")
        assert [word in logged for word in words] == [True] * 5
        assert (logged.count("six <secret>"), done.returncode) == (2, 1)
        assert (logged.count("<secret>") >= 7, "sk_test" in logged, errors) == (True, False, "")


def test_a_secret_changes_values_only(capfd: pytest.CaptureFixture[str]) -> None:
    """A line stays valid JSON and names its service, whatever the secret is."""
    code = (
        "import structlog; from services.common import logs;"
        "from services.psp_connector.settings import ConnectorSettings;"
        "logs.configure('psp-connector', ConnectorSettings.read({'HTTP_PORT': '1',"
        " 'PSP_API_KEY': '12345678', 'REDIS_URL': 'redis://:listening@a/0?password=psp-connector',"
        " 'PSP_URL': 'http://b', 'LOG_FORMAT': 'json'}));"
        "structlog.get_logger().info('listening', amount=12345678, of=['psp-connector', 12345678],"
        " reason={'key': '12345678'}, error=ValueError('12345678'))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
    line = json.loads(capfd.readouterr().out)
    del line["time"]
    assert line == {
        "service": "psp-connector",
        "level": "info",
        "event": "listening",
        "amount": 12345678,
        "of": ["<secret>", 12345678],
        "reason": {"key": "<secret>"},
        "error": "<secret>",
    }


@pytest.mark.parametrize("is_read", [True, False])
def test_the_last_lines_are_read_before_the_process_ends(*, is_read: bool) -> None:
    """A process waits for its log's reader to catch up, unless the reader has stalled."""
    reader, writer = os.pipe()
    os.write(writer, b"stopped")
    late = threading.Timer(0.05, lambda: os.read(reader, 100) if is_read else None)
    late.start()
    began = time.monotonic()
    logs.drain(writer, 60 if is_read else 0.1)
    seconds = time.monotonic() - began
    late.join()
    assert (0.04 if is_read else 0.09) < seconds < 30
    for end in (reader, writer):
        os.close(end)
