"""The settings classes, docs/configuration.md and .env.example agree."""

from __future__ import annotations

import re

import pytest

from devtools import environment, settings_table
from services.psp_connector.backoff import Backoff
from tests.support import ROOT

OTHERS = set(environment.OTHER_VARIABLES)
FIELDS = {
    name.upper(): field
    for settings in environment.SETTINGS.values()
    for name, field in settings.model_fields.items()
    if name.upper() not in environment.SET_BY_THE_STACK
}
EXAMPLE = (ROOT / ".env.example").read_text()


def test_the_example_has_every_setting() -> None:
    """.env.example names each variable, and none that does not exist."""
    named = set(re.findall(r"^#?([A-Z_]+)=", EXAMPLE, re.MULTILINE))
    assert set(FIELDS) | OTHERS | {"JWT_SECRET_FILE"} == named


def test_the_page_has_every_setting() -> None:
    """The table in docs/configuration.md is what `python -m devtools.settings_table` writes."""
    page = settings_table.PAGE.read_text()
    assert page == settings_table.updated(page)


def test_the_page_says_when_a_payment_is_given_up() -> None:
    """The longest time of all attempts and waits, worked out from the defaults."""
    names = ("attempts_max", "backoff_seconds", "backoff_seconds_max", "timeout_seconds")
    attempts, first, longest, call = (FIELDS[f"PSP_{name.upper()}"].default for name in names)
    backoff = Backoff(first, longest, uniform=lambda _low, high: high)
    waits_seconds = sum(backoff.delay_seconds(attempt) for attempt in range(1, attempts))
    page = " ".join(settings_table.PAGE.read_text().split())
    assert f"waits {waits_seconds:g} s at the most" in page
    assert f"beside {attempts} calls" in page
    assert f"failed within {waits_seconds + attempts * call:g} s" in page


@pytest.mark.parametrize(
    ("variable", "value"), re.findall(r"^([A-Z_]+)=(\S+)", EXAMPLE, re.MULTILINE)
)
def test_the_example_shows_the_default(variable: str, value: str) -> None:
    """A line of .env.example that is not commented out shows the default."""
    if variable in OTHERS:
        assert value in settings_table.DEFAULTS[variable]
        return
    default = FIELDS[variable].get_default(call_default_factory=False)
    if variable == "PSP_API_KEY":
        default = default.get_secret_value()
    if variable == "LOG_FORMAT":
        default = "console"  # of the stack
    assert value == str(default)


def test_every_setting_says_what_it_is_for() -> None:
    """Each field has a description: error messages are made of it."""
    assert [name for name, field in FIELDS.items() if not field.description] == []
