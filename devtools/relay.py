"""A process between process-compose and the pipe or socket that is its standard output."""

import contextlib
import os
import queue
import select
import signal
import stat
import threading

# A few megabytes, for a reader that is slower than the log at times.
_LINES_MAX = 10_000
_LINE_BYTES_MAX = 64 * 1024
_END_SECONDS_MAX = 10


def relay_output() -> None:
    """Forks a process that relays this one's output, if that is a pipe or a socket.

    A Ctrl-C also ends the `tee` of a `| tee`. Without a reader, process-compose would end in the
    middle of its stop, and leave processes behind; with one that does not read, such as a pager, it
    would hold up the router's log and so all requests. Lines for which there is no room are lost.
    """
    kind = os.fstat(1).st_mode
    if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
        return
    reader, writer = os.pipe()
    if os.fork():
        os.close(reader)
        for stream in (1, 2) if os.path.sameopenfile(1, 2) else (1,):
            os.dup2(writer, stream)
        os.close(writer)
        return
    os.close(writer)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _relay(reader)
    os._exit(0)


def _relay(reader: int) -> None:
    lines: queue.Queue[bytes] = queue.Queue(_LINES_MAX)
    output = threading.Thread(target=_write, args=(lines,), daemon=True)
    output.start()
    with open(reader, "rb") as stream:
        while line := stream.readline(_LINE_BYTES_MAX):
            with contextlib.suppress(queue.Full):
                lines.put_nowait(line)
    with contextlib.suppress(queue.Full):
        lines.put(b"", timeout=_END_SECONDS_MAX)
        output.join(_END_SECONDS_MAX)


def _write(lines: "queue.Queue[bytes]") -> None:
    """Writes lines until an empty one; each is lost if there is no reader."""
    while line := lines.get():
        with contextlib.suppress(OSError):
            while line:
                select.select([], [1], [])  # Node makes a shared output non-blocking
                line = line[os.write(1, line) :]
