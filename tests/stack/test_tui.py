"""process-compose's screen (TUI) in a terminal of 120 columns and 40 rows."""

import contextlib
import os
import re
import termios
import threading
from pathlib import Path
from signal import SIGHUP

from devtools.address import BLOCK
from tests import support
from tests.stack.stack import STOP_SECONDS_MAX, Stack, environment, left_of

ROWS, COLUMNS = 40, 120
ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?<>]*[a-zA-Z]|[()].|\][^\x07]*\x07|.)")


def test_the_screen_shows_the_stack_and_leaves_nothing(tmp_path: Path) -> None:
    """It shows every process and the router's address; nothing outlives a closed terminal."""
    port = support.free_ports(BLOCK)
    environ = environment(tmp_path, port, PC_DISABLE_TUI="") | {"TERM": "xterm-256color"}
    terminal, programs_end = os.openpty()
    termios.tcsetwinsize(programs_end, (ROWS, COLUMNS))
    drawn = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # the program has ended
            while data := os.read(terminal, 65_536):
                drawn.extend(data)

    screen = Path(os.ttyname(programs_end))
    with support.program(
        ["process-compose", "up"], environ=environ, output=screen, stdin=programs_end
    ) as supervisor:
        os.close(programs_end)
        threading.Thread(target=read, daemon=True).start()
        stack = Stack(environ, tmp_path, port, supervisor)
        stack.wait_healthy()
        for text in (f"platform at 127.0.0.1:{port}", *(one.name for one in stack.states())):
            support.wait_until(
                lambda text=text: text.encode() in ESCAPES.sub(b"", drawn),  # type: ignore[misc]
                what=f"{text} on the screen",
            )
        supervisor.send_signal(SIGHUP)
        supervisor.wait(STOP_SECONDS_MAX)
        assert left_of(tmp_path) == []
    os.close(terminal)
