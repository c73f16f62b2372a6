"""`.env` is passed on unchanged, or refused with a message."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from devtools import envfile
from devtools.checkout import Checkout
from devtools.doctor import machine
from devtools.settings import dotenv_faults
from tests.support import ROOT, call

ACCEPTED = {
    "A_COMMENT=two words   # why": "two words",
    "export B_EXPORT = 3 ": "3",
    "C_EMPTY=  # 5 s": "",
    "D_SINGLE='$x # y \"z\"' # why": '$x # y "z"',
    "E_DOLLAR=$HOME ${HOME}": "$HOME ${HOME}",
    "F_URL=rediss://u:p%40@host:6380/0?ssl_ca_certs=/a&db=1#b": (
        "rediss://u:p%40@host:6380/0?ssl_ca_certs=/a&db=1#b"
    ),
    "G_UTF8=Žluťoučký": "Žluťoučký",
    "LOG_LEVEL=file": "shell",
}
REFUSED = [
    *("KEY", "KEY hunter2", "=1", "KEY='hunter2", "KEY='a' hunter2", "KEY=a\u00a0b", "KEY=\0"),
    *("PC_NO_SERVER=hunter2", "KEY='a\nhunter2'", "SCRIPT_NAME=hunter2", "PYTHONINSPECT=1"),
]


def up(folder: Path, command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs process-compose in the folder, with one process."""
    config = folder / "process-compose.yaml"
    config.write_text(f"processes: {{dump: {{command: {command}}}}}")
    environ = {
        "PATH": os.environ["PATH"],
        "PLATFORM_CHECKOUT": str(folder),
        "PLATFORM_CODE": str(ROOT),
        "PC_CONFIG_FILES": str(config),
        "PC_SOCKET_PATH": str(folder / "s"),
        "PC_LOG_FILE": str(folder / "log"),
        "PROC_COMP_CONFIG": str(folder),
    }
    return call(["process-compose", "up", "-t=false"], environ | more, cwd=folder)


def test_a_process_gets_the_values(tmp_path: Path) -> None:
    """Values pass through process-compose unchanged, even next to invalid lines, CR LF and BOM."""
    lines = ["KEY='a' b", *ACCEPTED]
    (tmp_path / ".env").write_text("\ufeff" + "\r\n".join(lines), "utf-8", newline="")
    code = "import json, os; open('environ', 'w').write(json.dumps(dict(os.environ)))"
    (tmp_path / "dump.py").write_text(code)
    up(tmp_path, f"exec {sys.executable} dump.py", LOG_LEVEL="shell")
    arrived = json.loads((tmp_path / "environ").read_text())
    expected = {
        line.removeprefix("export ").split("=")[0].strip(): value
        for line, value in ACCEPTED.items()
    }
    assert {name: arrived.get(name) for name in expected} == expected


def test_a_second_file_is_refused(tmp_path: Path) -> None:
    """With PC_NO_SERVER in `.pc_env` no command could stop the stack; doctor names it as well."""
    (tmp_path / ".pc_env").write_text("PC_NO_SERVER=1\n")
    done = up(tmp_path, "touch started")
    assert (done.returncode, (tmp_path / "started").exists()) == (1, False)
    [fault] = dotenv_faults(Checkout(tmp_path, {}))
    assert fault in done.stderr


@pytest.mark.parametrize("line", REFUSED)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    """The fault never contains the value, which may be secret; other lines count."""
    path = tmp_path / ".env"
    path.write_text(f"GOOD=1\n{line}\nALSO=2\n")
    found = envfile.read(path)
    [fault] = found.faults
    assert fault.startswith(".env, line 2: ")
    assert "hunter2" not in fault
    assert found.values == {"GOOD": "1", "ALSO": "2"}


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    """A folder, another encoding or a dangling link is a fault, a missing file is not."""
    path = tmp_path / ".env"
    assert envfile.read(path) == envfile.EnvFile()
    path.write_bytes("A=1\n".encode("utf-16"))
    assert envfile.read(path).faults == [".env is not UTF-8 text: save it as UTF-8"]
    path.unlink()
    path.mkdir()
    assert envfile.read(path).faults == [".env cannot be read: Is a directory"]
    path.rmdir()
    path.symlink_to("x")
    assert envfile.read(path).faults == [".env is a link to x, which is missing"]
    assert machine.dotenv(Checkout(tmp_path, {})) == []
