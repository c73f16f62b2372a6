"""Runs a module in a reduced environment: `python -I -X utf8 launch.py MODULE ARG...`.

The programs of nix/ start with it, so that they run the same in every shell; see
docs/configuration.md. Imports no other module of ours: their folder is not on the path yet. The
store has a copy of this file and of locate.py alone.
"""

import contextlib
import os
import runpy
import shlex
import sys
import time
from collections.abc import Mapping

# Inherited besides the settings, which are in inherited.txt. (.env.example would do, but users
# move it to .env.)
_KEPT = """
NIXW_ROOT PLATFORM_CHECKOUT PLATFORM_CODE PLATFORM_DROPPED
OTEL_RESOURCE_ATTRIBUTES
PC_CONFIG_FILES PC_DISABLE_TUI PC_LOG_FILE PC_SOCKET_PATH PROC_COMP_CONFIG
PATH HOME USER LOGNAME LD_LIBRARY_PATH LD_PRELOAD LOCALE_ARCHIVE
TERM TERMINFO TERMINFO_DIRS COLORTERM COLUMNS LINES NO_COLOR FORCE_COLOR EDITOR
DISPLAY WAYLAND_DISPLAY XAUTHORITY XDG_RUNTIME_DIR
SSL_CERT_DIR SSL_CERT_FILE NIX_SSL_CERT_FILE
http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY
"""


def reduced(environ: Mapping[str, str], *, has_screen: bool) -> dict[str, str]:
    """The environment of our programs.

    PLATFORM_DROPPED has the names of the variables left out, to find misspelt settings.
    """
    code = environ["PLATFORM_CODE"]
    try:
        with open(f"{code}/devtools/inherited.txt", encoding="ascii") as settings:  # noqa: PTH123
            kept = {*settings.read().split(), *_KEPT.split()}
    except OSError as error:
        sys.exit(
            f"platform: {error.filename}: {error.strerror}: is that the right checkout? If it was"
            f" deleted, change to another one and leave this shell. {_left(code)}"
        )
    dropped = dict.fromkeys(
        [*environ.get("PLATFORM_DROPPED", "").split(), *sorted(environ.keys() - kept)]
    )
    fixed = {
        "PLATFORM_DROPPED": " ".join(dropped),
        "TZ": "UTC",
        "LANG": "C.UTF-8",
        # Else bash takes a socket as its input, as Node gives its children, for a remote login, and
        # reads ~/.bashrc.
        "SHLVL": "1",
        "PYTHONPATH": code,
        # Neither modules of the user's home nor of the current folder.
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
        **({} if has_screen else {"PC_DISABLE_TUI": "1"}),
    }
    return {name: value for name, value in environ.items() if name in kept} | fixed


def _located(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment with the variables that locate the stack.

    A development shell that met a fault lacks them; in another checkout than the shell's,
    PLATFORM_CODE must be that one.
    """
    code = environ.get("PLATFORM_CODE")
    if code and code != environ.get("PLATFORM_CHECKOUT"):  # the store's
        return environ
    locate = runpy.run_path(os.path.join(os.path.dirname(__file__), "locate.py"))  # noqa: PTH118, PTH120
    folder = locate["Path"].cwd()
    if not code:
        return {**environ, **locate["variables"](environ, folder)}
    here = locate["find_checkout"](folder, environ)
    is_ours = here and os.path.exists(here / "devtools/inherited.txt")  # noqa: PTH110
    return {**environ, "PLATFORM_CODE": str(here)} if is_ours else environ


def _open_streams() -> None:
    """Opens closed streams: a file that is opened later would take the number of one."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, open(number, "w" if number else "r"))  # noqa: PTH123, SIM115


def _enter_folder(environ: Mapping[str, str]) -> None:
    """Leaves a deleted folder, as after switching branches, for what is at its path now.

    Not for the shell's checkout: that one's stack is another than that of a deleted checkout.
    """
    with contextlib.suppress(OSError):
        os.getcwd()  # noqa: PTH109
        return
    lost = environ.get("PWD", "/")
    parts = lost.split("/")
    paths = ["/".join(parts[:count]) or "/" for count in range(len(parts), 0, -1)]
    if not any(os.path.isfile(f"{path}/process-compose.yaml") for path in paths):  # noqa: PTH113
        # Its processes make the state folder again.
        roots = [path for path in paths if os.path.isdir(f"{path}/.state")]  # noqa: PTH112
        gone = [path for path in paths if not os.path.exists(path)]  # noqa: PTH110
        root = (roots or gone[-1:] or [lost])[0]
        sys.exit(f"platform: {lost} was deleted: change to a checkout. {_left(root)}")
    for path in paths:
        with contextlib.suppress(OSError):
            os.chdir(path)
            return


def _left(checkout: str) -> str:
    """How to stop the stack that a deleted checkout may have left."""
    return f"If its stack still runs: `PLATFORM_STATE={shlex.quote(checkout)}/.state platform down`"


def main() -> None:
    """Runs the module as a program; its arguments follow its name."""
    _open_streams()
    _enter_folder(os.environ)
    # process-compose's screen needs a terminal at both ends, and a cursor (Emacs' shell has none).
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    has_cursor = os.environ.get("TERM") not in {None, "", "dumb"}
    environ = reduced(_located(os.environ), has_screen=is_terminal and has_cursor)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    os.umask(0o077)
    sys.path.insert(0, environ["PYTHONPATH"])
    del sys.argv[0]
    command = sys.argv[0].rpartition(".")[2]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SyntaxError as error:  # in what is being edited, if the command imports it
        sys.exit(f"{command}: {error.filename}, line {error.lineno}: {error.msg}")


if __name__ == "__main__":
    main()
