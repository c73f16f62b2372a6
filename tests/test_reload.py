"""Saved code is served: what counts as a change, and one service that is started on its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from services import reload
from tests import support
from tests.stack.stack import is_gone

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS_MAX = 30  # one is the aim; the machine of a check is shared and slow at times


def code(folder: Path) -> Path:
    """A checkout to be edited: a copy of what runs."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(support.ROOT / "services", folder / "services", ignore=ignored)
    for name in ("process-compose.yaml", "pyproject.toml"):
        shutil.copy(support.ROOT / name, folder)
    return folder


# --- what counts as a change ----------------------------------------------------------------------


def in_place(path: Path, text: str) -> None:
    """As nano and VS Code save."""
    path.write_text(text)


def by_rename(path: Path, text: str) -> None:
    """As PyCharm and git do: a new file takes the place of the old."""
    new = path.with_name(path.name + "___jb_tmp___")
    new.write_text(text)
    new.replace(path)


def with_backup(path: Path, text: str) -> None:
    """As vim does: the old file goes out of the way first."""
    backup = path.with_name(path.name + "~")
    path.rename(backup)
    path.with_name("4913").touch()
    path.write_text(text)
    path.with_name("4913").unlink()
    backup.unlink()


class Waiting:
    """A watcher at work in a thread."""

    def __init__(self, folder: Path) -> None:
        self.faults: list[tuple[str, str]] = []
        self.found: list[list[str]] = []
        watcher = reload.Watcher(folder)
        self._thread = threading.Thread(target=self._wait, args=[watcher], daemon=True)
        self._thread.start()

    def _wait(self, watcher: reload.Watcher) -> None:
        self.found.append(watcher.wait(lambda path, error: self.faults.append((path, str(error)))))

    def files(self) -> list[str]:
        """What has changed, once something has."""
        self._thread.join(SECONDS_MAX)
        return self.found[0]

    def nothing(self) -> bool:
        """Whether it still waits, after time enough for several looks."""
        self._thread.join(reload.LOOK_SECONDS * 5)
        return self._thread.is_alive()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A service's folder, with shared modules and another service beside it."""
    for name in ("services/shared.py", "services/mine/app.py", "services/other/app.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("VALUE = 1\n")
    return tmp_path / "services/mine"


@pytest.mark.parametrize("save", [in_place, by_rename, with_backup])
def test_a_saved_file_is_noticed(folder: Path, save: Callable[[Path, str], None]) -> None:
    """However the editor saves, and as one change of that file alone."""
    waiting = Waiting(folder)
    save(folder / "app.py", "VALUE = 2\n")
    assert ["services/mine/app.py"] == waiting.files()


@pytest.mark.parametrize(
    "name", ["services/shared.py", "services/mine/new.py", "services/mine/more/new.lua"]
)
def test_what_could_be_imported_is_watched(folder: Path, name: str) -> None:
    """Shared modules, new files, folders in the service's folder, and its scripts."""
    waiting = Waiting(folder)
    path = folder.parent.parent / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("VALUE = 2\n")
    assert [name] == waiting.files()


def test_a_deleted_file_is_a_change(folder: Path) -> None:
    """It is not missed where it was not needed, and is told by the new code where it was."""
    waiting = Waiting(folder)
    (folder / "app.py").unlink()
    assert ["services/mine/app.py"] == waiting.files()


@pytest.mark.parametrize(
    "name",
    [
        "services/other/app.py",
        "services/mine/.app.py.swp",
        "services/mine/.#app.py",
        "services/mine/app.py~",
        "services/mine/#app.py#",
        "services/mine/__pycache__/app.cpython-313.pyc",
        "services/mine/__pycache__/app.py",
        "services/mine/users.json",
    ],
)
def test_what_is_no_code_of_this_service_is_ignored(folder: Path, name: str) -> None:
    """Other services, what editors and Python keep beside the code, and data."""
    waiting = Waiting(folder)
    path = folder.parent.parent / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("VALUE = 2\n")
    assert waiting.nothing()


def test_a_checkout_of_many_files_is_one_change(folder: Path) -> None:
    """As long as more files are written between one look and the next, it is the same change."""
    left = list(range(100))

    def write_ten(_seconds: float) -> None:
        for number in left[:10]:
            (folder / f"module{number}.py").write_text("VALUE = 1\n")
        del left[:10]

    assert 100 == len(reload.Watcher(folder, sleep=write_ten).wait(lambda *_: None))


def test_what_does_not_compile_is_told_and_waited_for(folder: Path) -> None:
    """Another good file does not bring the broken one in; mending it brings in both."""
    waiting = Waiting(folder)
    (folder / "app.py").write_text("VALUE =\n")
    support.wait_until(lambda: waiting.faults, what="the fault")
    assert [("services/mine/app.py", "invalid syntax (app.py, line 1)")] == waiting.faults
    (folder / "more.py").write_text("VALUE = 1\n")
    support.wait_until(lambda: len(waiting.faults) == 2, what="the fault once more")
    assert waiting.nothing()
    (folder / "app.py").write_text("VALUE = 2\n")
    assert ["services/mine/app.py", "services/mine/more.py"] == waiting.files()


def wanted(services: Path) -> list[bool]:
    """What RELOAD unset, 0 and 1 come to."""
    services.mkdir()
    return [reload.is_wanted({"RELOAD": value}, services) for value in ("", "0", "1")]


def test_a_checkout_reloads_unless_told_not_to(tmp_path: Path) -> None:
    """RELOAD=0 switches it off."""
    (tmp_path / "pyproject.toml").touch()
    assert [True, False, True] == wanted(tmp_path / "services")


def test_code_in_the_store_does_not_reload(tmp_path: Path) -> None:
    """Nothing changes there, so it is off unless it is asked for."""
    assert [False, False, True] == wanted(tmp_path / "services")


# --- one service ----------------------------------------------------------------------------------


@dataclass
class Service:
    """An Auth API that reloads, run from a copy of the code."""

    code: Path
    port: int
    output: Path
    process: subprocess.Popen[bytes]

    def save(self, old: str, new: str, name: str = "openapi.py") -> None:
        """Replaces a text in one of its files."""
        path = self.code / "services/auth_api" / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def title(self) -> str:
        """What it calls itself, which is said in openapi.py; empty while it does not answer."""
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(f"http://127.0.0.1:{self.port}/openapi.json")
            return str(answer.json()["info"]["title"])
        return ""

    def wait_for(self, title: str) -> None:
        """Waits until it calls itself so."""
        support.wait_until(lambda: self.title() == title, seconds_max=SECONDS_MAX, what=title)

    def wait_for_log(self, text: str) -> None:
        """Waits until it has logged that."""
        support.wait_until(lambda: text in self.log(), seconds_max=SECONDS_MAX, what=text)

    def log(self) -> str:
        """What it has logged so far."""
        return self.output.read_text()

    def workers(self) -> list[psutil.Process]:
        """Its child processes, the dead ones among them that nobody has asked after."""
        return psutil.Process(self.process.pid).children()


@contextlib.contextmanager
def running(folder: Path, **more: str) -> Iterator[Service]:
    """The service, from `folder/code`, which becomes a copy of the code unless it is there."""
    checkout = folder / "code"
    if not checkout.exists():
        code(checkout)
    port = support.free_ports(1)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ = kept | {"HTTP_PORT": str(port), "JWT_SECRET": "s" * 32, "TMPDIR": str(folder)} | more
    command = [sys.executable, "-m", "services.reload", "services.auth_api"]
    output = folder / "log"
    with support.program(command, environ=environ, output=output, cwd=checkout) as process:
        yield Service(checkout, port, output, process)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """One that is up."""
    with running(tmp_path) as started:
        started.wait_for("Auth API")
        yield started


def test_saved_code_is_served_by_the_same_process(service: Service) -> None:
    """The process id stays; the workers with the old code are gone, and nobody is a zombie."""
    old = service.workers()
    service.save("Auth API", "Another API")
    service.wait_for("Another API")
    assert service.process.poll() is None
    support.wait_until(lambda: not any(w.is_running() for w in old), what="the old worker's end")
    assert 1 == len(service.workers())


def test_it_says_what_has_changed(service: Service) -> None:
    """One line in its log names the files."""
    service.save("Auth API", "Another API")
    service.wait_for("Another API")
    assert '"files": ["services/auth_api/openapi.py"]' in service.log()


def test_two_saves_of_one_size_in_one_second(service: Service) -> None:
    """Python's cached file, which knows whole seconds only, is not taken for the newer one."""
    path = service.code / "services/auth_api/openapi.py"
    assert [] != list(path.parent.glob("__pycache__/openapi.*"))
    stat = path.stat()
    new = path.with_name("new")
    new.write_text(path.read_text().replace("Auth API", "Same API"))
    # By a nanosecond another time, of the same second.
    os.utime(new, ns=(stat.st_atime_ns, stat.st_mtime_ns ^ 1))
    new.replace(path)
    service.wait_for("Same API")
    assert [] == list(path.parent.glob("__pycache__/openapi.*"))


def test_a_connection_is_for_one_request(service: Service) -> None:
    """A kept one would lead to the old code, or be lost with it under a request on its way."""
    answer = httpx.get(f"http://127.0.0.1:{service.port}/openapi.json")
    assert "close" == answer.headers["connection"]


def test_nothing_piles_up(service: Service) -> None:
    """Four changes later there are as many files open, folders and processes as after one."""
    counts = []
    for number in range(4):
        service.save(f"Auth API{' v' * number}", f"Auth API{' v' * (number + 1)}")
        service.wait_for(f"Auth API{' v' * (number + 1)}")
        support.wait_until(lambda: len(service.workers()) == 1, what="one worker")
        open_files = psutil.Process(service.process.pid).num_fds()
        folders = len(list(service.code.parent.glob("metrics-*")))
        counts.append((open_files, folders))
    assert [counts[0]] * 4 == counts


def test_a_request_in_hand_is_answered(service: Service) -> None:
    """One that was accepted before the change, and is sent whole only after it."""
    with contextlib.closing(httpx.Client(base_url=f"http://127.0.0.1:{service.port}")) as client:

        def slowly() -> Iterator[bytes]:
            yield b'{"username": "alice", '
            service.save("Auth API", "Another API")
            service.wait_for("Another API")
            yield b'"password": "password"}'

        headers = {"Content-Type": "application/json", "Content-Length": "45"}
        answer = client.post("/token", content=slowly(), headers=headers)
    assert 200 == answer.status_code, answer.text


def test_no_request_fails_meanwhile(service: Service) -> None:
    """Requests that come all the time are all answered, by the old or the new code."""
    stop = threading.Event()
    failed: list[Any] = []

    def ask() -> None:
        while not stop.is_set():
            if not service.title():
                failed.append(time.monotonic())

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(3):
            service.save(f"Auth API{' v' * number}", f"Auth API{' v' * (number + 1)}")
            service.wait_for(f"Auth API{' v' * (number + 1)}")
    finally:
        stop.set()
        for thread in threads:
            thread.join(SECONDS_MAX)
    assert [] == failed


def test_code_that_does_not_compile_is_not_taken(service: Service) -> None:
    """The old code goes on; the log has file, line and reason; the mended file is served."""
    service.save("DOCUMENT = ", "DOCUMENT = = ")
    service.wait_for_log("code not reloaded, the old goes on")
    assert '"file": "services/auth_api/openapi.py", "line": ' in service.log()
    assert "Auth API" == service.title()
    service.save("DOCUMENT = = ", "DOCUMENT = ")
    service.save("Auth API", "Another API")
    service.wait_for("Another API")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("TokenAnswer, TokenRequest\n", "TokenAnswer, Unknown\n", "ImportError: cannot import"),
        ("DOCUMENT = ", "DOCUMENT = unknown + ", "NameError: name 'unknown'"),
        ("DOCUMENT = ", "raise SystemExit(78)\nDOCUMENT = ", "waiting for the next save"),
    ],
)
def test_code_that_breaks_at_its_start(service: Service, old: str, new: str, told: str) -> None:
    """The traceback is logged, the old code goes on, and the next save is tried."""
    service.save(old, new)
    service.wait_for_log("waiting for the next save")
    assert told in service.log()
    assert "Auth API" == service.title()
    assert 200 == httpx.get(f"http://127.0.0.1:{service.port}/metrics").status_code
    service.save(new, old.replace("DOCUMENT", "# mended\nDOCUMENT"))
    service.save("Auth API", "Another API")
    service.wait_for("Another API")
    assert 200 == httpx.get(f"http://127.0.0.1:{service.port}/metrics").status_code


def test_an_app_that_cannot_be_built(service: Service) -> None:
    """What breaks after the imports, in `create_app`, is no different."""
    service.save("    users = ", "    unknown()\n    users = ", "app.py")
    service.wait_for_log("waiting for the next save")
    assert "Auth API" == service.title()
    counted = httpx.get(f"http://127.0.0.1:{service.port}/metrics").text
    assert 'http_request_duration_seconds_count{method="GET",route="/openapi.json"' in counted
    service.save("    unknown()\n", "", "app.py")
    service.save("Auth API", "Another API")
    service.wait_for("Another API")


def test_broken_code_at_the_first_start(tmp_path: Path) -> None:
    """It waits, tells why, and starts with the next save."""
    path = code(tmp_path / "code") / "services/auth_api/openapi.py"
    good = path.read_text()
    path.write_text("def\n")
    with running(tmp_path) as service:
        service.wait_for_log("waiting for the next save")
        assert "SyntaxError: " in service.log()
        path.write_text("def def\n")
        service.wait_for_log("reload: services/auth_api/openapi.py, line 1: ")
        path.write_text(good)
        service.wait_for("Auth API")


def test_a_bad_setting_at_the_first_start_ends_it(tmp_path: Path) -> None:
    """No save cures that: it is for the supervisor, and for who set it."""
    with running(tmp_path, RELOAD="1", JWT_SECRET="short") as service:
        assert 78 == service.process.wait(SECONDS_MAX)


def test_off_means_off(tmp_path: Path) -> None:
    """With RELOAD=0 nobody looks, and connections are kept open as in production."""
    with running(tmp_path, RELOAD="0") as service:
        service.wait_for("Auth API")
        service.save("Auth API", "Another API")
        time.sleep(reload.LOOK_SECONDS * 10)
        assert "Auth API" == service.title()
        with httpx.Client() as client:
            answer = client.get(f"http://127.0.0.1:{service.port}/health")
        assert "keep-alive" == answer.headers["connection"]


def test_a_signal_to_stop_that_came_first_is_heeded(service: Service) -> None:
    """SIGTERM that waits behind the signal to take up new code: it stops, and takes up nothing."""
    workers = service.workers()
    for number in (signal.SIGSTOP, signal.SIGHUP, signal.SIGTERM, signal.SIGCONT):
        service.process.send_signal(number)
    assert 0 == service.process.wait(SECONDS_MAX)
    assert [] == [worker for worker in workers if not is_gone(worker)]


@pytest.mark.parametrize("delay_seconds", [0.05, 0.15, 0.2, 0.3, 0.4, 0.6])
def test_a_signal_to_stop_is_heeded_at_any_moment(service: Service, delay_seconds: float) -> None:
    """SIGTERM while code is being exchanged ends it soon, with all its workers."""
    workers = service.workers()
    service.save("Auth API", "Another API")
    time.sleep(delay_seconds)
    workers += service.workers()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(SECONDS_MAX) in {0, -signal.SIGTERM}
    support.wait_until(lambda: all(is_gone(worker) for worker in workers), what="the workers' end")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{service.port}/health")
