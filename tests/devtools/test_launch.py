"""What our programs inherit, and how they find the stack."""

import os
import re
import shlex
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from devtools import deadletters, locate, logs, settings, state
from devtools.checkout import current
from devtools.doctor import __main__ as doctor
from tests.devtools.conftest import at_terminal
from tests.support import LAUNCH, ROOT, call

PATH = {"PATH": os.environ["PATH"]}


def launched(environ: dict[str, str], module: str = "seen", cwd: Path = ROOT) -> dict[str, str]:
    """The environment of a program, which prints it, if started with these variables."""
    done = call([*LAUNCH, module], PATH | {"PLATFORM_CODE": str(ROOT)} | environ, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


@pytest.fixture
def _deadletters_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`deadletters list` in this checkout, with `tmp_path` as its state folder."""
    monkeypatch.setenv("PLATFORM_STATE", str(tmp_path))
    monkeypatch.setenv("PLATFORM_CHECKOUT", str(ROOT))
    monkeypatch.setattr(sys, "argv", ["deadletters", "list"])


@pytest.fixture
def code(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of code with a module that prints its environment, and without .env.example."""
    folder = tmp_path_factory.mktemp("code")
    for name in ("devtools", "services"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "seen.py").write_text(
        "import os\nfor item in os.environ.items(): print(*item, sep='=', end='\\0')"
    )
    return str(folder)


def test_every_setting_is_inherited(code: str) -> None:
    """All variables that our code reads, except those that the stack sets."""
    ours = {name: "x" for name in settings.known() if not re.match("HTTP_PORT|SANDBOX_", name)}
    assert ours.keys() <= launched({**ours, "PLATFORM_CODE": code}).keys()


def test_a_syntax_error_in_what_it_imports_is_named(code: str) -> None:
    """By file and line, without a traceback: it may be in what is being edited."""
    (Path(code) / "broken.py").write_text("\ndef def\n")
    done = call([*LAUNCH, "broken"], PATH | {"PLATFORM_CODE": code})
    named = f"broken: {code}/broken.py, line 2: invalid syntax\n"
    assert (done.returncode, done.stderr) == (1, named)


def test_in_a_deleted_folder_a_command_runs_for_its_checkout(tmp_path: Path) -> None:
    """Switching branches may have deleted it, or made it again."""
    (tmp_path / "process-compose.yaml").touch()
    show = "import os; print(os.getcwd())"
    (tmp_path / "shown.py").write_text(show)
    (tmp_path / "devtools").symlink_to(ROOT / "devtools")
    environ = PATH | {"PLATFORM_CODE": str(tmp_path), "PLATFORM_CHECKOUT": str(ROOT)}
    for then, found in (("", tmp_path), ("mkdir here;", tmp_path / "here")):
        program = f"cd here; rmdir ../here; (cd ..; {then}); exec {shlex.join(LAUNCH)} shown"
        (tmp_path / "here").mkdir()
        done = call(["bash", "-uc", program], environ, cwd=tmp_path)
        assert (done.stdout, done.stderr) == (f"{found}\n", "")


@pytest.mark.parametrize("then", ["", "mkdir -p there/.state;"], ids=["gone", "state made again"])
@pytest.mark.parametrize("below", ["", "/services/core_api"], ids=["root", "below"])
def test_in_a_deleted_checkout_a_command_is_refused(
    tmp_path: Path, code: str, below: str, then: str
) -> None:
    """It would stop, or delete, the stack of the shell's checkout instead."""
    environ = PATH | {"PLATFORM_CODE": code, "PLATFORM_CHECKOUT": code}
    (tmp_path / f"there{below}").mkdir(parents=True)
    program = f"cd there{below}; rm -r {tmp_path}/there; (cd {tmp_path}; {then})"
    program += f"; exec {shlex.join(LAUNCH)} seen"
    done = call(["bash", "-uc", program], environ, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"platform: {tmp_path}/there{below} was deleted: change to a checkout."
        f" If its stack still runs: `PLATFORM_STATE={tmp_path}/there/.state platform down`\n"
    )


def test_the_stack_s_shell_reads_no_start_up_file(tmp_path: Path, code: str) -> None:
    """Bash would take a socket as its input, as Node gives its children, for a remote login."""
    (tmp_path / ".bashrc").write_text("exit 3")
    environ = launched({"HOME": str(tmp_path), "PLATFORM_CODE": code})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(["bash", "-c", "true"], env=environ, stdin=ours.fileno(), check=False)
    assert done.returncode == 0


def test_nothing_else_is_inherited_and_its_names_are_kept(code: str) -> None:
    """Only the names are kept, so that preflight finds misspelt settings."""
    strange = {
        "PSP_TIMEOUT_SECOND": "hunter2",
        "LINES_OF_SEVERAL": 'hunter2\ndeclare -x PATH="/"\nQUEUE_LIMIT=hunter2',
        "BASH_FUNC_exec%%": "() { echo hunter2; }",
        "PYTHONHOME": "/nowhere",
    }
    inherited = launched(strange | {"PLATFORM_CODE": code})
    assert set(inherited.pop("PLATFORM_DROPPED").split()) >= strange.keys()
    assert "hunter2" not in str(inherited)
    assert inherited["PATH"] == os.environ["PATH"]
    assert (inherited["TZ"], inherited["PYTHONPATH"]) == ("UTC", code)


def test_no_module_comes_from_the_current_folder(tmp_path: Path, code: str) -> None:
    """A command does not run a `json.py` or `devtools` of the current folder."""
    (tmp_path / "json.py").write_text("raise SystemExit('foreign code')")
    (tmp_path / "devtools").mkdir()
    environ = PATH | {"PLATFORM_CODE": code, "PYTHONPATH": str(tmp_path)}
    done = call([*LAUNCH, "devtools.merchant", "--help"], environ, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_closed_streams_are_no_errors(tmp_path: Path) -> None:
    """`platform up -D 2>&-` starts the stack, and no file gets a closed stream's number."""
    (tmp_path / "devtools").symlink_to(ROOT / "devtools")
    (tmp_path / "said.py").write_text(
        "import sys\nprint('said', file=sys.stderr)\nassert open(__file__).fileno() > 2"
    )
    done = subprocess.run(
        ["bash", "-euc", f"exec <&- >&- 2>&-; {shlex.join(LAUNCH)} said"],
        env=PATH | {"PLATFORM_CODE": str(tmp_path)}, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0


@pytest.mark.parametrize(("term", "is_off"), [("xterm", False), ("dumb", True), ("", True)])
def test_the_screen_needs_a_cursor(code: str, term: str, *, is_off: bool) -> None:
    """In Emacs' shell `platform up` prints plain logs, in place of an error of process-compose."""
    done, shown = at_terminal([*LAUNCH, "seen"], PATH | {"PLATFORM_CODE": code, "TERM": term})
    assert (done, "PC_DISABLE_TUI=1" in shown) == (0, is_off)


def test_a_command_is_that_of_the_checkout_in_which_it_runs(tmp_path: Path, code: str) -> None:
    """Else `new` in a worktree would take names and ports from the shell's checkout."""
    shell = dict.fromkeys(("PLATFORM_CHECKOUT", "PLATFORM_CODE"), str(ROOT))
    (Path(code) / "process-compose.yaml").touch()
    assert launched(shell, cwd=Path(code))["PYTHONPATH"] == code
    (tmp_path / "process-compose.yaml").touch()  # another project's
    (tmp_path / "services").mkdir()
    done = call([*LAUNCH, "devtools.merchant", "--help"], PATH | shell, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_checkouts_shell_starts_this_ones_code(tmp_path: Path) -> None:
    """Code and state are those of the checkout around the folder, unless chosen by the user."""
    (tmp_path / "process-compose.yaml").touch()
    (tmp_path / "services").mkdir()

    def found(**more: str) -> list[str]:
        of_other = dict.fromkeys(("PLATFORM_CHECKOUT", "PLATFORM_CODE"), "/o")
        of_other["PLATFORM_STATE"] = "/o/.state"
        names = ("PLATFORM_CODE", "PYTHONPATH", "PLATFORM_STATE")
        values = locate.variables(of_other | more, tmp_path / "services")
        return [values[name] for name in names]

    here, own = str(tmp_path), str(tmp_path / "own")
    assert found() == [here, here, f"{here}/.state"]
    assert found(PLATFORM_CODE="/store", PLATFORM_STATE=own) == ["/store", "/store", own]


def test_another_users_checkout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone can make one in /tmp, above our folder; only its own nixw or shell may use it."""
    (tmp_path / "process-compose.yaml").touch()
    (tmp_path / "services").mkdir()
    lstat = os.lstat
    of_other = tmp_path / "process-compose.yaml"

    def other(path: Path) -> os.stat_result:
        fields = list(lstat(path))
        fields[stat.ST_UID] = 4711 if path == of_other else fields[stat.ST_UID]
        return os.stat_result(fields)

    monkeypatch.setattr(os, "lstat", other)
    monkeypatch.chdir(tmp_path / "services")
    with pytest.raises(locate.LocateError, match="belongs to another user"):
        current({})
    for name in ("NIXW_ROOT", "PLATFORM_CHECKOUT"):
        assert current({name: str(tmp_path)}).folder == tmp_path


def test_a_command_of_a_shell_that_met_a_fault_locates_the_stack_again() -> None:
    """With the remedy it works, and until then prints the fault, as in a bare environment."""
    environ = {"PLATFORM_CODE": "", "PLATFORM_STATE": "/dev/null"}
    done = call([*LAUNCH, "devtools.stack", "--help"], PATH | environ, cwd=ROOT)
    assert (done.returncode, done.stderr.startswith("platform: /dev/null is no")) == (1, True)
    done = call([*LAUNCH, "devtools.stack", "--help"], PATH, cwd=ROOT / "docs")
    assert (done.returncode, done.stderr) == (0, "")


def shell(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What the development shell evaluates."""
    return call([sys.executable, "-I", str(ROOT / "devtools/locate.py")], PATH | environ)


def test_the_shell_has_the_same_variables(tmp_path: Path) -> None:
    """With a path that needs quotes; a fault is printed, and fails what evaluates it."""
    state = str(tmp_path / "it's $mine")
    text = shell({"PLATFORM_STATE": state}).stdout
    done = call(["bash", "-euc", f"{text}\nenv -0"], PATH)
    values = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    assert locate.variables({"PLATFORM_STATE": state}, ROOT).items() <= values.items()
    fault = shell({"PLATFORM_STATE": "/dev/null"})
    assert (fault.stdout, fault.stderr.startswith("platform: /dev/null is no")) == ("false\n", True)


@pytest.mark.parametrize(("name", "mode"), [("environment", 0o755), ("nixw", 0o700)])
def test_a_folder_with_unrelated_files_is_not_touched(tmp_path: Path, name: str, mode: int) -> None:
    """A start would replace its `environment`, and put secrets into a checkout, which has nixw."""
    (tmp_path / name).touch()
    tmp_path.chmod(mode)
    with pytest.raises(locate.LocateError, match="unrelated files"):
        locate.variables({"PLATFORM_STATE": str(tmp_path)}, ROOT)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.usefixtures("_deadletters_list")
def test_a_password_is_not_sent_without_a_stack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another user may listen on the port of a Redis that was stopped."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        state.prepare(tmp_path)
        state.write_environment(tmp_path, "", [other.getsockname()[1]])
        other.setblocking(False)
        assert deadletters.run() == 1
        with pytest.raises(BlockingIOError):
            other.accept()
    assert "no stack of this checkout is running" in capsys.readouterr().err


@pytest.mark.parametrize("left", [[".gitignore"], [".gitignore", "logs", "metrics"], ["logs"]])
def test_an_emptied_state_folder_is_still_one(tmp_path: Path, left: list[str]) -> None:
    """After `rm -r .state/*` the stack can be stopped and started; a shell's * has no dotfiles."""
    for name in left:
        (tmp_path / name).mkdir()
    assert locate.variables({"PLATFORM_STATE": str(tmp_path)}, ROOT)


def test_a_long_path_has_one_socket(tmp_path: Path) -> None:
    """For each link and session: else a second stack could start on the same data."""
    state, link = tmp_path / ("deep" * 25), tmp_path / "link"
    state.mkdir(mode=0o700)
    link.symlink_to(state)
    session = {"XDG_RUNTIME_DIR": str(tmp_path)}
    [path] = {
        locate.variables({"PLATFORM_STATE": str(path)} | more, ROOT)["PC_SOCKET_PATH"]
        for path, more in ((state, {}), (state, session), (link, {}))
    }
    assert len(path) < 100


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        *(("PLATFORM_STATE", name) for name in ('a"b', "a\\b", "a\nb", "a{{b")),
        *(("PLATFORM_CODE", name) for name in ("a,b", "a:b")),
    ],
)
def test_an_unusable_path_is_refused(tmp_path: Path, variable: str, name: str) -> None:
    """One that process-compose cannot read, or splits, as Python does."""
    with pytest.raises(locate.LocateError, match="path"):
        locate.variables({variable: str(tmp_path / name)}, ROOT)


@pytest.mark.usefixtures("_deadletters_list")
def test_state_of_another_user_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a start with sudo, each command prints how to take it back."""
    (tmp_path / "nixw").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    remedy = f'after a start with sudo take it back with `sudo chown -R 4711 "{tmp_path}"`'
    assert locate.access_fault(tmp_path).startswith(f"{tmp_path} belongs to another user: {remedy}")
    environ = current(os.environ).merged
    assert [logs.main([], environ), deadletters.run()] == [1, 1]
    assert doctor.main([], environ, sys.stdout) == 1
    shown = capsys.readouterr()
    assert (shown.out.count(remedy), shown.err.count(remedy)) == (1, 2)
    assert "\nfaults (X): 1, " in shown.out
