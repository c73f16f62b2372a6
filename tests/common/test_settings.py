from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devtools.console.settings import ConsoleSettings
from devtools.settings import SETTINGS
from services.auth_api.settings import AuthSettings
from services.common import redis_client
from services.common.settings import Settings, SettingsError, masked
from services.core_api.settings import CoreSettings
from services.psp_connector.settings import ConnectorSettings
from tests.cluster import certificate

GOOD = {
    "HTTP_PORT": "8002", "REDIS_URL": "redis://127.0.0.1:8005/0", "JWT_SECRET": "s" * 32,
    "PSP_URL": "http://127.0.0.1",
}  # fmt: skip


def faults(**changes: str) -> list[str]:
    """The faults of the services' settings, each once."""
    found: dict[str, None] = {}
    for settings in (CoreSettings, ConnectorSettings, AuthSettings):
        try:
            settings.read(GOOD | changes)
        except SettingsError as error:
            found |= dict.fromkeys(error.faults)
    return list(found)


def printed(settings: type[Settings], environ: dict[str, str]) -> str:
    """What is printed of invalid settings; nothing of valid ones."""
    try:
        settings.read(environ)
    except SettingsError as error:
        return f"{error} {settings.explain({'': environ})}"
    return ""


@pytest.mark.parametrize(
    ("secret", "fault"), [("", "JWT_SECRET (or "), ("hunter2", "JWT_SECRET=<secret>: has")]
)
def test_all_faults_come_in_one_message(secret: str, fault: str) -> None:
    """One message has all faults, each with variable and rule, and shows no secret."""
    wrong = {"HTTP_PORT": "http", "QUEUE_LIMIT": "0", "REDIS_URL": "localhost", "LOG_LEVEL": "loud"}
    messages = faults(**wrong, JWT_SECRET=secret, JWT_SECRET_PREVIOUS="hunter2")
    starts = ["HTTP_PORT='http'", "QUEUE_LIMIT='0'", "REDIS_URL=<secret>", "LOG_LEVEL=", fault]
    for start in (*starts, "JWT_SECRET_PREVIOUS=<secret>"):
        assert sum(message.startswith(start) for message in messages) == 1, messages
    assert (len(messages), "hunter2" in str(messages)) == (6, False)


URLS = ["OTEL_EXPORTER_OTLP_ENDPOINT", "PSP_URL"]
WRONG_URLS = [
    *("http://a:99999", "http://a:0", "http://a:b", "http://[::1", "http://me:hunter2@a"),
    *("http://a?x=1", "http://a\r", "http://a/\t", "http://a b"),
]
# With a key that no header can carry, each call would fail as if the PSP were down.
WRONG_KEYS = ["sk_test_hunter2\n# of the team", "sk test", "sk_test_\xe9", "\udcff"]
UNREADABLE = ["/nowhere/ca.pem", "/.", "/" + "x" * 256]
# redis-py would reject these at the first command only.
WRONG_ADDRESSES = {
    "localhost:6379": "like redis://host:6379/0",
    "redis://": "like redis://host:6379/0",
    "redis://[::1": "like redis://host:6379/0",
    "REDIS://host": "like redis://host:6379/0",
    "redis://a..b": "like redis://host:6379/0",
    "redis://host/first": "like redis://host:6379/0",
    "redis://host:99999/0": "like redis://host:6379/0",
    "redis://host/0?db=-1": "db must match",
    "redis://host/0?decode_responses=1": "the options after ? are",
    "redis://host/0?db=1&db=2": "each once",
    "redis://host/0?client_name=two%20words": "client_name must match",
    "redis://host/0?ssl_ca_certs=/etc/hosts": "for rediss:// only",
    **{
        f"rediss://host/0?ssl_ca_certs={path}": (
            "ssl_ca_certs is the absolute path of a file that can be read: "
        )
        for path in UNREADABLE
    },
    "rediss://host/0?ssl_ca_certs=README.md": "ssl_ca_certs must match",
    f"rediss://host/0?ssl_ca_certs={__file__}": "ssl_ca_certs has no certificate in PEM format",
    f"rediss://host/0?ssl_keyfile={__file__}": "ssl_keyfile belongs to an ssl_certfile",
    f"rediss://host/0?ssl_certfile={__file__}": "a certificate and its private key in PEM format",
}
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
WRONG_HEADERS = [
    *("Authorization: Bearer hunter2", "api-key hunter2", "api-key=ab,hunter2", "a b=hunter2"),
    *("x=hunter2%zz", "x=hunter2%0d%0ab", "x=hunter2\n", "x=hunter2\u00e4", "x=1,", "=hunter2"),
]
# Used nowhere; made by `openssl pkcs8 -topk8`.
LOCKED_KEY = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAh2wKkgJU4vuwICA+gw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEHnU5eRUi3gz7bLraKIcwg8EgZC3
32OhzqvArq6/+shNVcd5eNjSvuFj/j075kf3U0yVfhu5KZSN1/WIidC2f9yRbbi/
tjeYBHeZApYwK8AvXChQxXrvFiZzbexyldL5MmBKrOuK+vQ0ra4kZLvoFuPbVYah
ZxgU5jwcVe0wsJyJrNoDJXGfRZTtmR3y4I6dFF6+MkELJrIzmA1c3zi3gYepnZo=
-----END ENCRYPTED PRIVATE KEY-----
"""
PEM = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"HTTP_PORT": ""}, "HTTP_PORT is not set: the port to listen on"),
        ({"ALLOWED_HOSTS": "a.example\nb.example"}, "': must be host names"),
        ({"JWT_SECRET": ""}, "JWT_SECRET (or JWT_SECRET_FILE) is not set: make one"),
        ({"JWT_SECRET": "", "JWT_SECRET_FILE": "/nowhere"}, "the file cannot be read: No such"),
        ({"JWT_SECRET": "", "JWT_SECRET_FILE": "hunter2"}, "=<secret>, not an absolute path"),
        ({"JWT_SECRET": "", "JWT_SECRET_FILE": "/dev/null"}, "read: not a regular file"),
        ({"JWT_SECRET": "\udcff" * 32}, "JWT_SECRET=<secret>: is not UTF-8 text"),
        ({"JWT_SECRET": "hunter2"}, "secrets.token_hex"),
        # PyJWT refuses to sign with these, so each login would be a 500.
        ({"JWT_SECRET": PEM}, "PEM or SSH"),
        ({"JWT_SECRET_PREVIOUS": "ssh-rsa " + "hunter2" * 9}, "PEM or SSH"),
        *[({"PSP_API_KEY": key}, "PSP_API_KEY=<secret>: ") for key in WRONG_KEYS],
        *[
            ({name: url}, f"{name}=<secret>: must be an http")
            for name in URLS
            for url in WRONG_URLS
        ],
        *[({"USERS_FILE": path}, "': must be a file that can be read: ") for path in UNREADABLE],
        ({"REDIS_URL": "redi://me:hunter2@host/0"}, "REDIS_URL=<secret>: must be like redis"),
        *[({"REDIS_URL": url}, rule) for url, rule in WRONG_ADDRESSES.items()],
        # Caddy's exporter would write them to its log.
        *[({HEADERS: text}, f"{HEADERS}=<secret>: must be name=value") for text in WRONG_HEADERS],
    ],
)
def test_a_fault_names_the_rule_and_shows_no_secret(changes: dict[str, str], message: str) -> None:
    """A wrong, missing or unreadable value is one fault with the rule, at the start."""
    [fault] = faults(**changes)
    assert message in fault
    assert "hunter2" not in fault


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    """Surrounding white space is ignored, an empty file is unset, and the same rules apply."""
    file, empty = tmp_path / "secret", tmp_path / "empty"
    file.write_text("f" * 40 + "\n")
    empty.touch()
    files = {"JWT_SECRET_FILE": str(file), "JWT_SECRET_PREVIOUS_FILE": str(empty)}
    settings = CoreSettings.read(GOOD | {"JWT_SECRET": ""} | files)
    assert settings.jwt_secret_previous is None
    assert settings.jwt_secret is not None
    assert settings.jwt_secret.get_secret_value() == "f" * 40
    for content, rule in ((b"hunter2\xff", "not UTF-8 text"), (b"hunter2\n# of the team", "ASCII")):
        file.write_bytes(content)
        [fault] = faults(PSP_API_KEY_FILE=str(file))
        assert (rule in fault, "hunter2" in fault) == (True, False)


def test_secrets_are_masked() -> None:
    """Printed settings show a secret as <secret>."""
    text = repr(CoreSettings.read(GOOD | {HEADERS: "api-key=hunter2"}))
    assert "s" * 32 not in text
    assert "hunter2" not in text
    assert "<secret>" in text


def test_settings_are_listed_with_value_and_origin() -> None:
    """The first origin that has a variable wins; one that is set nowhere is a default."""
    origins = {"environment": {"WORKERS": "3"}, ".env": {"WORKERS": "4", "QUEUE_LIMIT": "5"}}
    assert {
        ("WORKERS", "3", "environment"),
        ("QUEUE_LIMIT", "5", ".env"),
        ("LOG_LEVEL", "info", "default"),
        ("REDIS_URL", "", "not set"),
    } <= set(CoreSettings.explain(origins))


def test_the_list_of_settings_has_no_secret() -> None:
    """Neither a secret, nor a password in an address, nor a secret file's content is listed."""
    values = {
        "JWT_SECRET_FILE": "/run/secret",
        "JWT_SECRET_PREVIOUS": "hunter2" * 5,
        "REDIS_URL": "rediss://me:hunter2@host/0?password=hunter2&db=1",
        HEADERS: "api-key=hunter2",
    }
    explained = CoreSettings.explain({".env": values})
    assert "hunter2" not in repr(explained)
    assert {
        ("JWT_SECRET", "<secret>", ".env (JWT_SECRET_FILE)"),
        ("REDIS_URL", "rediss://<secret>@host/0?<secret>", ".env"),
    } <= set(explained)


@pytest.mark.parametrize("mark", ["@", "@a@", "/a@", "?@", "&", "#", ";", ":", "%40"])
def test_no_part_of_a_password_is_shown(mark: str) -> None:
    """All of a password is masked, whatever is in it; the next address of a list is shown."""
    password = f"hunter{mark}two"
    url = f"redis://me:{password}@one/0?password={password}"
    text = masked(f"{url},{url.replace('one', 'other')}")
    assert "hunter" not in text
    assert "two" not in text
    assert ",redis://<secret>@other/0" in masked(f"redis://me:{password}@one,redis://:x@other/0")


MANGLED = """hunter2 default:hunter2@h:6379 :hunter2@h redis:/:hunter2@h rediss//:hunter2@h
redis://h/0?passwd=hunter2 redis://h/hunter2 redis://:hunter2 h:6380,password=hunter2,ssl=True
u:hunter2@h https:/u:hunter2@h https://h/?key=hunter2 https://u:hunter2@h http://h#hunter2"""
_TEXT = st.text("redis:/@?=&,#.%-[ 0", max_size=12)


@given(
    st.sampled_from(MANGLED.split())
    # Not the path of a file.
    | st.tuples(_TEXT.filter(lambda text: not text.startswith("/")), _TEXT).map("hunter2".join)
)
def test_an_invalid_value_shows_no_password(value: str) -> None:
    """No message about an address, a secret or the path of its file has a password."""
    good = GOOD | {"PSP_URL": "http://h", "PLATFORM_PORT": "8000", "PLATFORM_STATE": "/"}
    classes: list[type[Settings]] = [*SETTINGS.values(), ConsoleSettings]
    tested: set[str] = set()
    for settings in classes:
        names = set(settings.variables()) - tested
        tested |= names
        secret = {
            one for name in names for one in (name, f"{name}_FILE") if f"{name}_FILE" in names
        }
        for name in secret.union(
            one for one in names if one.endswith(("_URL", "_ENDPOINT", "_HEADERS"))
        ):
            environ = good | {name.removesuffix("_FILE"): "", name: value}
            assert "hunter2" not in printed(settings, environ)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:8005/0",
        "redis://host",
        "redis://host/",
        "rediss://user:p%40ss@host:6380/3?ssl_ca_certs={root}",
        "rediss://host?ssl_ca_certs={root}&ssl_certfile={path}&ssl_keyfile={key}",
        "redis://host/0?db=2&client_name=core-api",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_every_kind_of_redis_address_is_accepted(url: str, tmp_path: Path) -> None:
    """REDIS_URL may have TLS, a password, a private CA, a client certificate or a Unix socket."""
    if "{root}" in url:
        url = url.format_map(vars(certificate(tmp_path)))
    assert url == CoreSettings.read(GOOD | {"REDIS_URL": url}).redis_url


def test_a_clients_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    """OpenSSL would ask for it at the terminal, again for each connection."""
    made, locked = certificate(tmp_path), tmp_path / "locked.key"
    locked.write_text(LOCKED_KEY)
    url = f"rediss://host?ssl_certfile={made.path}&ssl_keyfile={locked}"
    with pytest.raises(SettingsError, match="the key of ssl_certfile must have no passphrase"):
        CoreSettings.read(GOOD | {"REDIS_URL": url})


@given(
    st.sampled_from(["redis", "rediss", "unix"]),
    st.text("ab019:/@[]%.-_#", max_size=24) | st.text(max_size=12),
)
def test_redis_py_accepts_every_valid_address(scheme: str, rest: str) -> None:
    """redis-py connects to every address without options that passes validation."""
    try:
        url = CoreSettings.read(GOOD | {"REDIS_URL": f"{scheme}://{rest}"}).redis_url
    except SettingsError:
        return
    assert redis_client.connect(url, timeout_seconds=1).connection_pool.make_connection()
