"""Misspelt settings are found; variables of other programs are not."""

import pytest
from pydantic import Field

from devtools import settings
from services.common.settings import Settings

TYPOS = {
    "PSP_TIMEOUT": "PSP_TIMEOUT_SECONDS",
    "PSP_KEY": "PSP_API_KEY",
    "PSP_MAX_ATTEMPTS": "PSP_ATTEMPTS_MAX",
    "REDISURL": "REDIS_URL",
    "JWT_SECRET_FILES": "JWT_SECRET_FILE",
    "LOG_FROMAT": "LOG_FORMAT",
    "DEADLETTERS_DAYS": "DEADLETTER_DAYS",
    "platform_port": "PLATFORM_PORT",
}

# The closest of about 300 that shells, desktops, editors, CI systems, hosters and Nix set.
COMMON = """
    APP_URL CACHE_URL HTTP_ACCEPT HTTP_PROXY JENKINS_URL JWT_ISSUER LD_PRELOAD LOG_COLOR LOG_FILE
    MAIL_URL MERCHANT_ID OPENAI_API_KEY PLATFORM PLATFORM_BRANCH PLATFORM_PROJECT PORT QUEUE_NAME
    REDIS_DB REDIS_PORT REDIS_TLS_URL SECRET_KEY STRIPE_API_KEY TEST_URL USERPROFILE WEB_CONCURRENCY
    WORKER_CLASS https_proxy
"""
FOREIGN = """
    OTEL_EXPORTER_OTLP_HEADERS OTEL_RESOURCE_ATTRIBUTES HTTPS_PROXY OPENAI_API_KEY PYTHONWARNINGS
    DATABASE_URL
"""


@pytest.mark.parametrize(("name", "setting"), TYPOS.items())
def test_a_misspelt_setting_in_dotenv_is_named(name: str, setting: str) -> None:
    """Letters may be lost, doubled or swapped, the case wrong, the name shortened."""
    expected = [f"{name} is not a setting; did you mean {setting}?"]
    assert settings.typos([name], of_envfile=True) == expected


def test_there_is_no_false_alarm() -> None:
    """Neither for our variables, nor other programs', nor in `.env` for OpenTelemetry's."""
    assert settings.typos([*COMMON.split(), *settings.known()]) == []
    assert settings.typos(FOREIGN.split(), of_envfile=True) == []


def test_the_lists_show_each_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also 0 and False, and that a setting must be set; a `|` does not end a cell."""

    class Extra(Settings):
        extra_zero: int = Field(default=0, description="one|two")
        extra_off: bool = Field(default=False, description="off")
        extra_name: str = Field(description="the name")

    monkeypatch.setattr(
        settings, "SETTINGS", {"core-api": settings.SETTINGS["core-api"], "x": Extra}
    )
    table = settings.table()
    assert r"| `EXTRA_ZERO` | x | 0 | one\|two |" in table
    assert "| `EXTRA_OFF` | x | False | off |" in table
    assert "| `EXTRA_NAME` | x | none: it must be set | the name |" in table
