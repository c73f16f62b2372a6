"""Live parts of a page, and changes: both use their sources in threads."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import structlog
from nicegui import run, ui

from devtools.console.sources import EXPECTED_ERRORS, message_for

T = TypeVar("T")

LIVE_SECONDS = 1.0
_FAULT = "A fault of the console: `logs --service console` has its traceback."

_log = structlog.get_logger()


class Live(Generic[T]):
    """A part of a page, read in a thread every `seconds` and redrawn when the data change.

    If reading fails, the reason appears above the part, which keeps its last contents.
    """

    def __init__(
        self, read: Callable[[], T], show: Callable[[T], None], *, seconds: float = LIVE_SECONDS
    ) -> None:
        self._read, self._show = read, show
        self._trouble = ui.label().classes("trouble").props('role="alert"')
        self._trouble.visible = False
        self._last: list[T] = []
        self._reads = 0
        self.timer = ui.timer(seconds, self.refresh)

    def discard(self) -> None:
        """Discards the results of reads begun earlier; the next one is shown even if unchanged."""
        self._reads += 1
        self._last = []

    async def refresh(self) -> None:
        """Reads now, even if the timer is off; discards the results of reads begun earlier."""
        self._reads += 1
        number = self._reads
        try:
            data: list[Any] = [await run.io_bound(self._read)]
            trouble = ""
        except EXPECTED_ERRORS as error:
            data, trouble = [], message_for(error)
        except Exception:  # noqa: BLE001 - else the part would be empty without a reason
            data, trouble = [], _FAULT
            if self._trouble.text != trouble:
                _log.exception("cannot read the data of a page")
        # The page was left, the read was superseded, or NiceGUI shuts down.
        if self._trouble.is_deleted or number != self._reads or data == [None]:
            return
        self._trouble.text, self._trouble.visible = trouble, not data
        changed = data != self._last
        self._last = data
        if data and changed:
            self._show(data[0])


async def act(change: Callable[[], T], done: str = "") -> T | None:
    """Makes a change in a thread and shows a notification; None if it failed."""
    try:
        result = await run.io_bound(change)
    except EXPECTED_ERRORS as error:
        ui.notify(message_for(error), type="negative", multi_line=True)
        return None
    if done:
        ui.notify(done, type="positive")
    return result
