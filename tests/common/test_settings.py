from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common import redis_client
from services.common.settings import EXIT_BAD_SETTINGS, SettingsError, read_or_exit
from services.core_api.settings import CoreSettings
from services.psp_connector.settings import ConnectorSettings

GOOD = {"HTTP_PORT": "8002", "REDIS_URL": "redis://127.0.0.1:8005/0", "JWT_SECRET": "s" * 32}


def faults(**changes: str) -> list[str]:
    with pytest.raises(SettingsError) as error:
        CoreSettings.read(GOOD | changes)
    return error.value.faults


def test_reads_what_is_given_and_fills_in_the_rest() -> None:
    """Settings come from the mapping alone; defaults fill what it leaves out or has empty."""
    settings = CoreSettings.read(GOOD | {"QUEUE_LIMIT": ""})
    assert (
        settings.http_port, settings.http_host, settings.workers, settings.queue_limit,
    ) == (8002, "127.0.0.1", 2, 100_000)  # fmt: skip


@pytest.mark.parametrize(
    "key", ["sk_test_hunter2\n# of the team", "sk test", "sk_test_\xe9", "\udcff"]
)
def test_a_key_that_no_header_can_carry_is_refused(key: str, tmp_path: Path) -> None:
    """Also from a file with a second line: each call would fail as if the PSP were down."""
    file = tmp_path / "key"
    file.write_bytes(key.encode(errors="surrogateescape"))
    for variables in ({"PSP_API_KEY": key}, {"PSP_API_KEY_FILE": str(file)}):
        with pytest.raises(SettingsError) as error:
            ConnectorSettings.read(GOOD | {"PSP_URL": "http://127.0.0.1"} | variables)
        assert "PSP_API_KEY" in str(error.value)
        assert "hunter2" not in str(error.value)


def test_all_faults_come_in_one_message() -> None:
    """One message has all faults, each with name and rule."""
    messages = faults(
        HTTP_PORT="http", QUEUE_LIMIT="0", REDIS_URL="localhost:6379", LOG_LEVEL="loud"
    )
    for variable in ("HTTP_PORT='http'", "QUEUE_LIMIT='0'", "REDIS_URL='localhost", "LOG_LEVEL="):
        assert sum(fault.startswith(variable) for fault in messages) == 1, messages
    assert len(messages) == 4


@pytest.mark.parametrize("address", ["http://a:99999", "http://a:0", "http://a:b", "http://[::1"])
def test_an_address_that_cannot_be_is_refused(address: str) -> None:
    """That of the traces, and that of the PSP: else it would fail only when it is used."""
    with pytest.raises(SettingsError) as error:
        ConnectorSettings.read(GOOD | {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "PSP_URL": address})
    assert [fault.partition("=")[0] for fault in error.value.faults] == [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "PSP_URL",
    ]


def test_a_missing_variable_is_named_with_its_meaning() -> None:
    """A variable without a default says what it is for, and a secret how to make one."""
    assert faults(HTTP_PORT="") == ["HTTP_PORT is not set: the port to listen on"]
    assert "JWT_SECRET (or JWT_SECRET_FILE) is not set: make one" in faults(JWT_SECRET="")[0]


def test_a_short_secret_is_refused_without_showing_it() -> None:
    """Fewer than 32 bytes stop the service, with a sentence on how to make a good one."""
    messages = faults(JWT_SECRET="hunter2")
    assert "secrets.token_hex" in messages[0]
    assert "hunter2" not in messages[0]


@pytest.mark.parametrize("name", ["JWT_SECRET", "JWT_SECRET_PREVIOUS"])
@pytest.mark.parametrize(
    "key", ["-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", "ssh-rsa {}"]
)
def test_an_asymmetric_key_as_secret_is_refused(name: str, key: str) -> None:
    """PyJWT refuses to sign with one: each login would be a 500."""
    [message] = faults(**{name: key.format("hunter2" * 9)})
    assert "PEM or SSH" in message
    assert "hunter2" not in message


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    """JWT_SECRET_FILE names a file that holds the secret; white space around it is not part."""
    file = tmp_path / "secret"
    file.write_text("f" * 40 + "\n")
    settings = CoreSettings.read(GOOD | {"JWT_SECRET": "", "JWT_SECRET_FILE": str(file)})
    assert settings.jwt_secret is not None
    assert settings.jwt_secret.get_secret_value() == "f" * 40


def test_a_secret_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The fault is the file, told once."""
    messages = faults(JWT_SECRET="", JWT_SECRET_FILE=str(tmp_path / "none"))
    assert any("the file cannot be read: No such file" in fault for fault in messages)


def test_secrets_do_not_show() -> None:
    """Settings may be printed: a secret shows as <secret>."""
    text = repr(CoreSettings.read(GOOD))
    assert "s" * 32 not in text
    assert "<secret>" in text


def test_read_or_exit_leaves_with_ex_config(capsys: pytest.CaptureFixture[str]) -> None:
    """A service with bad settings ends with 78 before anything listens."""
    with pytest.raises(SystemExit) as left:
        read_or_exit(CoreSettings, {})
    assert left.value.code == EXIT_BAD_SETTINGS
    assert "nothing was started" in capsys.readouterr().err


def test_settings_explain_themselves() -> None:
    """Each has its value and origin: what comes first decides, what is set nowhere is default."""
    origins = {"environment": {"WORKERS": "3"}, ".env": {"WORKERS": "4", "QUEUE_LIMIT": "5"}}
    assert {
        ("WORKERS", "3", "environment"),
        ("QUEUE_LIMIT", "5", ".env"),
        ("LOG_LEVEL", "info", "default"),
        ("REDIS_URL", "", "not set"),
    } <= set(CoreSettings.explain(origins))


def test_no_secret_is_explained() -> None:
    """Neither a secret, nor the password in an address, nor the content of a secret's file."""
    values = {
        "JWT_SECRET_FILE": "/run/secret",
        "JWT_SECRET_PREVIOUS": "hunter2" * 5,
        "REDIS_URL": "rediss://me:hunter2@host/0?password=hunter2&db=1",
    }
    explained = CoreSettings.explain({".env": values})
    assert "hunter2" not in repr(explained)
    assert {
        ("JWT_SECRET", "<secret>", ".env (JWT_SECRET_FILE)"),
        ("REDIS_URL", "rediss://<secret>@host/0?password=<secret>&db=1", ".env"),
    } <= set(explained)


def test_a_fault_does_not_show_the_password_of_an_address() -> None:
    """The error for a wrong REDIS_URL has its value without the password."""
    [message] = faults(REDIS_URL="redi://me:hunter2@host/0")
    assert message.startswith("REDIS_URL='redi://<secret>@host/0': must be like redis://")


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:8005/0",
        "redis://host",
        "redis://host/",
        "rediss://user:p%40ss@host:6380/3?ssl_ca_certs={file}",
        "redis://host/0?db=2&client_name=core-api",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_a_redis_address_of_any_kind_is_taken(url: str, tmp_path: Path) -> None:
    """REDIS_URL may have TLS, a password, an own CA or a Unix socket."""
    (tmp_path / "ca.pem").touch()
    url = url.format(file=tmp_path / "ca.pem")
    assert url == CoreSettings.read(GOOD | {"REDIS_URL": url}).redis_url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("localhost:6379", "like redis://host:6379/0"),
        ("redis://", "like redis://host:6379/0"),
        ("redis://[::1", "like redis://host:6379/0"),
        ("redis://host/first", "like redis://host:6379/0"),
        ("redis://host:99999/0", "like redis://host:6379/0"),
        ("redis://host/0?db=-1", "db must match"),
        ("redis://host/0?decode_responses=1", "the options after ? are"),
        ("redis://host/0?db=1&db=2", "each once"),
        ("redis://host/0?client_name=two%20words", "client_name must match"),
        ("redis://host/0?ssl_ca_certs=/etc/hosts", "for rediss:// only"),
        ("rediss://host/0?ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs is the absolute path"),
        ("rediss://host/0?ssl_ca_certs=README.md", "ssl_ca_certs must match"),
    ],
)
def test_a_wrong_redis_address_stops_the_start(url: str, why: str) -> None:
    """Options that redis-py would reject at the first command are rejected at the start."""
    [message] = faults(REDIS_URL=url)
    assert why in message


@given(
    st.sampled_from(["redis", "rediss", "unix"]),
    st.text("ab019:/@[]%.-_#", max_size=24) | st.text(max_size=12),
)
def test_an_address_that_is_taken_is_one_for_redis_py(scheme: str, rest: str) -> None:
    """Whatever passes without options, redis-py makes a connection of."""
    try:
        url = CoreSettings.read(GOOD | {"REDIS_URL": f"{scheme}://{rest}"}).redis_url
    except SettingsError:
        return
    assert redis_client.connect(url, timeout_seconds=1).connection_pool.make_connection()
