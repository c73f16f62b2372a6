"""The log files of all processes as one stream in time order: as they are, and as they grow.

Whatever the files' size, few lines are held at a time. A line without a time of its own (of a
traceback, or plain text) has that of the line before it, so it stays in its place.
"""

from __future__ import annotations

import heapq
import os
import time
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import IO, TYPE_CHECKING

from services import loglines
from services.logfiles import LINE_BYTES_MAX, Blocks, FolderError, LogFile, files, open_
from services.loglines import Line

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Iterator
    from pathlib import Path

# What one look at a growing file takes in, and one step back in a large one.
_READ_BYTES_MAX = 1024 * 1024
# A compressed file's size is not known beforehand; nobody waits for more than this.
_UNPACKED_BYTES_MAX = 4 * 1024 * 1024 * 1024
_MARK_BYTES = 256
# Workers and threads of one process write within milliseconds of each other, not quite in order.
_DISORDER_LINES = 64
_DISORDER = timedelta(seconds=1)
# How often growing files are looked at, and how long a line waits for earlier ones of others.
POLL_SECONDS = 0.1


class Logs:
    """A folder's log files, of some processes or of all.

    With `grow`, `lines` ends and `follow` begins where the files ended when this was made.
    """

    def __init__(
        self, folder: Path, processes: Collection[str] = (), *, grow: bool = False
    ) -> None:
        self.folder = folder
        self.notes: list[str] = []
        """A sentence for each thing that could not be read, and why."""
        self._processes = processes
        self._tails: dict[str, _Tail] = {}
        if grow:
            self._watch(at_end=True)

    def files(self) -> dict[str, list[LogFile]]:
        """By process, each the oldest first.

        Raises:
            FolderError: the folder cannot be read, or has no log in it.
        """
        found: dict[str, list[LogFile]] = {}
        for file in reversed(files(self.folder)):
            if not self._processes or file.process in self._processes:
                found.setdefault(file.process, []).append(file)
        return {process: found[process] for process in sorted(found)}

    def lines(
        self,
        needles: Collection[str] = (),
        *,
        since: datetime | None = None,
        last: int | None = None,
    ) -> Iterator[Line]:
        """All lines, the oldest first; those with one of the needles in them, where given.

        With `last` it may leave out what is before that many lines of each process.
        """
        sought = [needle.encode() for needle in needles]
        streams = [
            _in_order(self._read(_parts(map(self._as_watched, files_), since, last), sought))
            for files_ in self.files().values()
        ]
        for line in heapq.merge(*streams, key=lambda line: line.at):
            if since is None or line.at >= since:
                yield line

    def follow(self) -> Generator[list[Line]]:
        """What is written from now on, in batches, without end; a batch may be empty."""
        try:
            yield from self._batches()
        finally:
            for tail in self._tails.values():
                tail.close()

    def _batches(self) -> Iterator[list[Line]]:
        pending: list[Line] = []
        while True:
            # What has waited for one look need not wait for another.
            horizon = max(
                [
                    datetime.now(UTC) - timedelta(seconds=POLL_SECONDS),
                    *(line.at for line in pending),
                ]
            )
            self._watch()
            for tail in self._tails.values():
                pending += tail.new_lines()
            pending.sort(key=lambda line: line.at)
            yield [line for line in pending if line.at <= horizon]
            pending = [line for line in pending if line.at > horizon]
            if not any(tail.is_behind for tail in self._tails.values()):
                time.sleep(POLL_SECONDS)

    def _watch(self, *, at_end: bool = False) -> None:
        """Has a tail for each process that has a file."""
        try:
            found = self.files()
        except FolderError:  # it is yet to come, or was reset
            return
        for process in found.keys() - self._tails.keys():
            self._tails[process] = _Tail(self.folder / f"{process}.log", process, at_end=at_end)

    def _as_watched(self, file: LogFile) -> LogFile:
        tail = self._tails.get(file.process)
        if tail is None or tail.path != file.path:
            return file
        return replace(file, bytes_size=min(file.bytes_size, tail.position))

    def _read(
        self, parts: Iterable[tuple[LogFile, int]], needles: Collection[bytes]
    ) -> Iterator[Line]:
        for file, start in parts:
            name = file.path.name
            bytes_max = _UNPACKED_BYTES_MAX if file.compressed else file.bytes_size - start
            before = Line(datetime.fromtimestamp(file.written, UTC), file.process, {})
            try:
                with open_(file) as stream:
                    blocks = Blocks(stream, file, bytes_max)
                    for text in _with(needles, blocks):
                        before = _line(text, before)
                        yield before
            # A compressed file may be cut off or none at all; any may be rotated away meanwhile.
            except (OSError, EOFError, zlib.error) as error:
                reason = (error.strerror if isinstance(error, OSError) else "") or "it is damaged"
                self.notes.append(f"{name} could not be read to its end: {reason}")
                continue
            if blocks.huge:
                size = f"{LINE_BYTES_MAX // 1024} KiB"
                self.notes.append(f"{name}: passed over lines of more than {size}")


class _Tail:
    """One process's growing file: whole lines as they come, through rotation and truncation."""

    def __init__(self, path: Path, process: str, *, at_end: bool) -> None:
        self.path = path
        self.position = 0
        self.is_behind = False
        """Whether there was more to read than one look takes in."""
        self._before = Line(datetime.now(UTC), process, {})
        self._rest = b""
        self._mark = b""
        """What stands before `position`: another text there is another file's."""
        self._file = self._open()
        if at_end and self._file is not None:
            self.position = _end_of_lines(self._file)
            self._file.seek(max(self.position - _MARK_BYTES, 0))
            self._mark = self._file.read(min(self.position, _MARK_BYTES))

    def new_lines(self) -> list[Line]:
        """What has come since the last look."""
        texts = self._read()
        if not self.is_behind and self._is_replaced():
            # What the old file ends with ends, with or without the end of its line.
            texts += [self._rest]
            self.close()
            self._file = self._open()
            self._begin_anew()
            texts += self._read()
        lines = []
        for text in texts:
            if text.strip() and len(text) <= LINE_BYTES_MAX:
                self._before = _line(text, self._before)
                lines.append(self._before)
        return lines

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _begin_anew(self) -> None:
        self.position, self._rest, self._mark = 0, b"", b""

    def _open(self) -> IO[bytes] | None:
        try:
            return self.path.open("rb")
        except OSError:  # rotated away: the next one comes
            return None

    def _is_replaced(self) -> bool:
        try:
            return self._file is None or not os.path.samestat(
                os.fstat(self._file.fileno()), self.path.stat()
            )
        except OSError:
            return False

    def _read(self) -> list[bytes]:
        if self._file is None:
            return []
        self._file.seek(self.position - len(self._mark))
        read = self._file.read(len(self._mark) + _READ_BYTES_MAX)
        if not read.startswith(self._mark):  # truncated
            self._begin_anew()
            self._file.seek(0)
            read = self._file.read(_READ_BYTES_MAX)
        new = read[len(self._mark) :]
        self._mark = read[-_MARK_BYTES:]
        self.position += len(new)
        self.is_behind = len(new) == _READ_BYTES_MAX
        *whole, self._rest = (self._rest + new).split(b"\n")
        # Of a line without end no more is held than tells that it is too long.
        self._rest = self._rest[: LINE_BYTES_MAX + 1]
        return whole


def _end_of_lines(stream: IO[bytes]) -> int:
    """Where the last whole line ends; the end, if what follows it is too long for a line."""
    size = stream.seek(0, os.SEEK_END)
    start = stream.seek(max(size - LINE_BYTES_MAX, 0))
    end = stream.read(size - start)
    return start + end.rfind(b"\n") + 1 if b"\n" in end or start == 0 else size


def _parts(
    files_: Iterable[LogFile], since: datetime | None, last: int | None
) -> list[tuple[LogFile, int]]:
    """Which of a process's files to read, and from where on; the oldest first."""
    parts: list[tuple[LogFile, int]] = []
    for file in reversed(list(files_)):
        if since is not None and file.written < (since - _DISORDER).timestamp():
            break
        start, lines = _start(file, since, last)
        parts.append((file, start))
        last = None if last is None else last - lines
        if start > 0 or (last is not None and last <= 0):
            break
    return parts[::-1]


def _start(file: LogFile, since: datetime | None, last: int | None) -> tuple[int, int]:
    """A place in the file, before `since` or the `last` lines; how many lines come after it."""
    if file.compressed or (since is None and last is None):
        return 0, last or 0
    position, lines = file.bytes_size, 0
    try:
        with file.path.open("rb") as stream:
            while position > 0:
                end, position = position, max(position - _READ_BYTES_MAX, 0)
                stream.seek(position)
                block = stream.read(end - position)
                lines += block.count(b"\n")
                is_enough = last is not None and lines > last
                if is_enough or (since is not None and _is_before(block, file, since)):
                    break
    except OSError:  # whoever reads it says so
        return 0, lines
    return position, lines


def _is_before(block: bytes, file: LogFile, time_: datetime) -> bool:
    """Whether the first line with a time in the block is well before that time."""
    for text in block.split(b"\n")[1:]:
        if line := loglines.parse(text, file.process):
            return line.at < time_ - _DISORDER
    return False


def _with(needles: Collection[bytes], blocks: Blocks) -> Iterator[bytes]:
    """The lines with one of the needles, and what goes on indented after such a line."""
    goes_on = False
    for block in blocks:
        # Looking through a block at once is many times faster than line by line.
        if needles and not goes_on and not any(needle in block for needle in needles):
            continue
        for text in filter(bytes.strip, block.split(b"\n")):
            is_indented = text[:1] in (b" ", b"\t")
            if not (is_indented and goes_on):
                goes_on = not needles or any(needle in text for needle in needles)
            if len(text) > LINE_BYTES_MAX:
                blocks.huge = True
            elif goes_on:
                yield text


def _line(text: bytes, before: Line) -> Line:
    line = loglines.parse(text, before.process)
    return line or replace(before, fields={}, text=text.decode("utf-8", "replace").rstrip())


def _in_order(lines: Iterable[Line]) -> Iterator[Line]:
    held: list[tuple[datetime, int, Line]] = []
    number = count()
    for line in lines:
        heapq.heappush(held, (line.at, next(number), line))
        if len(held) > _DISORDER_LINES:
            yield heapq.heappop(held)[2]
    while held:
        yield heapq.heappop(held)[2]
