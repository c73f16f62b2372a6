"""What a remote server sends back of our own secrets is hidden."""

import json
from urllib.parse import quote

import pytest

from services.common.redaction import redactor
from services.psp_connector.settings import ConnectorSettings

SETTINGS = {
    "HTTP_PORT": "1",
    "PSP_URL": "http://c",
    "REDIS_URL": "redis://user:Redis%20secret@a:6379/0?password=or-that-one",
    "PSP_API_KEY": 'sk_live_"\\/key',
    "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20otlp-key,x=another-key",
}
SECRETS = (
    "Redis secret",
    "Redis%20secret",
    "or-that-one",
    SETTINGS["PSP_API_KEY"],
    "otlp-key",
    "another-key",
    "proxy-password",
)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> ConnectorSettings:
    monkeypatch.setenv("https_proxy", "http://user:proxy-password@d:1")
    return ConnectorSettings.read(SETTINGS)


@pytest.mark.parametrize("secret", SECRETS)
def test_each_secret_is_hidden(settings: ConnectorSettings, secret: str) -> None:
    """Of settings, addresses, headers and the proxy; as in JSON, in a URL, in another case."""
    redacted = redactor(settings)
    forms = [secret, secret.upper(), json.dumps(secret)[1:-1], quote(secret), quote(secret, "")]
    assert redacted("; ".join(forms)) == "; ".join(["<secret>"] * len(forms))


def test_other_text_stays(settings: ConnectorSettings) -> None:
    """Addresses without their passwords, names, and what is too short to be told from words."""
    text = "user at redis://a:6379/0 and http://c: Bearer sk_live_ otlp"
    assert redactor(settings)(text) == text
    short = ConnectorSettings.read({**SETTINGS, "PSP_API_KEY": "user"})
    assert redactor(short)(text) == text


def test_one_secret_may_begin_with_another(settings: ConnectorSettings) -> None:
    """Nothing is left of the longer one."""
    both = settings.model_copy(update={"redis_url": "redis://:another-key-2@a/0"})
    assert redactor(both)("another-key-2 another-key") == "<secret> <secret>"
