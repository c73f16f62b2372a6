"""Page elements. Data from processes are always text, never markup."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from nicegui import ui

from devtools.loglines import Line

_LINE_CHARACTERS_MAX = 1_000


@contextlib.contextmanager
def card(title: str, hint: str = "") -> Iterator[None]:
    """A titled part of a page."""
    with ui.card().props("flat bordered"):
        with ui.row():
            ui.label(title).classes("text-subtitle1").props("role=heading aria-level=2")
            if hint:
                ui.label(hint).classes("hint")
        yield


def figure(name: str) -> ui.label:
    """A number with its name below; returns the number's label."""
    with ui.card().props("flat bordered"):
        value = ui.label("-").classes("text-h5")
        ui.label(name).classes("hint")
    return value


def table(
    columns: Sequence[tuple[str, str, str]],
    *,
    key: str = "id",
    slots: dict[str, str] | None = None,
    none: str,
    rows_per_page: int = 0,
) -> ui.table:
    """A table of (name, label, classes); a column of class `wide` is hidden on narrow screens.

    Cells are text; `slots` has Vue templates for other columns.
    """
    element = ui.table(
        columns=[
            {
                "name": name,
                "label": label,
                "field": name,
                "align": "right" if "number" in classes else "left",
                "classes": classes,
                "headerClasses": classes.replace("mono", ""),
            }
            for name, label, classes in columns
        ],
        rows=[],
        row_key=key,
        pagination=rows_per_page or None,
    )
    element.props(f'flat dense wrap-cells :rows-per-page-options="[{rows_per_page}]"')
    element.props(f'no-data-label="{none}"')
    element.add_slot("no-data", '<div class="hint">{{ props.message }}</div>')
    for name, template in (slots or {}).items():
        element.add_slot(f"body-cell-{name}", f'<q-td :props="props">{template}</q-td>')
    return element


def button(text: str, on_click: Any = None, *, solid: bool = False) -> ui.button:
    """A button in the page's colours."""
    element = ui.button(text, on_click=on_click, color=None)
    element.props(f"no-caps {'unelevated' if solid else 'flat dense'}")
    return element.classes("solid" if solid else "")


LEVEL_SLOT = "<span :class=\"'level level-' + props.value\">{{ props.value }}</span>"
STATUS_SLOT = "<span :class=\"'status status-' + props.value\">{{ props.value }}</span>"
# A date and a time; the date is left out on narrow screens.
TIME_SLOT = (
    "<span class='wide'>{{ props.value.split(' ')[0] }}&nbsp;</span>{{ props.value.split(' ')[1] }}"
)
_TEXT_SLOT = "<span :class=\"'said-' + props.row.level\">{{ props.value }}</span>"
PAYMENT_SLOT = (
    '<a v-if="props.value" :href="\'/payments/\' + props.value" class="mono">'
    "{{ props.value.slice(0, 8) }}</a>"
)


def choice(label: str, options: Iterable[str], value: str | None = None) -> ui.select:
    """A filter with one of several values, or none if `value` is empty."""
    names = list(options)
    element = ui.select(
        names, label=label, value=value, clearable=value is None, with_input=len(names) > 10
    )
    return element.props("outlined dense options-dense").classes("field")


def copy_button(text: Callable[[], str], what: str) -> None:
    """A button that copies a text."""

    def copy() -> None:
        ui.clipboard.write(text())
        ui.notify(f"{what} copied", type="positive")

    ui.button(icon="content_copy", on_click=copy, color=None).props(
        f'flat round dense size=sm aria-label="Copy {what}"'
    )


def pairs(values: Mapping[str, Any]) -> None:
    """Names and values in two columns."""
    with ui.element("div").classes("pairs"):
        for name, value in values.items():
            text = value if isinstance(value, str) else json.dumps(value)
            ui.label(name).classes("hint")
            ui.label(text).classes("mono")


def code(text: str, what: str) -> None:
    """Preformatted text and a button that copies it."""
    with ui.row(wrap=False):
        ui.label(text).classes("code mono").props("tabindex=0")
        copy_button(lambda: text, what)


def log_table(none: str) -> ui.table:
    """A table for `log_rows`."""
    element = table(
        (
            ("at", "Time (UTC)", "mono text-no-wrap"),
            ("level", "Level", "wide"),
            ("process", "Process", "wide text-no-wrap"),
            ("text", "Message", "mono line-text"),
        ),
        key="key",
        slots={"at": TIME_SLOT, "level": LEVEL_SLOT, "text": _TEXT_SLOT},
        none=none,
    )
    return element.classes("log")


def log_rows(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Log lines as rows: time, level, process, event with its fields."""
    return [
        {
            "key": number,
            "at": f"{line.at:%m-%d %H:%M:%S.%f}"[:-3],
            "level": line.level,
            "process": line.fields.get("service", ""),
            "text": _message(line.fields),
        }
        for number, line in enumerate(lines)
    ]


def _message(fields: Mapping[str, str]) -> str:
    details = (f"{k}={v}" for k, v in fields.items() if k not in {"service", "event"} and v)
    return "  ".join([fields["event"], *details])[:_LINE_CHARACTERS_MAX]
