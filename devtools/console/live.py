"""Shared by all pages: the header with its links, and live parts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from nicegui import run, ui

from devtools.console.sources import TROUBLE, sentence

T = TypeVar("T")

PAGES = (
    ("/", "Payments", "receipt_long"),
    ("/stack", "Stack", "lan"),
    ("/queue", "Queue", "low_priority"),
    ("/try", "Try it", "send"),
    ("/psp", "PSP", "account_balance"),
    ("/logs", "Logs", "subject"),
    ("/rates", "Rates", "show_chart"),
)
LIVE_SECONDS = 1.0
# Light, dark or the system's: one developer, so one choice for all pages.
_DARK: dict[str, bool | None] = {"value": None}
_LOOKS: dict[bool | None, tuple[str, str, bool | None]] = {
    None: ("brightness_auto", "as the system", True),
    True: ("dark_mode", "dark", False),
    False: ("light_mode", "light", None),
}
"""For each choice its icon, its name and the next choice."""


def add_style() -> None:
    """Adds the stylesheet to all pages, once."""
    ui.add_css(Path(__file__).with_name("style.css"), shared=True)


@contextlib.contextmanager
def frame(title: str, address: str) -> Iterator[None]:
    """A page: the header, and the block's elements as its body."""
    ui.page_title(f"{title} · console")
    dark = ui.dark_mode(_DARK["value"])
    with ui.element("header").classes("head"):
        ui.label("console").classes("brand")
        with ui.element("nav").props('aria-label="Pages"'):
            for path, name, icon in PAGES:
                current = ' aria-current="page"' if name == title else ""
                with ui.link(target=path).classes("tab").props(current):
                    ui.icon(icon).props("aria-hidden=true")
                    ui.label(name)
        ui.link(address.removeprefix("http://"), address, new_tab=True).classes("address")
        _dark_button(dark)
    with ui.element("main").classes("page"):
        yield


def _dark_button(dark: ui.dark_mode) -> None:
    def change() -> None:
        _DARK["value"] = dark.value = _LOOKS[dark.value][2]

    def show() -> None:
        icon, name, _ = _LOOKS[dark.value]
        tip.text = f"Colours: {name}"
        button.props(f'icon={icon} aria-label="{tip.text}"')

    with ui.button(on_click=change, color=None).props("flat round dense") as button:
        tip = ui.tooltip()
    show()
    dark.on_value_change(show)


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

    async def refresh(self) -> None:
        """Reads now, even if the timer is off; discards the results of reads begun earlier."""
        self._reads += 1
        number = self._reads
        try:
            found: list[Any] = [await run.io_bound(self._read)]
            trouble = ""
        except TROUBLE as error:
            found, trouble = [], sentence(error)
        if self._trouble.is_deleted or number != self._reads:  # page left, or superseded
            return
        self._trouble.text, self._trouble.visible = trouble, not found
        changed = found != self._last
        self._last = found
        if found and changed:
            self._show(found[0])


async def act(change: Callable[[], T], done: str = "") -> T | None:
    """Makes a change in a thread and shows a notification; None if it failed."""
    try:
        found = await run.io_bound(change)
    except TROUBLE as error:
        ui.notify(sentence(error), type="negative", multi_line=True)
        return None
    if done:
        ui.notify(done, type="positive")
    return found
