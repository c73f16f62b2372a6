"""A process between process-compose and the pipe or socket that is its standard output."""

import os
import select
import signal
import stat

# For a reader that is slower than the output at times: some 20,000 lines.
_BUFFER_BYTES_MAX = 4 * 1024 * 1024
# For a reader that has stalled when process-compose ends.
_END_SECONDS_MAX = 10


def relay_output() -> None:
    """Forks a process that relays this one's output, if that is a pipe or a socket.

    A Ctrl-C also ends the `tee` of a `| tee`. Without a reader, process-compose would end in the
    middle of its stop, and leave processes behind; with one that does not read, such as a pager, it
    would hold up the router's log and so all requests. Lines for which there is no room are lost.
    """
    kind = os.fstat(1).st_mode
    # The first process of a container would end the relay with it, before its last lines.
    if os.getpid() == 1 or not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
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
    """Copies lines to standard output until all are written, or the reader stalls at the end."""
    buffer, rest, lost, is_open = bytearray(), b"", 0, True
    while is_open or buffer:
        readable, writable, _ = select.select(
            [reader] if is_open else [],
            [1] if buffer else [],
            [],
            None if is_open else _END_SECONDS_MAX,
        )
        if not (readable or writable):
            return
        if readable:
            data = os.read(reader, select.PIPE_BUF)
            is_open, rest = bool(data), rest + data
            is_whole = not is_open or len(rest) > _BUFFER_BYTES_MAX
            end = len(rest) if is_whole else rest.rfind(b"\n") + 1
            lines, rest = rest[:end], rest[end:]
            if is_open and len(buffer) > _BUFFER_BYTES_MAX:
                lost += lines.count(b"\n")
            else:
                buffer += (b"platform: %d lines were lost\n" % lost if lost else b"") + lines
                lost = 0
        if writable:
            try:  # at most as much as a ready pipe takes at once
                del buffer[: os.write(1, buffer[: select.PIPE_BUF])]
            except BlockingIOError:  # another writer was faster
                pass
            except OSError:  # no reader
                buffer.clear()
