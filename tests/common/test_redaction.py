"""What a remote server sends back of our own secrets is hidden."""

import json
from base64 import b64encode
from urllib.parse import quote

import pytest

from services.common.redaction import redactor
from services.common.settings import Secret
from services.psp_connector.settings import ConnectorSettings

SETTINGS = {
    "HTTP_PORT": "1",
    "PSP_URL": "http://c",
    "REDIS_URL": "redis://user:Redis%20secret@a:6379/0?password=or-that-one",
    "PSP_API_KEY": 'sk_live_"\\/key',
    "OTEL_EXPORTER_OTLP_HEADERS": (
        "Authorization=Bearer%20otlp-key,x=1-another-key-of-a-vendor,"
        "x-password=letters-of-a-password,"
        f"auth={quote('Basic ' + b64encode(b'id:basic-password').decode())}"
    ),
}
SECRETS = (
    "Redis secret",
    "Redis%20secret",
    "or-that-one",
    SETTINGS["PSP_API_KEY"],
    "otlp-key",
    "1-another-key-of-a-vendor",
    "proxy-pass@word",
    "bare-password",
    "basic-password",
    "letters-of-a-password",
    "twice%decoded",
    b64encode(b"user:proxy-pass@word").decode(),
    b64encode(b"user:Redis secret").decode(),
)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> ConnectorSettings:
    monkeypatch.setenv("https_proxy", "http://user:proxy-pass%40word@d:1")
    monkeypatch.setenv("http_proxy", "user:bare-password@d:1")
    monkeypatch.setenv("all_proxy", "http://a:1?password=twice%2525decoded")
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
    both = settings.model_copy(update={"redis_url": "redis://:otlp-key-2@a/0"})
    assert redactor(both)("otlp-key-2 otlp-key") == "<secret> <secret>"


@pytest.mark.parametrize(
    "secret", ["\u0130stanbul-\u0130", "kodiko\u03a3-\u03a3", "stra\u00dfe-key"]
)
def test_letters_of_any_language_are_hidden(settings: ConnectorSettings, secret: str) -> None:
    """Also those whose lower case is longer, or depends on the next letter."""
    key = settings.model_copy(update={"psp_api_key": Secret(secret)})
    for text in (secret, f"{secret}x", f"x {secret}.", json.dumps({"a": secret}), quote(secret)):
        assert "<secret>" in redactor(key)(text), text


def test_names_are_no_secrets(settings: ConnectorSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set's among the headers, a user's without a password: services may be named so.

    Unless they look like a key.
    """
    monkeypatch.setenv("https_proxy", "http://core-api@d:1")
    monkeypatch.setenv("http_proxy", "http://0123456789abcdefghij@d:1")
    headers = "dataset=psp-connector,tenant=Transaction,ip=127.0.0.1,x-honeycomb-team=plain-letters"
    named = settings.model_copy(
        update={"redis_url": "redis://auth-api@a/0", "otel_exporter_otlp_headers": headers}
    )
    text = "psp-connector core-api auth-api transaction_id 127.0.0.1"
    hidden = redactor(named)(f"{text} plain-letters 0123456789abcdefghij")
    assert hidden == f"{text} <secret> <secret>"
