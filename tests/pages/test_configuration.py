"""Files derived from the settings classes and service.toml are up to date."""

from devtools import new
from devtools.checkout import SET_BY_THE_STACK
from devtools.new import derived
from devtools.settings import SETTINGS
from services.psp_connector.backoff import Backoff
from tests.support import ROOT

FIELDS = {
    name.upper(): field
    for settings in SETTINGS.values()
    for name, field in settings.model_fields.items()
    if name.upper() not in SET_BY_THE_STACK
}


def test_derived_files_are_up_to_date() -> None:
    """`new sync` would change neither a stack, nor the page, nor the example."""
    found = {name: (ROOT / name).read_text() for name in new.FILES}
    assert found == {name: make(found[name]) for name, make in derived.MAKERS.items()}


def test_the_page_says_when_a_payment_is_given_up() -> None:
    """The longest duration of all attempts and delays follows from the defaults."""
    names = ("attempts_max", "backoff_seconds", "backoff_seconds_max", "timeout_seconds")
    attempts, first, longest, call = (FIELDS[f"PSP_{name.upper()}"].default for name in names)
    backoff = Backoff(first, longest, uniform=lambda _low, high: high)
    waits_seconds = sum(backoff.delay_seconds(attempt) for attempt in range(1, attempts))
    page = " ".join((ROOT / new.PAGE).read_text().split())
    assert f"waits at most {waits_seconds:g} s" in page
    assert f"plus {attempts} calls" in page
    assert f"failed within {waits_seconds + (attempts + 2) * call:g} s" in page


def test_every_setting_says_what_it_is_for() -> None:
    """Each field has a description, which error messages use."""
    assert [name for name, field in FIELDS.items() if not field.description] == []
