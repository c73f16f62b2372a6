"""`logs`: what all processes of the stack say, in time order, for people or for machines."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import uuid
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services import console
from services.logfiles import READING, FolderError
from services.logstream import Logs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import TextIO

    from services.loglines import Line

EXIT_NOTHING = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as the shell has it
EXIT_NOBODY_READS = 141  # 128 + SIGPIPE

_LAST_LINES = 100
_LEVELS = ("debug", "info", "warning", "error")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# A request that was asked for has few transactions, and a transaction few requests that changed it.
_IDS_MAX = 10_000
# With more than these it is faster to read every line than to look for each of them.
_NEEDLES_MAX = 20

_EPILOG = """\
examples:
  logs                                  the last 100 lines of all processes
  logs -f                               ... and what follows, until Ctrl-C
  logs --request 9339e5dd-5789-48dc-a602-082401da5db4
  logs --transaction 3ffad832-4908-4697-aaed-7256802ccb64
  logs --service core-api --service psp-connector --since 5m
  logs --level warning --since 2026-11-24T13:19:00Z
  logs --json -n all >stack.jsonl

output:
  2026-11-24T13:19:18.867Z  core-api       info     request     3c42968a-5355-46aa-9772-df0339ac105b  method=POST path=/ status=202 ms=7.85
  time (UTC), service, level, event, request id (- without one), and whatever else it says; a line
  that has no such form is shown as it is.

environment:
  PLATFORM_STATE   the stack's state folder, with its logs (.state)
  NO_COLOR         any value: no colours at a terminal either

exit codes:
  0  shown                                  2    wrong usage
  1  no logs, or nothing about that id      130  interrupted
"""  # noqa: E501


class Asked:
    """Which lines are meant: of one request, of one transaction, or all.

    The router knows requests only, and a request may make a transaction: what belongs together is
    learned from the lines that name both.
    """

    def __init__(self, request_id: str, transaction_id: str, *, reads: bool) -> None:
        self._by_request = bool(request_id)
        self._requests = {request_id} - {""}
        self._transactions = {transaction_id} - {""}
        self._reads = reads
        self._kept: dict[str, bool] = {}
        self.left_out = 0
        """Lines of requests that only asked how the transaction stands."""

    @property
    def is_all(self) -> bool:
        return not self._requests and not self._transactions

    def needles(self) -> list[str]:
        """What every line that is meant contains, one or other of them; nothing if too many."""
        ids = [*self._requests, *self._transactions]
        return ids if len(ids) <= _NEEDLES_MAX else []

    def learn(self, line: Line) -> None:
        """Takes in what the line says belongs together."""
        request_id, transaction_id = _ids(line)
        if not request_id or not transaction_id or (line.method in READING and not self._reads):
            return
        if self._by_request and request_id in self._requests:
            _add(self._transactions, transaction_id)
        elif not self._by_request and transaction_id in self._transactions:
            _add(self._requests, request_id)

    def means(self, line: Line) -> bool:
        """Whether the line is one of those; what is no line of its own goes with the one before."""
        if self.is_all:
            return True
        if not line.fields and line.text[:1].isspace():
            return self._kept.get(line.process, False)
        means = self._means(line)
        self._kept[line.process] = means
        return means

    def _means(self, line: Line) -> bool:
        request_id, transaction_id = _ids(line)
        if not line.fields:
            return any(needle in line.text for needle in (*self._requests, *self._transactions))
        if self._by_request:
            return request_id in self._requests or (
                not request_id and transaction_id in self._transactions
            )
        if transaction_id:
            is_it = transaction_id in self._transactions
            if is_it and line.method in READING and not self._reads:
                self.left_out += 1
                return False
            return is_it
        return request_id in self._requests


def _add(ids: set[str], new: str) -> None:
    if len(ids) < _IDS_MAX:
        ids.add(new)


def _ids(line: Line) -> tuple[str, str]:
    request_id, transaction_id = line.fields.get("request_id"), line.fields.get("transaction_id")
    return (
        request_id if isinstance(request_id, str) else "",
        transaction_id if isinstance(transaction_id, str) else "",
    )


class Command:
    """One call of `logs`."""

    def __init__(
        self, args: argparse.Namespace, folder: Path, out: TextIO, err: TextIO, *, colours: bool
    ) -> None:
        self._args = args
        self._out = out
        self._err = err
        self._colours = colours
        self._asked = Asked(args.request or "", args.transaction or "", reads=args.all)
        # What belongs to an id may be learned from any process.
        self._logs = Logs(folder, args.service if self._asked.is_all else (), grow=args.follow)
        self._shown = 0

    def run(self) -> int:
        """Shows what was asked for; the exit code.

        Raises:
            FolderError: the folder cannot be read, or has no log in it.
        """
        files = self._files()
        unknown = ", ".join(sorted(set(self._args.service) - files.keys()))
        if unknown and not self._args.follow:
            return self._refuse(f"no log of {unknown}; there are: {', '.join(files)}", EXIT_USAGE)
        if files:
            self._show(self._chosen())
        for note in self._logs.notes:
            self._say(f"note: {note}")
        if unknown:
            self._say(f"no log of {unknown} yet: waiting for its start")
        if self._args.follow:
            self._follow()
        return self._end(files)

    def _files(self) -> Mapping[str, Any]:
        folder = self._logs.folder
        try:
            return Logs(folder).files()
        except FolderError:
            if not self._args.follow or not folder.is_dir():
                raise
            self._say(f"no log in {folder} yet: waiting for a start")
            return {}

    def _chosen(self) -> Iterable[Line]:
        since, last = self._args.since, self._args.lines
        if last is None:
            last = _LAST_LINES if self._asked.is_all and since is None else 0
        if not self._asked.is_all:
            for line in self._logs.lines(self._asked.needles()):
                self._asked.learn(line)
        is_every = self._asked.is_all and self._args.level == _LEVELS[0]
        lines = self._logs.lines(
            self._asked.needles(), since=since, last=last if last and is_every else None
        )
        meant = filter(self._means, lines)
        return deque(meant, last) if last else meant

    def _means(self, line: Line) -> bool:
        args = self._args
        if args.service and line.process not in args.service:
            return False
        # What does not say how severe it is may be a traceback.
        is_severe = line.level not in _LEVELS or (
            _LEVELS.index(line.level) >= _LEVELS.index(args.level)
        )
        return is_severe and self._asked.means(line)

    def _follow(self) -> None:
        for batch in self._logs.follow():
            for line in batch:
                self._asked.learn(line)
            self._show(filter(self._means, batch))
            self._out.flush()

    def _show(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._out.write((_as_json(line) if self._args.json else self._for_people(line)) + "\n")
            self._shown += 1

    def _for_people(self, line: Line) -> str:
        if line.fields:
            return console.render(line.columns(), colours=self._colours)
        return console.render_text(line.columns(), colours=self._colours)

    def _end(self, files: Mapping[str, Any]) -> int:
        if left_out := self._asked.left_out:
            self._say(
                f"{left_out} lines of requests that only asked how it stands are not shown: "
                "--all shows them"
            )
        if self._shown:
            return 0
        count = sum(map(len, files.values()))
        where = f"in the {count} log files of {', '.join(files)} in {self._logs.folder}"
        if self._asked.is_all:
            self._say(f"no such line {where}")
            return 0
        kind = "request" if self._args.request else "transaction"
        which = self._args.request or self._args.transaction
        return self._refuse(f"nothing about {kind} {which} {where}", EXIT_NOTHING)

    def _refuse(self, why: str, code: int) -> int:
        self._say(why)
        return code

    def _say(self, what: str) -> None:
        self._out.flush()
        self._err.write(f"logs: {console.printable(what)}\n")


def _as_json(line: Line) -> str:
    """A JSON object on one line: the line itself, if it is one."""
    if line.text.startswith("{") and line.fields:
        return line.text
    return json.dumps(dict(line.fields) or line.columns())


def main(argv: Sequence[str], environ: Mapping[str, str], out: TextIO, err: TextIO) -> int:
    """The command; returns its exit code."""
    args = parser().parse_args(argv)
    folder = Path(environ.get("PLATFORM_STATE") or ".state", "logs")
    try:
        return Command(args, folder, out, err, colours=console.shows_colours(out, environ)).run()
    except FolderError as error:
        hint = "start the stack (`platform up -D`), or say where its state is with PLATFORM_STATE"
        err.write(f"logs: {error}; {hint}\n")
        return EXIT_NOTHING


def parser() -> argparse.ArgumentParser:
    """The words of the command."""
    words = argparse.ArgumentParser(
        prog="logs",
        description="Shows what all processes of the stack say, merged in time order.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    about = words.add_mutually_exclusive_group()
    about.add_argument(
        "--request", type=_request_id, metavar="ID",
        help="all lines about one request, of every process it went through",
    )  # fmt: skip
    about.add_argument(
        "--transaction", type=_transaction_id, metavar="ID",
        help="all lines about one transaction, and about the requests that made or changed it",
    )  # fmt: skip
    words.add_argument(
        "--all", action="store_true",
        help="with --transaction: the requests that only asked how it stands, too",
    )  # fmt: skip
    _add_choice(words)
    words.add_argument("-f", "--follow", action="store_true", help="goes on until Ctrl-C")
    words.add_argument("--json", action="store_true", help="one JSON object a line")
    return words


def _add_choice(words: argparse.ArgumentParser) -> None:
    words.add_argument(
        "--service", action="append", default=[], metavar="NAME",
        help="only this process, such as core-api, router or redis; may be repeated",
    )  # fmt: skip
    words.add_argument(
        "--level", choices=_LEVELS, default=_LEVELS[0],
        help="the least severe level that is shown (debug)",
    )  # fmt: skip
    words.add_argument(
        "--since", type=_since, metavar="TIME",
        help="from then on: 30s, 5m, 2h, 1d ago, or a time like 2026-11-24T13:19:00Z",
    )  # fmt: skip
    words.add_argument(
        "-n", dest="lines", type=_lines, metavar="LINES",
        help=f"how many, the newest, or `all` ({_LAST_LINES}; all with an id or --since)",
    )  # fmt: skip


def _request_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise argparse.ArgumentTypeError(
            "must be a request's id, as X-Request-Id has it: 1 to 64 of letters, digits, . _ -"
        )
    return text


def _transaction_id(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            "must be a transaction's id, as `merchant list --as NAME` prints it"
        ) from None


def _lines(text: str) -> int:
    """A number; 0 stands for all."""
    if text == "all":
        return 0
    if not re.fullmatch(r"[0-9]{1,7}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError("must be a number from 1 to 9999999, or `all`")
    return int(text)


def _since(text: str) -> datetime:
    if found := re.fullmatch(r"([0-9]{1,5})([smhd])", text):
        return datetime.now(UTC) - timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise argparse.ArgumentTypeError("must be like 30s, 5m, 2h, 1d or 2026-11-24T13:19:00Z")
    return at.astimezone(UTC)


def _run() -> int:
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its escape, not a traceback.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = main(sys.argv[1:], os.environ, sys.stdout, sys.stderr)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `logs | head -1`: nobody reads any more, and Python must not say so at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_NOBODY_READS
    return code


if __name__ == "__main__":
    sys.exit(_run())
