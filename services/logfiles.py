"""Reads the stack's log files: what all processes say about one request or one transaction.

A file is `<process>.log`, and what was rotated out of it lies beside it: `<process>-<time>.log`
(as process-compose names it), `<process>.log.1`, each perhaps with `.gz`. `services/loglines.py`
reads a line; one without a time is passed over. Files are streamed, and every amount has a bound:
what was left out because of one, or could not be read, is said in `Found.notes`.
"""

from __future__ import annotations

import gzip
import re
import stat
import zlib
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from services import loglines

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from services.loglines import Line

    Stream = IO[bytes] | gzip.GzipFile

# Four times what the stack lets a file grow to. Of a larger one the newest end is read; of a
# compressed one, whose end cannot be sought, the beginning.
FILE_BYTES_MAX = 64 * 1024 * 1024
# All files together, the newest first: some seconds' reading.
TOTAL_BYTES_MAX = 512 * 1024 * 1024
LINE_BYTES_MAX = 64 * 1024
LINES_MAX = 5000
_REQUEST_IDS_MAX = 20
_BLOCK_BYTES = 1024 * 1024
_MIB = 1024 * 1024

_NAME = re.compile(
    r"(?P<process>.+?)(-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3})?\.log(\.\d{1,4})?(?P<gz>\.gz)?"
)
# Requests that only look: they tell nothing of how a transaction came about.
READING = frozenset({"GET", "HEAD"})


class FolderError(Exception):
    """There are no log files to read; the text says where, and why."""


@dataclass
class Found:
    """The lines that were asked for, oldest first."""

    folder: Path
    lines: list[Line] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)
    files: int = 0
    """How many files were read."""
    readings: int = 0
    """Lines of requests that only asked how the transaction stands: counted, not kept."""
    notes: list[str] = field(default_factory=list)
    """A sentence for each thing that was left out, and why."""


def about_request(folder: Path, request_id: str) -> Found:
    """What all processes said about a request, and by it about its transactions.

    Raises:
        FolderError: the folder cannot be read, or has no log in it.
    """
    found = _Search(folder, {request_id}).run()
    found.request_ids = [request_id]
    return found


def about_transaction(folder: Path, transaction_id: str) -> Found:
    """What all processes said about a transaction, or about a request that was to change it.

    The router knows requests only, so the files are read twice: for the requests, then for all.

    Raises:
        FolderError: the folder cannot be read, or has no log in it.
    """
    request_ids = _requests(_Search(folder, set(), transaction_id).run().lines)
    found = _Search(folder, set(request_ids), transaction_id).run()
    found.request_ids = request_ids
    return found


def _requests(lines: list[Line]) -> list[str]:
    ids = [
        line.fields["request_id"]
        for line in lines
        if isinstance(line.fields.get("request_id"), str) and line.fields["request_id"]
    ]
    return list(dict.fromkeys(ids))[:_REQUEST_IDS_MAX]


@dataclass(frozen=True)
class LogFile:
    """One of a process's files; `written` is when it last was, in seconds since the epoch."""

    path: Path
    process: str
    compressed: bool
    bytes_size: int
    written: float


class _Search:
    """One pass over the files, for these ids."""

    def __init__(
        self, folder: Path, request_ids: Collection[str], transaction_id: str = ""
    ) -> None:
        self._request_ids = request_ids
        self._transaction_id = transaction_id
        self._needles = [id_.encode() for id_ in (*request_ids, transaction_id) if id_]
        self._bytes_left = TOTAL_BYTES_MAX
        self._is_full = False
        self._found = Found(folder)

    def run(self) -> Found:
        found = self._found
        for file in files(found.folder):
            if self._bytes_left <= 0:
                found.notes.append(
                    f"{file.path.name} and older files were not read: "
                    f"the newest {TOTAL_BYTES_MAX // _MIB} MiB of logs are"
                )
                break
            self._read(file)
            if self._is_full:
                found.notes.append(
                    f"there are more lines: {LINES_MAX} of the newest files are here"
                )
                break
        found.lines.sort(key=lambda line: line.at)
        return found

    def _read(self, file: LogFile) -> None:
        name, notes = file.path.name, self._found.notes
        try:
            with open_(file) as stream:
                self._found.files += 1
                lines = Blocks(stream, file, min(FILE_BYTES_MAX, self._bytes_left))
                unreadable = self._take(lines, file.process)
        # A compressed file may be cut off or none at all; any may be rotated away meanwhile.
        except (OSError, EOFError, zlib.error) as error:
            reason = (error.strerror if isinstance(error, OSError) else "") or "it is damaged"
            notes.append(f"{name} could not be read to its end: {reason}")
            return
        self._bytes_left -= lines.bytes_read
        if lines.cut:
            part = "beginning" if file.compressed else "end"
            notes.append(f"{name} is large: {lines.bytes_max // _MIB} MiB at its {part} were read")
        if lines.huge:
            notes.append(f"{name}: passed over lines of more than {LINE_BYTES_MAX // 1024} KiB")
        if unreadable:
            notes.append(
                f"{name} tells of it, but {unreadable} of its lines cannot be read: no time in them"
            )

    def _take(self, lines: Blocks, process: str) -> int:
        """Keeps the lines that are meant; returns how many may be, but cannot be read."""
        unreadable = 0
        for text in self._candidates(lines):
            line = loglines.parse(text, process)
            if line is None:
                # The last line may be half written; without its end it says nothing of the rest.
                unreadable += text.endswith(b"\n")
            elif not self._means(line.fields):
                continue
            elif self._transaction_id and line.method in READING:
                # Whoever waits for a transaction may ask a thousand times.
                self._found.readings += 1
            elif len(self._found.lines) >= LINES_MAX:
                self._is_full = True
                break
            else:
                self._found.lines.append(line)
        return unreadable

    def _candidates(self, lines: Blocks) -> Iterator[bytes]:
        """The lines with one of the ids somewhere in them."""
        for block in lines:
            # Looking through a block at once is many times faster than line by line.
            if any(needle in block for needle in self._needles):
                for text in block.splitlines(keepends=True):
                    if any(needle in text for needle in self._needles):
                        if len(text) <= LINE_BYTES_MAX:
                            yield text
                        else:
                            lines.huge = True

    def _means(self, fields: Mapping[str, Any]) -> bool:
        named = fields.get("transaction_id")
        if self._transaction_id and isinstance(named, str) and named:
            # A client may send several transactions under one request id.
            return named == self._transaction_id
        request_id = fields.get("request_id")
        return isinstance(request_id, str) and request_id in self._request_ids


class Blocks:
    """A stream's lines, in blocks of whole ones, up to a number of bytes in all."""

    def __init__(self, stream: Stream, file: LogFile, bytes_max: int) -> None:
        self._stream = stream
        self.bytes_max = bytes_max
        self.bytes_read = 0
        self.cut = False
        self.huge = False
        self._within = False
        if not file.compressed and file.bytes_size > bytes_max:
            stream.seek(file.bytes_size - bytes_max)
            # The line it begins in the middle of is passed over, too.
            self.cut = self._within = True

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        while block := self._stream.read(min(_BLOCK_BYTES, self.bytes_max - self.bytes_read)):
            self.bytes_read += len(block)
            whole, newline, tail = block.rpartition(b"\n")
            if newline:
                if self._within:
                    whole = whole.partition(b"\n")[2]
                yield rest + whole + newline
                rest, self._within = tail, False
            elif not self._within:
                rest += tail
            if len(rest) > LINE_BYTES_MAX:
                rest, self._within, self.huge = b"", True, True
        if rest:
            yield rest
        if self.bytes_read >= self.bytes_max:
            self.cut = self.cut or bool(self._stream.read(1))


def files(folder: Path) -> list[LogFile]:
    """The folder's log files, the newest first."""
    try:
        found = [file for path in folder.iterdir() if (file := _file(path))]
    except OSError as error:
        raise FolderError(f"{folder} cannot be read: {error.strerror}") from None
    if not found:
        raise FolderError(f"{folder} has no file like core-api.log")
    return sorted(found, key=lambda file: file.written, reverse=True)


def _file(path: Path) -> LogFile | None:
    name = _NAME.fullmatch(path.name)
    if not name:
        return None
    try:
        status = path.stat()
    except OSError:  # rotated away since the folder was listed
        return None
    if not stat.S_ISREG(status.st_mode):  # a pipe would hold its reader for ever
        return None
    compressed = name["gz"] is not None
    return LogFile(path, name["process"], compressed, status.st_size, status.st_mtime)


def open_(file: LogFile) -> Stream:
    """The file's bytes, unpacked."""
    return gzip.open(file.path) if file.compressed else file.path.open("rb")
