# ruff: noqa: PTH110, PTH112, PTH113, PTH114, PTH118 - Path's methods raise in a folder of another user
"""Where a checkout's code, state, logs and socket are.

`python -I locate.py` prints the assignments for the development shell, or an error and `false`.
Imports no other module of ours: the shell runs a copy of this file alone.
"""

import contextlib
import hashlib
import os
import shlex
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

# macOS limits a Unix socket's path to 104 bytes, Linux to 108; beyond that, process-compose fails
# without a reason.
_SOCKET_BYTES_MAX = 100
_REMEDY = "set PLATFORM_STATE to your own folder"


class LocateError(SystemExit):
    """Says what is wrong and what to do. A command that does not catch it prints it and ends."""

    def __init__(self, why: str) -> None:
        super().__init__(f"platform: {why}")


def find_checkout(folder: Path, environ: Mapping[str, str]) -> Path | None:
    """The nearest checkout, from this folder upwards; None if there is none.

    Raises:
        LocateError: another user made it, as anyone can in /tmp; its code would run as this user.
    """
    for path in (folder, *folder.parents):
        if os.path.isfile(path / "process-compose.yaml") and os.path.isdir(path / "services"):
            # That of the development shell, or of the nixw that started this.
            chosen = {environ.get("PLATFORM_CHECKOUT"), environ.get("NIXW_ROOT")}
            if str(path) not in chosen and not _owners(path) <= {0, os.getuid()}:
                raise LocateError(
                    f"{path} belongs to another user: if you trust its code, start its own nixw"
                )
            return path
    return None


def _owners(checkout: Path) -> set[int]:
    names = ("", "process-compose.yaml", "services", "devtools", ".env")
    return {os.lstat(checkout / name).st_uid for name in names if os.path.lexists(checkout / name)}


def state_of(checkout: Path, environ: Mapping[str, str]) -> Path:
    """The state folder, absolute; ignores a PLATFORM_STATE derived by another checkout's shell."""
    chosen = environ.get("PLATFORM_STATE", "")
    is_derived = chosen == f"{environ.get('PLATFORM_CHECKOUT', '')}/.state"
    return checkout.absolute() / (".state" if is_derived or not chosen else chosen)


def access_fault(state: Path) -> str:
    """Why this user cannot use the folder, with the remedy after a colon; empty if they can."""
    # A shared folder, like /tmp, must not get mode 700. In a folder with other files, like a home,
    # a start would replace `environment`, and `reset` would remove `logs`.
    with contextlib.suppress(OSError):
        if os.listdir(state) and not _is_state(state):  # noqa: PTH208
            return f"{state} has unrelated files: set PLATFORM_STATE to a new folder"
    if os.path.islink(state) and not os.path.exists(state):
        return f"{state} is a link to a missing folder: make that one, or {_REMEDY}"
    # Root can write everywhere, and in some containers owns none of the files.
    if os.getuid() and (foreign := next(_foreign(state), None)):
        return (
            f"{foreign} belongs to another user: after a start with sudo take it back with"
            f' `sudo chown -R {os.getuid()} "{state}"`; in another user\'s checkout {_REMEDY}'
        )
    if os.path.exists(state) and not os.path.isdir(state):
        return f"{state} is not a folder: move it away, or {_REMEDY}"
    made_in = next(path for path in (state, *state.parents) if os.path.exists(path))
    if not os.path.isdir(made_in) or not os.access(made_in, os.W_OK | os.X_OK):
        return f"{state} cannot be written: give write permission, or {_REMEDY}"
    return ""


def _is_state(state: Path) -> bool:
    """Whether a folder that is not empty is a state folder."""
    # A running stack makes these again in a deleted folder, and `rm *` leaves `.gitignore`.
    if {"logs", "metrics", ".gitignore"}.issuperset(os.listdir(state)):  # noqa: PTH208
        return True
    has_folder = any(os.path.isdir(state / name) for name in ("nixw", "process-compose"))
    return has_folder or os.path.isfile(state / "version")


def _foreign(state: Path) -> Iterator[str]:
    """The paths in the folder, itself included, that belong to another user."""
    below = (os.path.join(path, n) for path, dirs, files in os.walk(state) for n in dirs + files)
    for path in (str(state), *below):
        with contextlib.suppress(OSError):
            if os.lstat(path).st_uid != os.getuid():
                yield path


def variables(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The variables that locate the stack of a checkout; makes the state folder.

    The checkout is that of `folder`, else PLATFORM_CHECKOUT, which the development shell or
    a program from the store has set.

    Raises:
        LocateError: there is no checkout, or one of its paths cannot be used.
    """
    checkout = find_checkout(folder, environ) or _named(environ.get("PLATFORM_CHECKOUT", ""))
    code = environ.get("PLATFORM_CODE", "")
    # Replaces a code folder that another checkout's shell derived, but not the store's.
    if not code or code == environ.get("PLATFORM_CHECKOUT"):
        code = str(checkout)
    state = state_of(checkout, environ)
    _check_paths(code, str(state))
    if fault := access_fault(state):
        raise LocateError(fault)
    for name in ("logs", "process-compose"):
        (state / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o700)
    return {
        "PLATFORM_CHECKOUT": str(checkout),
        "PLATFORM_CODE": code,
        "PLATFORM_STATE": str(state),
        "PC_SOCKET_PATH": _socket(state),
        # By default, process-compose prefers a stray compose.yaml, shares its log between all
        # users of the machine, and complains in JSON without a folder for its settings.
        "PC_CONFIG_FILES": f"{code}/process-compose.yaml",
        "PC_LOG_FILE": f"{state}/logs/process-compose.log",
        "PROC_COMP_CONFIG": f"{state}/process-compose",
        "PYTHONPATH": code,
    }


def _named(folder: str) -> Path:
    if folder:
        with contextlib.suppress(OSError):
            Path(folder).mkdir(parents=True, exist_ok=True)
            return Path(folder)
    raise LocateError("neither this folder nor one above it is a checkout: change to one")


def _check_paths(code: str, state: str) -> None:
    if any(text in state + code for text in ('"', "\\", "{{", "\n")):
        raise LocateError(
            "process-compose cannot read a path with {{, a double quote, a backslash or a line"
            f" break: {state}"
        )
    if {",", ":"}.intersection(code):  # PC_CONFIG_FILES and PYTHONPATH are lists
        raise LocateError(
            "the checkout's path has a comma or a colon, which separate paths in lists: " + code
        )


def _socket(state: Path) -> str:
    """The socket's path, the same for all links to the folder and all shells of this user."""
    real = os.path.realpath(state)
    if len(os.fsencode(f"{real}/pc.sock")) <= _SOCKET_BYTES_MAX:
        return f"{real}/pc.sock"
    # Not XDG_RUNTIME_DIR, which some shells lack. Mode 700: no other user can make a socket there.
    folder = Path(f"/tmp/platform-{os.getuid()}")  # noqa: S108
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise LocateError(
            f"{folder} belongs to another user: have it removed, or set PLATFORM_STATE to a folder"
            " with a path of less than 90 characters"
        )
    folder.chmod(0o700)
    return f"{folder}/{hashlib.sha256(os.fsencode(real)).hexdigest()[:16]}.sock"


def main(environ: Mapping[str, str]) -> None:
    """Prints what the development shell evaluates."""
    # Another Python's library would break ours.
    lines = ["unset CDPATH PYTHONHOME PYTHONEXECUTABLE __PYVENV_LAUNCHER__"]
    if temporary := environ.get("NIX_BUILD_TOP"):
        # Nix makes a folder for each shell and never removes it. Its parent is the user's own.
        with contextlib.suppress(OSError):
            os.rmdir(temporary)  # noqa: PTH106
        lines.append(f"export TMPDIR={shlex.quote(os.path.dirname(temporary))}")  # noqa: PTH120
        lines.append("unset NIX_BUILD_TOP TMP TEMP TEMPDIR")
    try:
        assignments = variables(environ, Path.cwd())
    except (LocateError, OSError) as error:
        fault = error if isinstance(error, LocateError) else LocateError(str(error))
        sys.stderr.write(f"{fault}\n")
        lines = ["false"]
    else:
        lines += [f"export {name}={shlex.quote(value)}" for name, value in assignments.items()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(os.environ)
