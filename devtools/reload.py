"""`python -m devtools.reload`: restarts a service of the stack when its code is saved.

A file in a service's folder restarts that service, a shared module restarts all of them, and the
router reloads a saved Caddyfile without a restart. If a service does not start, for example after a
syntax error, its log says why; process-compose and the next save start it again. A process stopped
by hand stays stopped. On by default if the code is in a checkout; RELOAD=0 switches it off.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from devtools.address import state_folder
from devtools.catalog import PYTHON
from devtools.supervisor import ProcessState, RefusedError, Supervisor, SupervisorError
from services.common import logs
from services.common.settings import Settings, exit_if_bad

# Not JSON: users.json is reloaded without a restart.
SUFFIXES = (".py", ".lua")
CADDYFILE = "router/Caddyfile"
# Files of editors and systems, such as hidden ones: Emacs makes `.#app.py`, a dangling link.
_TEMPORARY = re.compile(r"\..*|#.*#|.*~|4913|flycheck_.*|.*___jb_(tmp|old)___")
# Files saved within this time of each other (`git checkout`) are one change.
DEBOUNCE_MS_MAX = 400
STEP_MS = 50
# If nothing is saved for this time, watchfiles says so by an empty set.
TIMEOUT_MS = 500
ADAPT_SECONDS_MAX = 10

_ROOT = Path(__file__).resolve().parents[1]

_log = structlog.get_logger()

Watch = Callable[..., Iterator[set[Any]]]


def is_enabled(environ: Mapping[str, str], services: Path) -> bool:
    """RELOAD if set; else whether `services` is in a checkout that can be written."""
    if environ.get("RELOAD"):
        return environ["RELOAD"] == "1"
    return services.with_name("pyproject.toml").is_file() and os.access(services, os.W_OK)


def affected(changed: Collection[str]) -> set[str]:
    """The processes that run the changed files, whose paths are relative to services/."""
    processes: set[str] = set()
    for name in changed:
        folder = name.partition("/")[0]
        processes |= set(PYTHON) if folder == "common" else {folder.replace("_", "-")}
    return processes & {*PYTHON, "router"}


def is_code(path: str) -> bool:
    """Whether a process runs this file, which is not an editor's temporary one."""
    is_ours = path.endswith((*SUFFIXES, f"/{CADDYFILE}"))
    return is_ours and not _TEMPORARY.fullmatch(Path(path).name)


def _code_in(folder: Path) -> Iterator[Path]:
    """The code below a folder; all of it may be gone or unreadable by now."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names if is_code(f"{parent}/{name}"))


def saved(services: Path, after: float, until: float) -> set[str]:
    """The code below `services` saved between two times, as paths relative to it."""
    paths = [path for path in _code_in(services) if after < _saved_at(path) <= until]
    return {str(path.relative_to(services)) for path in paths}


def _saved_at(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.lstat().st_mtime
    return 0.0


def watch(services: Path, supervisor: Supervisor, started: float) -> None:
    """Restarts the processes whose code changes below `services`, until a signal.

    Starts with changes since `started` (seconds since the epoch), before any service started.
    """
    import watchfiles  # noqa: PLC0415 - not needed where reloading is off

    _log.info("watching", folder=str(services))
    for names in changes(watchfiles.watch, services, started):
        restart(supervisor, names)


def changes(watch: Watch, services: Path, after: float) -> Iterator[set[str]]:
    """Yields the code saved after that time, as paths relative to `services`, until a signal.

    `watch` is that of watchfiles. A set is empty if nothing was saved for a while.
    """
    while True:
        with os.scandir(services):  # while it is open, no new folder gets its inode number
            known = services.stat()
            batches = _batches(watch, services)
            # The first one shows that the watch has begun; the times tell what was saved before.
            yield next(batches, set()) | saved(services, after, time.time())
            for names in batches:
                yield names
                if _is_replaced(services, known):
                    break
            else:
                return
        after = 0.0  # any file of the new folder may differ


def _is_replaced(folder: Path, known: os.stat_result) -> bool:
    """Whether the path has a new folder, as after `git checkout`: the watch is not of that one."""
    with contextlib.suppress(FileNotFoundError):
        return not os.path.samestat(known, folder.stat())
    return False


def _batches(watch: Watch, services: Path) -> Iterator[set[str]]:
    watch_code = partial(
        watch,
        services,
        # A folder may have been moved there, of which only the folder itself is reported.
        watch_filter=lambda change, path: (
            is_code(path) or (change.name == "added" and os.path.isdir(path))  # noqa: PTH112
        ),
        ignore_permission_denied=True,
        debounce=DEBOUNCE_MS_MAX,
        step=STEP_MS,
        rust_timeout=TIMEOUT_MS,
        yield_on_timeout=True,
    )

    def names(batch: set[Any]) -> set[str]:
        paths = {Path(path) for _, path in batch}
        code = paths.union(*map(_code_in, paths))
        return {str(path.relative_to(services)) for path in code if is_code(str(path))}

    try:
        yield from map(names, watch_code())
    except (OSError, RuntimeError) as error:
        # Must not end: started again, it would restart every service saved since the start.
        advice = "fs.inotify.max_user_instances and max_user_watches are the limits on Linux"
        _log.warning("watching failed, polling for saved files", reason=str(error), advice=advice)
        yield from map(names, watch_code(force_polling=True))


def restart(supervisor: Supervisor, changed: Collection[str]) -> None:
    """Restarts the processes that run the changed files."""
    if not (names := affected(changed)):
        return
    done: set[str] = set()
    for _ in range(2):  # again for those that `scale` has renamed meanwhile
        try:
            states = [state for state in supervisor.processes() if state.service in names]
        except SupervisorError as error:
            _log.error("restart failed", reason=str(error))
            return
        states = [state for state in states if state.name not in done]
        with ThreadPoolExecutor(len(states) or 1) as pool:
            results = list(pool.map(partial(_restart, supervisor, sorted(changed)), states))
        if all(results):
            return
        done = {state.name for state, is_done in zip(states, results, strict=True) if is_done}


def _restart(supervisor: Supervisor, files: list[str], state: ProcessState) -> bool:
    """Returns False if process-compose refuses it."""
    if state.name == "router":
        if state.is_running:
            _reload_router(files, state.pid)
        return True
    # Unless it was stopped, process-compose starts it again.
    if not state.is_running and state.status != "Restarting":
        _log.info("not restarted: stopped by hand", process=state.name, files=files)
        return True
    _log.info("restarting", process=state.name, files=files)
    try:
        supervisor.restart(state.name)
    except SupervisorError as error:
        _log.error("restart failed", process=state.name, reason=str(error))
        return not isinstance(error, RefusedError)
    return True


def _reload_router(files: list[str], pid: int) -> None:
    """Sends the router its new configuration; an invalid one is only logged."""
    _log.info("reloading", process="router", files=files)
    command = ["sh", "services/router/run.sh", "adapt"]
    try:
        subprocess.run(  # noqa: S603 - our own script
            command,
            cwd=_ROOT,
            check=True,
            capture_output=True,
            text=True,
            timeout=ADAPT_SECONDS_MAX,
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", "") or error).strip()
        _log.error("reload failed, keeping previous configuration", process="router", reason=reason)
        return
    os.kill(pid, signal.SIGUSR1)


def main() -> None:
    """Watches the folder that this code was loaded from."""
    services = _ROOT / "services"
    with exit_if_bad():
        logs.configure("reload", Settings.read(os.environ))
    if is_enabled(os.environ, services):
        # Preflight wrote it just before the services began.
        started = (state_folder(os.environ) / "environment").stat().st_mtime
        watch(services, Supervisor(os.environ["PC_SOCKET_PATH"]), started)
    else:
        _log.info("reload disabled", reason="RELOAD=0, or the code is not in a checkout")


if __name__ == "__main__":
    main()
