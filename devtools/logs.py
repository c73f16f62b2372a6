"""`logs`: the logs of all processes, merged in time order by lnav (https://lnav.org).

At a terminal it opens lnav's viewer; into a pipe, with `-n` or with NO_COLOR it prints plain lines.
devtools/lnav has the format of our lines.
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from devtools import arguments, checkout, follow, loglines
from devtools.address import state_folder
from devtools.catalog import PROCESSES
from devtools.locate import access_fault
from services.common.command import has_colors, run_main

_FORMAT = Path(__file__).parent / "lnav/formats/platform"
_LINES = 100
_LINES_MAX = 10**9
# lnav silently ignores longer patterns. Further requests show only their lines with the
# transaction's id.
_REQUESTS_MAX = 600
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

_BEGIN = ";UPDATE lnav_views SET top = max(0, inner_height - {lines}) WHERE name = 'log'"

_EPILOG = """\
examples:
  logs                                  the viewer; in a pipe, the last 100 lines
  logs -f | grep attempt                new lines, until Ctrl-C
  logs -n 20 --service core-api         print the last 20 lines of one process
  logs --request 9339e5dd-5789-48dc-a602-082401da5db4
  logs --transaction 3ffad832-4908-4697-aaed-7256802ccb64
  logs --level warning --since 5m

In the viewer: q quits, ? helps, / searches, e and w go to the next error and warning.

environment:
  PLATFORM_STATE   the stack's state folder, with its logs (.state)
  NO_COLOR         any value: plain lines at a terminal, too

exit codes:
  0  done                                   2    wrong usage
  1  no logs, or nothing about that id      130  interrupted
"""


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    state = state_folder(environ)
    fault, folder = access_fault(state), state / "logs"
    paths = [] if fault else sorted(folder.glob("*.log*"))
    files = {path: loglines.process_of(path) for path in paths}
    names = sorted(set(files.values()))
    if not names:
        start = "start the stack with `platform up -D`; if it runs, see `doctor`"
        return _refuse(fault or f"no log in {folder}: {start}")
    if unknown := set(args.service).difference(names):
        return _refuse(f"no log of {', '.join(unknown)}; there are: {', '.join(names)}")
    chosen = [str(path) for path in files if files[path] in (args.service or names)]
    about = _about(args, folder)
    is_viewer = sys.stdin.isatty() and sys.stdout.isatty() and not args.lines
    if is_viewer and has_colors(sys.stdout, environ):
        with _environ(environ) as env:
            page = shutil.get_terminal_size().lines - 5
            return subprocess.call(_lnav(args, about, page, chosen), env=env)  # noqa: S603 - no shell reads it
    if args.follow:
        return _follow(args, about, folder)
    with _environ(environ) as env:
        command = [*_lnav(args, about, _LINES, chosen), "-n"]
        has_any = _write(_output(command, env=env, stdin=subprocess.DEVNULL))
    if has_any or not about:
        return 0
    return _refuse(f"nothing about {args.request or args.transaction} in {folder}")


@contextlib.contextmanager
def _environ(environ: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """The environment with a temporary home, because lnav keeps filters between sessions.

    The home has our format. `lnav -I` would read `[` in the checkout's path as a pattern.
    """
    with tempfile.TemporaryDirectory(prefix="lnav-") as home:
        formats = Path(home, ".lnav/formats")
        formats.mkdir(parents=True)
        (formats / _FORMAT.name).symlink_to(_FORMAT)
        temporary = {"HOME": home, "TMPDIR": home, "TZ": "UTC"}
        yield {name: environ[name] for name in environ if name != "XDG_CONFIG_HOME"} | temporary


def _refuse(why: str) -> int:
    sys.stderr.write(f"logs: {why}\n")
    return 1


def _lnav(args: argparse.Namespace, about: str, lines: int, files: Sequence[str]) -> list[str]:
    """The lnav command line; it prints the last `lines` without a filter."""
    commands = []
    if args.transaction:
        # Hides reads of the transaction: a polling client sends many.
        commands.append(r":filter-out method\W+(GET|HEAD)\b")
    if about:
        commands.append(f":filter-in {about}")
    if args.level:
        commands.append(f":set-min-log-level {args.level}")
    if args.since:
        commands.append(f":hide-lines-before {args.since:%Y-%m-%dT%H:%M:%S.%f}")
    if (about or args.since) and not args.follow:
        lines = _LINES_MAX
    # Not `:goto`: lnav 0.11 fails if there are fewer lines.
    commands.append(_BEGIN.format(lines=args.lines or lines))
    return ["lnav", *(w for text in commands for w in ("-c", text)), *files]


def _about(args: argparse.Namespace, folder: Path) -> str:
    """A pattern of the lines about the request or transaction; empty for all lines."""
    if not (args.request or args.transaction):
        return ""
    ids = [args.request or str(args.transaction)]
    if args.transaction:
        # The router logs no transaction id: look up the transaction's requests first.
        ids += sorted(loglines.requests(folder, *ids))[:_REQUESTS_MAX]
    of_requests = rf"[ \"]request_id\W+({'|'.join(map(re.escape, ids))})(?![\w.-])"
    return of_requests if args.request else f"{args.transaction}|{of_requests}"


def _follow(args: argparse.Namespace, about: str, folder: Path) -> int:
    if args.lines or args.since:
        return _refuse("-f prints new lines only: leave out -n and --since")
    _write(_followed(args, about, folder), flush=True)
    return 0


def _followed(args: argparse.Namespace, about: str, folder: Path) -> Iterator[bytes]:
    """Prints new lines. lnav follows only at a terminal."""
    levels = loglines.LEVELS[loglines.LEVELS.index(args.level or loglines.LEVELS[0]) :]
    chosen: dict[Path, bool] = {}
    services = set(args.service)
    for path, raw in follow.new_lines(
        folder, lambda path: not services or loglines.process_of(path) in services
    ):
        text = loglines.plain(raw.decode("utf-8", "replace"))
        line = loglines.parse(text)
        if line or loglines.begins_error(text):
            is_high = not line or line.level in levels
            chosen[path] = is_high and bool(re.search(about, text))
        if chosen.get(path, not about and not args.level):
            yield text.encode()


def _output(command: Sequence[str], **options: Any) -> Iterator[bytes]:
    """The output lines of a program, which is killed when its reader stops."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as process:  # noqa: S603
        try:
            yield from process.stdout or ()
        finally:
            process.kill()


def _write(lines: Iterator[bytes], *, flush: bool = False) -> bool:
    """Prints the lines; returns whether there were any."""
    has_any = False
    for line in lines:
        sys.stdout.buffer.write(line)
        if flush:
            sys.stdout.buffer.flush()
        has_any = True
    sys.stdout.buffer.flush()
    return has_any


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = arguments.Parser(
        "logs", "Shows what all processes of the stack log, merged in time order.", _EPILOG
    )
    about = parser.add_mutually_exclusive_group()
    about.add_argument("--request", metavar="ID", help="the lines about one request")
    about.add_argument(
        "--transaction", type=uuid.UUID, metavar="ID",
        help="the lines about one transaction and the requests that changed it",
    )  # fmt: skip
    parser.add_argument(
        "--service", action="append", default=[], metavar="NAME",
        choices=arguments.Suggestions(lambda: [*PROCESSES, "process-compose"]),
        help="only this process, such as core-api, router or redis; may be repeated",
    )  # fmt: skip
    parser.add_argument("--level", choices=loglines.LEVELS, help="lowest level to show")
    parser.add_argument(
        "--since", type=_since, metavar="TIME",
        help="only later lines: since 30s, 5m, 2h, 1d ago, or a time like 2026-11-24T13:19:00Z",
    )  # fmt: skip
    parser.add_argument(
        "-n", dest="lines", type=arguments.count, metavar="LINES",
        help=f"print the last LINES lines ({_LINES}; all with an id or --since)",
    )  # fmt: skip
    parser.add_argument(
        "-f", "--follow", action="store_true", help="print new lines, in a pipe too"
    )
    return parser


def _since(text: str) -> datetime:
    if match := re.fullmatch(r"([0-9]{1,5})([smhd])", text):
        return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("must be like 5m or 2026-11-24T13:19:00Z") from None


if __name__ == "__main__":
    raise SystemExit(run_main(lambda: main(sys.argv[1:], checkout.current(os.environ).merged)))
