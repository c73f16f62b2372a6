"""nix/platform: what our programs inherit, and how they find the stack."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from devtools import settings
from tests.support import ROOT, call, script

FOLDER = ROOT / "nix/platform"
# Exported by the user's shell: one for a command of the scripts, one for each that could remove it.
FUNCTIONS = ("cd", "declare", "exec", "unset")


def sourced(
    file: str, show: str, environ: dict[str, str], cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Sources one of the folder's files as the programs do, then runs `show`."""
    command = ["bash", "-euo", "pipefail", "-c", f'. "{FOLDER}/{file}"; {show}']
    own = {"PATH": os.environ["PATH"], "PLATFORM_CODE": str(ROOT)}
    return call(command, own | environ, cwd=cwd)


def test_every_setting_is_inherited(tmp_path: Path) -> None:
    """All variables that our code reads, except those that the stack sets, without .env.example."""
    (tmp_path / "devtools").symlink_to(ROOT / "devtools")
    ours = {name: "x" for name in settings.known() if not re.match("HTTP_PORT|SANDBOX_", name)}
    output = sourced("inherited.sh", "env", {**ours, "PLATFORM_CODE": str(tmp_path)}).stdout
    assert ours.keys() <= {line.partition("=")[0] for line in output.splitlines()}


def test_without_the_list_of_settings_nothing_runs(tmp_path: Path) -> None:
    """It would run with defaults in place of the settings."""
    done = sourced("inherited.sh", "echo ran", {"PLATFORM_CODE": str(tmp_path)})
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path}/devtools/inherited.txt: No such file" in done.stderr


def test_in_a_deleted_folder_a_command_runs_for_its_shell_s_checkout(tmp_path: Path) -> None:
    """Switching branches may have deleted it; Python would fail with a traceback."""
    command = f'rmdir "{tmp_path}"; . "{FOLDER}/inherited.sh"; pwd'
    environ = {"PATH": os.environ["PATH"], "PLATFORM_CHECKOUT": str(ROOT)}
    assert call(["bash", "-euc", command], environ, cwd=tmp_path).stdout == f"{ROOT}\n"


def test_nothing_else_is_inherited_and_its_names_are_kept() -> None:
    """Only the names are kept, so that preflight finds misspelt settings."""
    strange = {
        "PSP_TIMEOUT_SECOND": "hunter2",
        "LINES_OF_SEVERAL": 'hunter2\ndeclare -x PATH="/"\nQUEUE_LIMIT=hunter2',
        "SHELLOPTS": "hashall",
        **{f"BASH_FUNC_{name}%%": "() { echo hunter2; }" for name in FUNCTIONS},
    }
    done = sourced("inherited.sh", "env", strange)
    assert (done.returncode, done.stderr) == (0, "")
    inherited = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert "hunter2" not in done.stdout
    dropped = set(inherited.pop("PLATFORM_DROPPED").split())
    assert {name for name in strange if "%" not in name} <= dropped
    assert inherited["PATH"] == os.environ["PATH"]
    assert (inherited["TZ"], inherited["PYTHONPATH"]) == ("UTC", str(ROOT))


def test_no_module_comes_from_the_current_folder(tmp_path: Path) -> None:
    """`merchant` does not run a `json.py` or `devtools` of the current folder."""
    (tmp_path / "json.py").write_text("raise SystemExit('foreign code')")
    (tmp_path / "devtools").mkdir()
    done = sourced("inherited.sh", f'cd "{tmp_path}"; python -m devtools.merchant --help', {})
    assert (done.returncode, done.stderr) == (0, "")


def test_a_trace_on_standard_output_does_not_close_it() -> None:
    """`export BASH_XTRACEFD=1` is common in CI; bash closes the descriptor if it is unset."""
    done = sourced("inherited.sh", "echo said; env", {"BASH_XTRACEFD": "1"})
    assert done.stdout.startswith("said\n")
    assert "BASH_XTRACEFD" not in done.stdout.replace("PLATFORM_DROPPED= BASH_XTRACEFD", "")


def test_closed_streams_are_no_errors() -> None:
    """`platform up -D 2>&-` starts the stack, and no file gets a closed stream's number."""
    command = 'exec <&- >&- 2>&-; . "$0"; echo said; echo said >&2; [ -c /dev/fd/0 ]'
    done = subprocess.run(
        ["bash", "-euc", command, FOLDER / "inherited.sh"],
        env={"PATH": os.environ["PATH"], "PLATFORM_CODE": str(ROOT)},
        timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0


@pytest.mark.parametrize(("term", "is_off"), [("xterm", ""), ("dumb", "1"), ("", "1")])
def test_the_screen_needs_a_cursor(term: str, is_off: str) -> None:
    """In Emacs' shell `platform up` prints plain logs, in place of an error of process-compose."""
    other, terminal = os.openpty()
    done = subprocess.run(
        ["bash", "-euc", '. "$0"; echo "${PC_DISABLE_TUI-}" >&2', FOLDER / "inherited.sh"],
        env={"PATH": os.environ["PATH"], "PLATFORM_CODE": str(ROOT), "TERM": term},
        stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, text=True, timeout=30, check=True,
    )  # fmt: skip
    os.close(terminal)
    os.close(other)
    assert done.stderr.strip() == is_off


def test_another_checkouts_shell_starts_this_ones_code(tmp_path: Path) -> None:
    """Code and state are those of the checkout around the folder, unless chosen by the user."""
    (tmp_path / "process-compose.yaml").touch()
    (tmp_path / "services").mkdir()
    of_other = {"PLATFORM_CHECKOUT": "/o", "PLATFORM_CODE": "/o", "PLATFORM_STATE": "/o/.state"}
    show = 'echo "$PLATFORM_CODE $PYTHONPATH $PLATFORM_STATE"'
    found = sourced("env.sh", show, of_other, tmp_path).stdout.split()
    assert found == [str(tmp_path), str(tmp_path), str(tmp_path / ".state")]
    own = {"PLATFORM_CODE": "/store", "PLATFORM_STATE": str(tmp_path / "own")}
    found = sourced("env.sh", show, of_other | own, tmp_path).stdout.split()
    assert found == ["/store", "/store", str(tmp_path / "own")]


@pytest.mark.parametrize(
    "line",
    [
        'cd() { builtin cd "$@" && ls; }',
        "cd() { ls; }; env() { ls; }; command() { ls; }; export -f cd env command",
        "alias cd=pushd",
        "alias ls='ls -la' id='id -a' eval=echo env=ls printf=echo",
        "export QUOTING_STYLE=c CDPATH=/ SHELLOPTS",
    ],
)
def test_the_users_bashrc_changes_nothing(tmp_path: Path, line: str) -> None:
    """`nix develop` sources it before env.sh, in an interactive shell, which expands aliases."""
    environ = {"PATH": os.environ["PATH"], "PLATFORM_CODE": str(ROOT)}
    environ["PLATFORM_STATE"] = str(tmp_path / ("deep " * 20))
    clean = sourced("env.sh", "export -p", environ).stdout
    paths = [one for one in clean.splitlines() if re.search(" (PLATFORM|PC|PROC)_", one)]
    (tmp_path / "rc").write_text(f'{line}\n. "{FOLDER}/env.sh"\n\\builtin export -p')
    done = call(["bash", "--rcfile", str(tmp_path / "rc"), "-i"], environ)
    assert set(paths) <= set(done.stdout.splitlines()), done.stderr
    assert len(paths) == 7


@pytest.mark.parametrize(("name", "mode"), [("environment", 0o755), ("nixw", 0o700)])
def test_a_folder_with_unrelated_files_is_not_touched(tmp_path: Path, name: str, mode: int) -> None:
    """A start would replace its `environment`, and put secrets into a checkout, which has nixw."""
    (tmp_path / name).touch()
    tmp_path.chmod(mode)
    done = sourced("env.sh", "true", {"PLATFORM_STATE": str(tmp_path)})
    assert (done.returncode, done.stderr.startswith("platform: ")) == (1, True)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_long_path_has_one_socket(tmp_path: Path) -> None:
    """For each link and session: else a second stack could start on the same data."""
    state, link = tmp_path / ("deep" * 25), tmp_path / "link"
    state.mkdir(mode=0o700)
    link.symlink_to(state)
    session = {"XDG_RUNTIME_DIR": str(tmp_path)}
    found = {
        sourced("env.sh", 'echo "$PC_SOCKET_PATH"', {"PLATFORM_STATE": str(path)} | more).stdout
        for path, more in ((state, {}), (state, session), (link, {}))
    }
    [path] = found
    assert len(path.strip()) < 100


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        *(("PLATFORM_STATE", name) for name in ('a"b', "a\\b", "a\nb", "a{{b")),
        *(("PLATFORM_CODE", name) for name in ("a,b", "a:b")),
    ],
)
def test_an_unusable_path_is_refused(tmp_path: Path, variable: str, name: str) -> None:
    """One that process-compose cannot read, or splits, as Python does."""
    done = sourced("env.sh", "true", {variable: str(tmp_path / name)})
    assert (done.returncode, done.stderr.startswith("platform: ")) == (1, True)


def test_state_of_another_user_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    """After a start with sudo, each command prints how to take it back; else it is made."""
    folder = tmp_path_factory.mktemp("u")  # a longer path has its socket elsewhere
    script(folder / "id", "echo 4711")
    state = folder / "state"
    environ = {"PATH": f"{folder}:{os.environ['PATH']}", "PLATFORM_STATE": str(state)}
    first, second = (sourced("env.sh", "true", environ) for _ in range(2))
    assert (first.returncode, first.stderr, (state / "logs").is_dir()) == (0, "", True)
    cure = f'after a start with sudo take it back with `sudo chown -R 4711 "{state}"`'
    assert second.returncode == 1
    assert second.stderr.startswith(f"platform: {state} belongs to another user: {cure}")
    for command in ("logs", "deadletters list", "doctor"):
        done = call(
            [sys.executable, "-m", f"devtools.{command.split()[0]}", *command.split()[1:]], environ
        )
        assert (done.returncode, (done.stdout + done.stderr).count(cure)) == (1, 1), done
    assert "\nfaults (X): 1, " in done.stdout
    assert call([sys.executable, "-m", "devtools.logs", "--help"], environ).returncode == 0
