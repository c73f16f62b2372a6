"""Serves what was saved, within a second: `python -m services.reload services.auth_api`.

Runs the module as `python -m services.auth_api` would. Where RELOAD is on, the files that the
service could have imported are looked at all the time. When some of them changed, and all of those
compile, the process executes itself anew: its id stays, so that no supervisor notices. How a
service gets there without losing work is its own business (`Reloader.watch`, `Reloader.restart`).

What does not compile is told in the service's log, and the old code goes on. What compiles and then
breaks at its start is told as well, and the next save is tried.

The files are looked at, as gunicorn's, Django's and Werkzeug's reloaders do, rather than being
reported by the system: it costs a quarter of a percent of a core, and in return no package, no
memory, none of the few inotify instances a user may have, and it works on every file system.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import runpy
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Stamps = dict[str, tuple[int, int, int]]

# Not JSON: the only file of that kind is users.json, which is read again without a restart.
SUFFIXES = (".py", ".lua")
LOOK_SECONDS = 0.1
# Several files that are saved one after the other (`git checkout`) are one change, and a file is
# not read while it is being written.
SETTLE_SECONDS = 0.05
SETTLE_SECONDS_MAX = 2.0
FILES_TOLD_MAX = 5
_HANDED_OVER = "RELOAD_HANDED_OVER"

_log = structlog.get_logger()


class Watcher:
    """Finds out when the code of a service has changed: its own folder and the shared modules."""

    def __init__(self, folder: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        self._folder = folder
        self._sleep = sleep
        self._seen = self._look()
        self._unchecked: set[str] = set()

    def wait(self, tell: Callable[[str, SyntaxError | ValueError], None]) -> list[str]:
        """Returns the changed files once there are some and all compile; tells of those that don't.

        Waits as long as nobody saves anything.
        """
        while True:
            self._sleep(LOOK_SECONDS)
            changed = self._changed()
            self._unchecked |= changed
            if changed and self._all_compile(tell):
                return sorted(self._name(path) for path in self._unchecked)

    def _look(self) -> Stamps:
        found: Stamps = {}
        # A file may go away between being listed and being looked at.
        for entry in (*_files(self._folder.parent, deep=False), *_files(self._folder, deep=True)):
            with contextlib.suppress(OSError):
                stat = entry.stat()
                found[entry.path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        return found

    def _changed(self) -> set[str]:
        before = now = self._look()
        if now == self._seen:
            return set()
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while time.monotonic() < deadline:
            self._sleep(SETTLE_SECONDS)
            before, now = now, self._look()
            if before == now:
                break
        before, self._seen = self._seen, now
        return {path for path in before.keys() | now if before.get(path) != now.get(path)}

    def _all_compile(self, tell: Callable[[str, SyntaxError | ValueError], None]) -> bool:
        good = True
        for path in sorted(self._unchecked):
            try:
                _check(path)
            except (SyntaxError, ValueError) as error:
                tell(self._name(path), error)
                good = False
        return good

    def _name(self, path: str) -> str:
        return str(Path(path).relative_to(self._folder.parent.parent))


def _files(folder: Path | str, *, deep: bool) -> Iterator[os.DirEntry[str]]:
    """The code in a folder; what an editor puts beside it while it saves is no code."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith((".", "__pycache__")):
                continue
            if entry.name.endswith(SUFFIXES):
                yield entry
            elif deep and entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, deep=True)


def _check(path: str) -> None:
    """Raises when a file is there and does not compile."""
    if not path.endswith(".py"):
        return
    # Python takes a cached file for good when the source has the same size and the same second of
    # change, which two saves can have.
    with contextlib.suppress(OSError):
        Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)


class Reloader:
    """This process' way to newer code. Does nothing unless `begin` was called."""

    def __init__(self) -> None:
        self.handed_over: dict[str, Any] = {}
        """What this process gave to `restart` before it executed itself; empty at its start."""
        self._watcher: Watcher | None = None
        self._again = False
        self._watching = False

    @property
    def is_on(self) -> bool:
        """Whether saved code is served."""
        return self._watcher is not None

    def begin(self, folder: Path) -> None:
        """Switches it on, for the service in `folder`; before any of its code is imported."""
        self._watcher = Watcher(folder)
        handed_over = json.loads(os.environ.pop(_HANDED_OVER, "{}"))
        # Not what a parent's environment happens to hold.
        self._again = handed_over.pop("pid", None) == os.getpid()
        if self._again:
            self.handed_over = handed_over
            # See `_check`: what this process caches now could be old code when it is read.
            sys.dont_write_bytecode = True

    def watch(self, stop: Callable[[], None]) -> None:
        """The service is up: from now on `stop` is called, in a thread and once, for new code."""
        self._watching = True
        watcher = self._watcher
        if watcher is None:
            return

        def wait_and_stop() -> None:
            files = watcher.wait(_log_fault)
            _log.info("code changed", files=files[:FILES_TOLD_MAX], count=len(files))
            stop()

        threading.Thread(target=wait_and_stop, name="reload", daemon=True).start()

    def restart(self, *, unless: Callable[[], bool] = lambda: False, **kept: Any) -> None:
        """Executes this process anew, with `kept` as what is handed over.

        Returns only when `unless` says that a signal to stop has come. One that comes later ends
        the process, old or new, as it is its due.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        if unless():
            return
        sys.stdout.flush()
        sys.stderr.flush()
        environ = os.environ | {_HANDED_OVER: json.dumps(kept | {"pid": os.getpid()})}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)  # noqa: S606

    def outlives(self, error: Exception | SystemExit) -> bool:
        """Whether the process waits for better code, rather than ending with this error.

        Not when the service was up already; then its supervisor starts it again. Nor for what it
        ended with by itself at its first start, such as a bad setting: no save cures that.
        """
        if not self.is_on or self._watching:
            return False
        return self._again if isinstance(error, SystemExit) else True

    def wait_and_restart(self) -> NoReturn:
        """Tries again at the next save. What was handed over is kept: old workers go on serving."""
        if self._watcher is None:
            raise RuntimeError("reloading is not switched on")
        _say("waiting for the next save of a file")
        for path in self._watcher.wait(_print_fault):
            _say(f"{path} has changed")
        self.restart(**self.handed_over)
        raise AssertionError("a process that executed itself anew does not come back")


def _log_fault(path: str, error: SyntaxError | ValueError) -> None:
    _log.error("code not reloaded, the old goes on", file=path, **_explained(error))


def _print_fault(path: str, error: SyntaxError | ValueError) -> None:
    told = _explained(error)
    _say(f"{path}, line {told['line']}: {told['reason']}: {told['text']}")


def _explained(error: SyntaxError | ValueError) -> dict[str, Any]:
    if isinstance(error, SyntaxError):
        text = (error.text or "").strip()
        return {"line": error.lineno, "reason": error.msg, "text": text}
    return {"line": None, "reason": str(error), "text": ""}  # such as a byte that is no text


def _say(what: str) -> None:
    """To the service's log, before there is a logger that is known to work."""
    sys.stderr.write(f"reload: {what}\n")
    sys.stderr.flush()


reloader = Reloader()


def is_wanted(environ: Mapping[str, str], services: Path) -> bool:
    """What RELOAD says; by default whether `services` is somebody's to write: a checkout.

    The code in the Nix store, or in an image, has no pyproject.toml: it is run and not worked on.
    """
    if environ.get("RELOAD"):
        return environ["RELOAD"] == "1"
    return services.with_name("pyproject.toml").is_file() and os.access(services, os.W_OK)


def main() -> None:
    """Runs the module that is named on the command line, again and again if need be."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m services.reload services.NAME")
    module = sys.argv.pop()
    services = Path(__file__).resolve().parent
    if is_wanted(os.environ, services):
        reloader.begin(services / module.rpartition(".")[2])
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except (Exception, SystemExit) as error:
        if not reloader.outlives(error):
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
    else:
        return
    reloader.wait_and_restart()


if __name__ == "__main__":
    # Not the `main` above: services import this module by its name, and that is another one.
    importlib.import_module("services.reload").main()
