"""Who was left behind by a killed supervisor, and who only looks like it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil

from devtools import orphans
from tests.support import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

MARKS = {"PC_PROC_NAME": "core-api", "PC_REPLICA_NUM": "0"}
# Says that it runs, then waits until its input ends, which happens with the test at the latest.
WAIT = "print('up', flush=True); sys.stdin.read()"


@contextlib.contextmanager
def python(code: str, *words: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python that has begun to wait."""
    with subprocess.Popen(
        [*words, sys.executable, "-c", f"import os, signal, subprocess, sys; {code}"],
        env={"PATH": os.environ["PATH"]} | environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def found(state: Path) -> dict[int, str]:
    return {orphan.process.pid: orphan.name for orphan in orphans.find(state)}


def test_exactly_those_of_this_stack_are_found(tmp_path: Path) -> None:
    """Another stack's, a shell of this checkout, and a stranger's name are not."""
    ours, other = str(tmp_path / "ours"), str(tmp_path / "other")
    with (
        python(WAIT, PLATFORM_STATE=ours, **MARKS) as orphan,
        python(WAIT, PLATFORM_STATE=other, **MARKS) as of_other,
        python(WAIT, PLATFORM_STATE=ours),
        python(WAIT, PLATFORM_STATE=ours, PC_PROC_NAME="tmux"),
        python(WAIT, **MARKS),
    ):
        assert {orphan.pid: "core-api"} == found(tmp_path / "ours")
        assert {of_other.pid: "core-api"} == found(tmp_path / "other")


def test_it_is_found_by_every_name_of_the_folder(tmp_path: Path) -> None:
    """The checkout was reached by a link, or the folder was given from where it lies."""
    (tmp_path / "state").mkdir()
    (tmp_path / "link").symlink_to("state")
    relative = os.path.relpath(tmp_path / "state")
    with (
        python(WAIT, PLATFORM_STATE=str(tmp_path / "link"), **MARKS) as one,
        python(WAIT, PLATFORM_STATE=relative, **MARKS) as another,
    ):
        assert {one.pid, another.pid} == set(found(tmp_path / "state"))


def test_who_has_a_supervisor_is_left_alone(tmp_path: Path) -> None:
    """A process-compose above it looks after it, until it is killed."""
    supervisor = tmp_path / "process-compose"
    supervisor.write_text('#!/bin/sh\n"$@"\n:\n')
    marks = [f"{name}={value}" for name, value in (MARKS | {"PLATFORM_STATE": tmp_path}).items()]
    with python(WAIT, "sh", str(supervisor), "env", *marks) as process:
        [child] = psutil.Process(process.pid).children()
        assert found(tmp_path) == {}
        process.kill()
        process.wait(10)
        wait_until(lambda: {child.pid: "core-api"} == found(tmp_path), what="the orphan")
        child.kill()


class Vanishing(psutil.Process):
    """Ends after so many looks at it, as if it had ended right then."""

    looks_left = 0

    def __getattribute__(self, name: str) -> Any:
        if name in {"uids", "status", "environ", "cwd", "ppid", "parents", "parent", "is_running"}:
            if self.looks_left == 0:
                raise psutil.NoSuchProcess(self.pid)
            self.looks_left -= 1
        return super().__getattribute__(name)


def test_a_process_may_end_at_each_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no orphan then, and no look raises."""
    with python(WAIT, PLATFORM_STATE=str(tmp_path), **MARKS) as orphan:
        seen = []
        for looks in range(20):
            process = Vanishing(orphan.pid)
            process.looks_left = looks
            monkeypatch.setattr(psutil, "process_iter", lambda one=process: [one])
            seen.append(bool(orphans.find(tmp_path)))
            orphans.is_gone(process)
        assert seen == sorted(seen), "an orphan from some number of looks on"
        assert (seen[0], seen[-1]) == (False, True)


def test_nobody_finds_himself(tmp_path: Path) -> None:
    """Preflight bears the marks too, and so may a shell above it."""
    code = "subprocess.run([sys.executable, '-m', 'devtools.orphans']); print('still up')"
    done = subprocess.run(
        [sys.executable, "-c", f"import subprocess, sys; {code}"],
        cwd=ROOT,
        env=os.environ | {"PLATFORM_STATE": str(tmp_path)} | MARKS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "still up\n", "")


def test_they_are_ended_with_their_children_and_named(tmp_path: Path) -> None:
    """By a signal they can act on; a worker that does not bear the marks goes too."""
    worker = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], env={}); "
    with python(worker + WAIT, PLATFORM_STATE=str(tmp_path), **MARKS) as orphan:
        [child] = psutil.Process(orphan.pid).children()
        said, faults = orphans.clear(tmp_path)
        assert (
            f"ended what was left behind by a supervisor that is gone: core-api, pid {orphan.pid}"
            == said
        )
        assert faults == []
        assert orphan.wait(10) == -15
        wait_until(lambda: orphans.is_gone(child), what="the worker's end")
    assert orphans.clear(tmp_path) == ("", [])


def test_who_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    """Within the bound that the stack itself would give it."""
    deaf = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}"
    with python(deaf, PLATFORM_STATE=str(tmp_path), PC_PROC_NAME="redis") as orphan:
        said, faults = orphans.clear(tmp_path)
        assert f"redis, pid {orphan.pid}" in said
        assert faults == []
        assert orphan.wait(10) == -9
