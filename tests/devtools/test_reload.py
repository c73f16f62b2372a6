"""Saved files are noticed on any system; tests/stack/test_reload.py shows what follows."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import watchfiles

from devtools import reload


def test_without_a_watch_left_it_polls(tmp_path: Path) -> None:
    """Linux has 128 for each user, which editors use up."""

    def exhausted(*paths: Path, force_polling: bool = False, **options: Any) -> Iterator[Any]:
        if not force_polling:
            raise OSError("Too many open files")
        threading.Timer(0.2, (tmp_path / "app.py").touch).start()
        yield from watchfiles.watch(*paths, force_polling=True, poll_delay_ms=20, **options)

    assert next(reload.changes(exhausted, tmp_path)) == {str(tmp_path / "app.py")}


def test_temporary_files_of_editors_are_no_code(tmp_path: Path) -> None:
    """Emacs makes a dangling link at the first keystroke, other editors make hidden copies."""
    (tmp_path / ".#app.py").symlink_to("me@host.1:2")
    for name in ("app.py", ".app.py", "flycheck_app.py"):
        (tmp_path / name).touch()
    assert reload.saved(tmp_path, 0, time.time() + 1) == {"app.py"}
