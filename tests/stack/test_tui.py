"""process-compose's screen (TUI) in a terminal of 120 columns and 40 rows."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import termios
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from devtools.address import BLOCK
from tests import support
from tests.stack.stack import STOP_SECONDS_MAX, Stack, environment, left_of

ROWS, COLUMNS = 40, 120
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?<>]*[a-zA-Z]|[()].|\][^\x07]*\x07|.)")
F3, F10, ENTER = "\x1bOR", "\x1b[21~", "\r"


class Screen:
    """The terminal that a program draws on."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._drawn = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the program has ended
            while data := os.read(self._terminal, 65_536):
                self._drawn += data

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def wait_for(self, *texts: str) -> None:
        """Waits until each text has been drawn, in one colour and at the end of what is so."""

        def is_drawn(text: str) -> bool:
            pieces = ESCAPES.split(self._drawn.decode(errors="replace"))
            return any(piece and piece.rstrip().endswith(text) for piece in pieces)

        for text in texts:
            support.wait_until(partial(is_drawn, text), what=f"{text} on the screen")


@contextlib.contextmanager
def up(state: Path, port: int) -> Iterator[tuple[Stack, Screen]]:
    environ = environment(state, port, PC_DISABLE_TUI="") | {"TERM": "xterm-256color"}
    terminal, programs_end = os.openpty()
    termios.tcsetwinsize(programs_end, (ROWS, COLUMNS))
    with subprocess.Popen(
        ["process-compose", "up"],
        cwd=support.ROOT,
        env=environ,
        stdin=programs_end,
        stdout=programs_end,
        stderr=programs_end,
        start_new_session=True,
    ) as supervisor:
        os.close(programs_end)
        try:
            yield Stack(environ, state, port, supervisor), Screen(terminal)
        finally:
            supervisor.terminate()
    os.close(terminal)


@pytest.mark.parametrize("end", ["F10", "terminal closed"])
def test_the_screen_shows_the_stack_and_leaves_nothing(tmp_path: Path, end: str) -> None:
    """The screen shows every process, the router's address and a description."""
    state = tmp_path / "state"
    state.mkdir()
    port = support.free_ports(BLOCK)
    with up(state, port) as (stack, screen):
        stack.wait_healthy()
        names = [one.name for one in stack.states()]
        assert "smoke" in names
        screen.wait_for(f"platform at 127.0.0.1:{port}", *names)
        screen.type(F3)
        screen.wait_for("Process auth-api Info", "issues tokens")
        screen.type(ENTER)  # "Close"
        if end == "F10":
            screen.type(F10)
            screen.wait_for("Are you sure you want to quit?")
            screen.type(ENTER)
        else:
            stack.supervisor.send_signal(signal.SIGHUP)
        stack.supervisor.wait(STOP_SECONDS_MAX)
        assert left_of(state) == []
