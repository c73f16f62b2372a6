"""`.env` arrives as it was meant, or is refused with a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devtools import dotenv
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# What is accepted, and what comes of it; the file has Windows line ends.
ACCEPTED = {
    "A_PLAIN=1": "1",
    "B_COMMENT=two words   # why": "two words",
    "export C_EXPORT=3": "3",
    "D_SPACES = 4 ": "4",
    "E_EMPTY=": "",
    "F_HASH=a#b": "a#b",
    "G_SINGLE='$x # y \"z\"' # why": '$x # y "z"',
    'H_DOUBLE="it\'s # 8"': "it's # 8",
    "I_URL=rediss://u:p%40@host:6380/0?ssl_ca_certs=/a&db=1": (
        "rediss://u:p%40@host:6380/0?ssl_ca_certs=/a&db=1"
    ),
    "J_UTF8=Žluťoučký": "Žluťoučký",
    'K_INNER=a"b': 'a"b',
    "L_BACKSLASH=C:\\x": "C:\\x",
    "\tM_TAB=13\t# why": "13",
}
TEXT = "# a file from Windows\r\n\r\n" + "\r\n".join(ACCEPTED) + "\r\n"
EXPECTED = {
    line.removeprefix("export ").strip().split("=")[0].strip(): value
    for line, value in ACCEPTED.items()
}

# What is refused. process-compose (godotenv 1.5.1) makes of it what stands behind, as was tried.
REFUSED = {
    "KEY": "drops the file",
    "B-x=1": "drops the file",
    "a.b=1": "takes a dot in a name",
    "KEY: 1": "takes YAML too",
    "=1": "an empty name",
    "KEY=  # 5 s": "# 5 s",
    "KEY=1 # see #7 # 8": "1 # see #7",
    "KEY=$HOME": "what an earlier line says of HOME",
    'KEY="$HOME"': "the same",
    'KEY="a\\tb"': "atb",
    "KEY='a": "drops the file",
    'KEY="a': "drops the file",
    "KEY='a' b": "drops the file",
    "KEY='a\\'": "drops the file",
    "KEY=a\u00a0b": "keeps the invisible space",
    "KEY=a\x00b": "cannot start a process",
}


def test_a_file_with_windows_line_ends_arrives_clean() -> None:
    """No carriage return, quote or comment is left in a value."""
    found = dotenv.parse(TEXT)
    assert (found.values, found.faults, found.warnings) == (EXPECTED, [], [])


def test_process_compose_gives_the_same(tmp_path: Path) -> None:
    """What is accepted here is what a process is given, by whichever process-compose there is."""
    (tmp_path / ".env").write_text(TEXT, "utf-8", newline="")
    code = "import json, os; open('given', 'w').write(json.dumps(dict(os.environ)))"
    (tmp_path / "show.py").write_text(code)
    (tmp_path / "process-compose.yaml").write_text(
        f"processes: {{show: {{command: exec {sys.executable} show.py}}}}"
    )
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    subprocess.run(
        ["process-compose", "up", "-t=false", "-f", "process-compose.yaml"],
        cwd=tmp_path,
        env=kept
        | {
            "PC_SOCKET_PATH": str(tmp_path / "s"),
            "PC_LOG_FILE": str(tmp_path / "log"),
            "PROC_COMP_CONFIG": str(tmp_path),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=True,
    )
    arrived = json.loads((tmp_path / "given").read_text())
    assert {name: arrived.get(name) for name in EXPECTED} == EXPECTED


@pytest.mark.parametrize("line", REFUSED)
def test_what_would_be_misread_is_refused_with_its_line(line: str) -> None:
    """The sentence names the line, never the value; the other lines count all the same."""
    found = dotenv.parse(f"GOOD=1\n{line}\nALSO=2\n")
    [fault] = found.faults
    assert fault.startswith(".env, line 2: ")
    assert found.values == {"GOOD": "1", "ALSO": "2"}


def test_a_value_that_is_refused_is_not_shown() -> None:
    """It may be a secret."""
    for line in ("JWT_SECRET=hunter2$x", "JWT_SECRET='hunter2", "JWT_SECRET hunter2"):
        assert "hunter2" not in "".join(dotenv.parse(line).faults)


def test_a_byte_order_mark_is_refused(tmp_path: Path) -> None:
    """process-compose would drop the whole file for it, without a word."""
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfWORKERS=3\r\n")
    found = dotenv.read(tmp_path / ".env")
    assert found.values == {"WORKERS": "3"}
    assert ["byte order mark" in fault for fault in found.faults] == [True]


def test_a_second_value_counts_and_is_told() -> None:
    """The later line wins, as with process-compose."""
    found = dotenv.parse("A=1\nA=2\n")
    assert found.values == {"A": "2"}
    assert found.warnings == [".env, line 2: A is set a second time; this one counts"]


def test_no_file_sets_nothing(tmp_path: Path) -> None:
    """`.env` is optional."""
    assert dotenv.DotEnv() == dotenv.read(tmp_path / ".env")


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    """A folder, other encodings and whole disks are told, not read."""
    path = tmp_path / ".env"
    path.mkdir()
    assert dotenv.read(path).faults == [".env cannot be read: Is a directory"]
    path.rmdir()
    path.write_bytes("A=1\n".encode("utf-16"))
    assert dotenv.read(path).faults == [".env is not UTF-8 text: save it as UTF-8"]
    path.write_bytes(b"#" * (dotenv.BYTES_MAX + 1))
    assert "bytes" in dotenv.read(path).faults[0]


def test_the_shipped_example_is_a_good_file() -> None:
    """.env.example can be copied as it is."""
    found = dotenv.read(ROOT / ".env.example")
    assert (found.faults, found.warnings) == ([], [])


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No file makes anything but settings and sentences, and no value has a line end in it."""
    found = dotenv.parse(text)
    assert not any(character in value for value in found.values.values() for character in "\r\n\0")


def test_a_typed_command_is_given_what_the_stack_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any folder of the checkout; the shell wins; another project's file is not ours."""
    (tmp_path / "services/deep").mkdir(parents=True)
    (tmp_path / "process-compose.yaml").touch()
    (tmp_path / ".env").write_text("REDIS_URL=redis://a/0\r\nLOG_LEVEL=debug\r\n", newline="")
    monkeypatch.chdir(tmp_path / "services/deep")
    given = dotenv.merged({"LOG_LEVEL": "info"})
    assert given == {"REDIS_URL": "redis://a/0", "LOG_LEVEL": "info"}
    (tmp_path / "process-compose.yaml").unlink()
    monkeypatch.chdir(tmp_path)
    assert dotenv.merged({}) == {}
