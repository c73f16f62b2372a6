"""Misspelt settings are found; variables of other programs are not."""

from __future__ import annotations

import pytest

from devtools import names

SLIPS = {
    "PSP_TIMEOUT_SECOND": "PSP_TIMEOUT_SECONDS",
    "PSP_TIMEOUT": "PSP_TIMEOUT_SECONDS",
    "PSP_KEY": "PSP_API_KEY",
    "PSP_APIKEY": "PSP_API_KEY",
    "PSP_URI": "PSP_URL",
    "PSP_MAX_ATTEMPTS": "PSP_ATTEMPTS_MAX",
    "PSP_ATTEMPTS": "PSP_ATTEMPTS_MAX",
    "PSP_BACKOFF": "PSP_BACKOFF_SECONDS",
    "REDIS_URI": "REDIS_URL",
    "REDISURL": "REDIS_URL",
    "JWT_SECERT": "JWT_SECRET",
    "JWT_SECRETS": "JWT_SECRET",
    "JWT_SECRET_FILES": "JWT_SECRET_FILE",
    "LOG_LEVL": "LOG_LEVEL",
    "LOG_FROMAT": "LOG_FORMAT",
    "WORKER": "WORKERS",
    "CONCURENCY": "CONCURRENCY",
    "QUEUE_LIMITS": "QUEUE_LIMIT",
    "USER_FILE": "USERS_FILE",
    "DEADLETTERS_DAYS": "DEADLETTER_DAYS",
    "PLATFROM_PORT": "PLATFORM_PORT",
    "PLATFORM_PORTS": "PLATFORM_PORT",
    "platform_port": "PLATFORM_PORT",
}

# The closest of some 300 that shells, desktops, editors, CI systems, hosters and Nix set.
COMMON = [
    *(
        "APP_URL",
        "CACHE_URL",
        "HTTP_ACCEPT",
        "HTTP_PROXY",
        "JENKINS_URL",
        "JWT_ISSUER",
        "LD_PRELOAD",
    ),
    *(
        "LOG_COLOR",
        "LOG_FILE",
        "MAIL_URL",
        "MERCHANT_ID",
        "OPENAI_API_KEY",
        "PLATFORM",
        "PLATFORM_BRANCH",
    ),
    *(
        "PLATFORM_PROJECT",
        "PORT",
        "QUEUE_NAME",
        "REDIS_DB",
        "REDIS_PORT",
        "REDIS_TLS_URL",
        "SECRET_KEY",
    ),
    *(
        "STRIPE_API_KEY",
        "TEST_URL",
        "USERPROFILE",
        "WEB_CONCURRENCY",
        "WORKER_CLASS",
        "https_proxy",
    ),
]


@pytest.mark.parametrize(("name", "meant"), SLIPS.items())
def test_a_misspelt_setting_in_dotenv_is_named_with_the_right_one(name: str, meant: str) -> None:
    """Letters lost, doubled or exchanged, another case, a shorter name for the same."""
    expected = [f"{name} is not a setting; did you mean {meant}?"]
    assert names.typos([name], of_envfile=True) == expected


def test_the_shell_has_no_false_alarm() -> None:
    """Neither on our own variables nor on those of other programs."""
    assert names.typos([*COMMON, *names.known()]) == []


@pytest.mark.parametrize(
    "name", ["HTTPS_PROXY", "OPENAI_API_KEY", "PYTHONWARNINGS", "DATABASE_URL"]
)
def test_another_programs_variable_may_be_in_dotenv(name: str) -> None:
    """It stops no start."""
    assert names.typos([name], of_envfile=True) == []
