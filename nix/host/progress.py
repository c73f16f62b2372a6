# ruff: noqa: INP001 - a script, not a package
"""Turns Nix's `--log-format internal-json` into a line for each build that takes a second or more.

At a terminal one changing line shows what is being built. When a build fails, the end of its log
is shown, and nothing of the builds that needed it.
"""

from __future__ import annotations

import json
import os
import re
import select
import sys
import time
from collections import deque
from typing import Any

SHOWN_AFTER_SECONDS = 1.0
LOG_LINES = 16  # what go says of a module that it refuses, whole
TTY = sys.stdout.isatty()
CLEAR = "\r\x1b[K" if TTY else ""


def say(text: str) -> None:
    """Print a line, in the place of the changing one."""
    sys.stdout.write(f"{CLEAR}{text}\n")
    sys.stdout.flush()


class Builds:
    """The builds that run: Nix's number for each, its name and start; and the end of each log."""

    def __init__(self) -> None:
        self.running: dict[int, tuple[str, float]] = {}
        self.announced: set[int] = set()
        self.shown = ""
        self.logs: dict[str, deque[str]] = {}

    def handle(self, event: dict[str, Any]) -> None:
        """Take in one of Nix's events."""
        match event:  # level 0 is an error, type 101 a log line, 105 a build
            case {"action": "msg", "level": 0, "msg": message}:
                self.error(re.sub(r"\x1b\[[0-9;]*m", "", message).strip())
            case {"action": "start", "type": 105, "id": number, "fields": [path, *_]}:
                name = re.sub(r"^.*/[a-z0-9]{32}-|\.drv$", "", path)
                self.running[number] = (name, time.monotonic())
                self.logs[name] = deque(maxlen=LOG_LINES)
            case {"action": "result", "type": 101, "id": number, "fields": [line]}:
                if number in self.running:
                    self.logs[self.running[number][0]].append(f"  {line}")
            case {"action": "stop", "id": number} if number in self.running:
                name, since = self.running.pop(number)
                if (seconds := time.monotonic() - since) >= SHOWN_AFTER_SECONDS:
                    say(f"nixw: {name} took {seconds:.0f} s")

    def error(self, message: str) -> None:
        """Print an error, and the log of the build that it is about."""
        if re.search(r"dependenc(y|ies) (of|failed)", message):
            return
        failed = re.search(r"/[a-z0-9]{32}-([^/']+)\.drv", message)
        say("\n".join([*self.logs.get(failed[1] if failed else "", []), message]))

    def show(self) -> None:
        """Show what has been running for a while: on one line, or once each."""
        now = time.monotonic()
        long = {n: b for n, b in self.running.items() if now - b[1] >= SHOWN_AFTER_SECONDS}
        if TTY:
            text = ", ".join(f"{name} {now - since:.0f} s" for name, since in long.values())
            if text != self.shown:
                self.shown = text
                sys.stdout.write(CLEAR + (f"nixw: building {text}"[:79] if text else ""))
                sys.stdout.flush()
            return
        for number in long.keys() - self.announced:
            self.announced.add(number)
            say(f"nixw: building {long[number][0]}")


def main() -> None:
    """Read events to the end of standard input."""
    builds = Builds()
    rest = b""
    while True:
        if select.select([0], [], [], SHOWN_AFTER_SECONDS)[0]:
            if not (read := os.read(0, 65536)):
                break
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                if line.startswith(b"@nix "):
                    builds.handle(json.loads(line[5:]))
                elif line:
                    say(line.decode(errors="replace"))
        builds.show()
    sys.stdout.write(CLEAR)


if __name__ == "__main__":
    main()
