"""The checkout that `new` changes, and its state in git."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from devtools.catalog import SERVICES
from devtools.checkout import current
from devtools.new import CONTAINERS, PROCESS_COMPOSE, NewError
from devtools.new.request import Request
from devtools.new.unsynced import blocks

_GIT_SECONDS_MAX = 30
# Folders whose files may refer to a service, apart from the derived files.
_USERS = ("services", "devtools", "bench", "tests", "nix")
_SUFFIXES = {".py", ".lua", ".nix", ".sh", ".toml"}


def find(environ: Mapping[str, str]) -> Path:
    """The checkout around the working folder.

    Raises:
        NewError: none found, or it is not writable.
    """
    root = current(environ).folder.resolve()
    if not (root / "flake.nix").is_file() or not (root / "process-compose.yaml").is_file():
        raise NewError("neither this folder nor one above it is a checkout: change to one")
    if not os.access(root / "services", os.W_OK):
        raise NewError(f"{root} cannot be written")
    return root


def refuse_changes(root: Path, names: Sequence[str]) -> None:
    """Raises NewError if one of these files has uncommitted changes."""
    if changed := [line[3:] for line in _status(root, names)]:
        raise NewError(
            f"{', '.join(changed)}: uncommitted changes in a file that `new` must edit: commit or"
            " stash them first"
        )


def refuse_removal(root: Path, request: Request) -> None:
    """Raises NewError if the service is missing, in use or has unstaged changes."""
    code, tests = request.folders
    if request.name not in SERVICES:
        raise NewError(f"there is no service {request.name}")
    if not SERVICES[request.name].packages:
        raise NewError(f"{request.name} is part of the stack, not a removable service")
    users = [user for user in _users(root, request) if not user.startswith((code, tests))]
    if users := [*users, *_runners(root, request)]:
        raise NewError(f"{request.name} is in use: {users[0]} refers to it")
    if unstaged := [line[3:] for line in _status(root, request.folders) if line[1] != " "]:
        raise NewError(f"{unstaged[0]} has unstaged changes: `git add` it first")


def _users(root: Path, request: Request) -> Iterator[str]:
    name, module, variable = request.name, rf"services\.{request.folder}\b", request.folder.upper()
    forms = [
        rf"(from|import|-m) {module}|[\"']{module}",
        rf"([\"']|\${{?){variable}_(PORT|ADDRESS)\b",
        rf"\b(SERVICES|LISTENERS|SETTINGS)\[[\"']{name}[\"']\]",
    ]
    for folder in _USERS:
        # A single word in quotes may mean something else; elsewhere, so may any.
        quoted = [f'"{name}"'] if folder == "devtools" and "-" in name else []
        pattern = re.compile("|".join(forms + quoted))
        paths = [path for path in (root / folder).rglob("*") if path.suffix in _SUFFIXES]
        for path in sorted(paths):
            if path.is_file() and pattern.search(path.read_text("utf-8", "replace")):
                yield str(path.relative_to(root))


def _runners(root: Path, request: Request) -> Iterator[str]:
    """Other services that need it, processes and containers of the user's that run or call it."""
    needed = [one.folder for one in SERVICES.values() if request.name in one.needs]
    yield from (f"services/{folder}/service.toml" for folder in needed)
    call = rf"\$\{{?{request.folder.upper()}_(PORT|ADDRESS)\b|//{request.name}[:/]"
    for file, section, runs in (
        (PROCESS_COMPOSE, "processes", rf"-m\W+services\.{request.folder}\b"),
        (CONTAINERS, "services", rf"\bplatform/{request.name}[:@\s]"),
    ):
        text = (root / file).read_text("utf-8", "replace")
        begins = blocks(text, section)
        ends = [*begins.values(), len(text)][1:]
        for (name, begin), end in zip(begins.items(), ends, strict=True):
            if name != request.name and re.search(f"{runs}|{call}", text[begin:end]):
                yield f"{name} in {file}"


def _status(root: Path, names: Sequence[str]) -> list[str]:
    return git(root, "status", "--porcelain", "--untracked-files=all", "--", *names).splitlines()


def has_git(root: Path) -> bool:
    """Whether the checkout is a repository."""
    return (root / ".git").exists()


def git(root: Path, *args: str) -> str:
    """Runs git in the checkout, if it is a repository; returns what it printed."""
    if not has_git(root):
        return ""
    try:
        return subprocess.run(  # noqa: S603
            ["git", "-C", str(root), *args],  # noqa: S607  from the flake's PATH
            capture_output=True, text=True, timeout=_GIT_SECONDS_MAX, check=True,
        ).stdout  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise NewError(f"git {args[0]}: {' '.join(error.stderr.split())}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NewError(f"git {args[0]}: {error}") from None
