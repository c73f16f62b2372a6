"""Follows the log files of a folder, those that appear later, too, as of a new replica."""

import contextlib
import os
import re
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import BinaryIO

POLL_SECONDS = 0.2
_LINE_BYTES_MAX = 64 * 1024
# What process-compose makes of core-api.log when it is full, and of the replica's core-api.log.1.
_ROTATED = re.compile(r"-20\d\d-\d\d-\d\dT|\.gz$")


def new_lines(
    folder: Path, is_chosen: Callable[[Path], bool]
) -> Generator[tuple[Path, bytes], None, None]:
    """Yields whole lines with their file, as they are written, without end."""
    files: dict[Path, BinaryIO] = {}
    whence = os.SEEK_END
    try:
        while True:
            for path in sorted(folder.glob("*.log*")):
                if not _ROTATED.search(path.name) and is_chosen(path):
                    # It may be rotated or removed meanwhile.
                    with contextlib.suppress(OSError):
                        yield from ((path, line) for line in _read(path, files, whence))
            whence = os.SEEK_SET
            time.sleep(POLL_SECONDS)
    finally:
        for file in files.values():
            file.close()


def _read(path: Path, files: dict[Path, BinaryIO], whence: int) -> Iterator[bytes]:
    if path not in files:
        files[path] = path.open("rb")
        files[path].seek(0, whence)
        _to_line_start(files[path])
    file = files[path]
    is_rotated = not os.path.samestat(path.stat(), os.fstat(file.fileno()))
    # Each read ends with a line. If the file was truncated, it may be longer again.
    if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
        file.seek(0)
    for line in file:
        if not line.endswith(b"\n"):  # it is being written
            file.seek(-len(line), os.SEEK_CUR)
            break
        yield line
    if is_rotated:
        files.pop(path).close()
        yield from _read(path, files, os.SEEK_SET)


def _to_line_start(file: BinaryIO) -> None:
    end = file.tell()
    file.seek(max(end - _LINE_BYTES_MAX, 0))
    before = file.read(end - file.tell())
    file.seek(end - len(before) + before.rfind(b"\n") + 1)
