"""Saved files are noticed on any system; tests/stack/test_reload.py shows what follows."""

import os
import threading
import time
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import watchfiles

from devtools import reload
from devtools.supervisor import ProcessState, RefusedError, Supervisor
from tests import support


def test_without_a_watch_left_it_polls(tmp_path: Path) -> None:
    """Linux has 128 for each user, which editors use up."""

    def exhausted(*paths: Path, force_polling: bool = False, **options: Any) -> Iterator[Any]:
        if not force_polling:
            raise OSError("Too many open files")
        threading.Timer(0.2, (tmp_path / "app.py").touch).start()
        yield from watchfiles.watch(*paths, force_polling=True, poll_delay_ms=20, **options)

    saves = (names for names in reload.changes(exhausted, tmp_path, time.time()) if names)
    assert next(saves) == {"app.py"}


def test_a_file_saved_just_before_the_watch_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `reload` started, and before the system reports changes."""
    watch = watchfiles.watch
    changed: list[Collection[str]] = []

    def late(*paths: Path, **options: Any) -> Iterator[Any]:
        (tmp_path / "app.py").touch()
        yield from watch(*paths, **options)

    def restart(_supervisor: Supervisor, names: Collection[str]) -> None:
        changed.append(names)
        raise KeyboardInterrupt

    monkeypatch.setattr(watchfiles, "watch", late)
    monkeypatch.setattr(reload, "restart", restart)
    with pytest.raises(KeyboardInterrupt):
        reload.watch(tmp_path, Supervisor(""), time.time() - 1)
    assert changed == [{"app.py"}]


@pytest.mark.parametrize("pause_seconds", [0, 1])
def test_a_folder_replaced_by_another_is_watched(tmp_path: Path, pause_seconds: int) -> None:
    """As by `git checkout` of a commit without it and back; what is saved before, is noticed."""
    services = tmp_path / "services"
    services.mkdir()
    saves = reload.changes(watchfiles.watch, services, time.time())
    assert next(saves) == set()
    services.rmdir()
    for _ in range(2 * pause_seconds):
        assert next(saves) == set()
    services.mkdir()
    os.utime(support.script(services / "old.py", ""), (1, 1))
    assert next(names for names in saves if names) == {"old.py"}
    (services / "new.py").touch()
    assert next(names for names in saves if names) == {"new.py"}


@pytest.mark.parametrize("force_polling", [False, True])
def test_a_folder_moved_into_place_is_code(tmp_path: Path, force_polling: bool) -> None:  # noqa: FBT001
    """Linux reports the folder alone."""
    services, moved = tmp_path / "services", tmp_path / "moved"
    (services / "core_api").mkdir(parents=True)
    (moved / "part").mkdir(parents=True)
    (moved / "part/app.py").touch()
    saves = reload.changes(
        partial(watchfiles.watch, force_polling=force_polling), services, time.time()
    )
    assert next(saves) == set()
    (services / "core_api").rmdir()
    moved.rename(services / "core_api")
    assert next(names for names in saves if names) == {"core_api/part/app.py"}


def test_a_changed_folder_is_no_change_of_its_code(tmp_path: Path) -> None:
    """Polling, as in WSL, reports a folder in which an editor makes a temporary file."""
    (tmp_path / "app.py").touch()
    batches = [{(watchfiles.Change.modified, str(tmp_path))}, set[Any]()]

    def watch(*_: Path, watch_filter: Any, **__: Any) -> Iterator[Any]:
        yield from ({one for one in batch if watch_filter(*one)} for batch in batches)

    assert list(reload.changes(watch, tmp_path, time.time() + 1)) == [set(), set()]


@pytest.mark.skipif(os.getuid() == 0, reason="root can read any folder")
@pytest.mark.parametrize("mode", [0o000, 0o644])
def test_a_folder_that_cannot_be_read_is_left_out(tmp_path: Path, mode: int) -> None:
    """As one made by a container or by sudo."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private/app.py").touch()
    (tmp_path / "private").chmod(mode)
    try:
        saves = reload.changes(watchfiles.watch, tmp_path, time.time() - 60)
        assert next(saves) == set()
        (tmp_path / "app.py").touch()
        assert next(names for names in saves if names) == {"app.py"}
    finally:
        (tmp_path / "private").chmod(0o700)  # so that pytest can delete it


@pytest.mark.parametrize(
    ("status", "restarts"),
    [("Running", 1), ("Restarting", 1), ("Completed", 0), ("Disabled", 0)],
)
def test_a_process_stopped_by_hand_stays_stopped(status: str, restarts: int) -> None:
    """Also one that failed before; a crashing one is started again without a wait."""
    running = status == "Running"
    state = ProcessState("core-api", status, 1, running, running, 3, 1, None, None)
    supervisor = Mock(Supervisor)
    supervisor.processes.return_value = [state]
    reload.restart(supervisor, {"core_api/app.py"})
    assert supervisor.restart.call_count == restarts


def test_a_refused_restart_is_tried_again() -> None:
    """Another command may hold it up, or have changed the process's name."""
    supervisor = Mock(Supervisor)
    supervisor.processes.return_value = [
        ProcessState("core-api", "Running", 1, True, True, 0, 0, None, None)
    ]
    supervisor.restart.side_effect = [RefusedError(), None]
    reload.restart(supervisor, {"core_api/app.py"})
    assert supervisor.restart.call_count == 2


def test_temporary_files_of_editors_are_no_code(tmp_path: Path) -> None:
    """Emacs makes a dangling link at the first keystroke, other editors make hidden copies."""
    (tmp_path / ".#app.py").symlink_to("me@host.1:2")
    for name in ("app.py", ".app.py", "flycheck_app.py"):
        (tmp_path / name).touch()
    assert reload.saved(tmp_path, 0, time.time() + 1) == {"app.py"}
