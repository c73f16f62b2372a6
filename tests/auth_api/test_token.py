import io
import os
import shutil
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import ANY, Mock

import argon2
import pytest

from services.auth_api.directory import UserDirectory
from services.auth_api.limits import LoginLimits
from services.auth_api.passwords import Passwords, hash_password
from services.auth_api.resources import TokenResource
from services.auth_api.settings import SHIPPED_USERS, AuthSettings
from services.auth_api.userfile import load
from services.auth_api.users import main, read_password
from services.common.tokens import Tokens
from services.common.web import make_app
from tests.auth_api.login import ENVIRON, Client, api_of, claims, log_in
from tests.support import call


@pytest.fixture(scope="module")
def api() -> Client:
    return api_of()


@pytest.mark.parametrize(
    ("name", "sub", "enabled"), [("alice", "1", True), ("charlie", "3", False)]
)
def test_a_token_carries_the_claims_of_the_contract(
    api: Client, name: str, sub: str, *, enabled: bool
) -> None:
    """The Core API refuses a disabled user; it gets a token, too."""
    result = log_in(api, name)
    assert result.status_code == 200
    assert result.json == {"token": ANY, "token_type": "Bearer", "expires_in": 30}
    found = claims(result)
    iat, jti = found.pop("iat"), found.pop("jti")
    assert found == {
        "iss": "auth-api", "aud": "core-api", "sub": sub, "username": name, "enabled": enabled,
        "exp": iat + 30,
    }  # fmt: skip
    assert jti != claims(log_in(api, name))["jti"]
    assert result.headers["cache-control"] == "no-store"


def test_wrong_password_and_unknown_user_get_the_same_response(api: Client) -> None:
    """The response does not reveal which users exist."""
    wrong, unknown = log_in(api, "becky", "guess"), log_in(api, "nobody", "guess")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.headers.keys() == unknown.headers.keys() >= {"www-authenticate"}
    assert wrong.json | {"request_id": ANY} == unknown.json


def test_an_unknown_user_costs_a_whole_hash_too() -> None:
    """An unknown user's password is hashed, too, so that timing does not reveal who exists."""
    hashed: list[str] = []

    def check(stored_hash: str, _password: str) -> bool:
        # The same parameters, to the letter of the PHC string, are the same work.
        hashed.append(stored_hash.rsplit("$", 2)[0])
        raise argon2.exceptions.VerifyMismatchError

    settings = AuthSettings.read(ENVIRON)
    directory, passwords = UserDirectory(settings.users_file), Passwords(check=check)
    token = TokenResource(directory, passwords, LoginLimits(), Tokens(settings), [])
    api = Client(make_app({"/token": token}, settings, checks={}))
    assert [log_in(api, name, "guess").status_code for name in ("becky", "nobody")] == [401, 401]
    assert hashed == [hash_password("password").rsplit("$", 2)[0]] * 2


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1"], ids=["the merchant's", "another"])
@pytest.mark.parametrize("names", [["alice"] * 5, [f"user{n}" for n in range(51)]])
def test_a_remembered_login_is_not_revealed_to_a_guesser(address: str, names: list[str]) -> None:
    """Where wrong guesses get 429, the right password does, too; elsewhere the merchant logs in."""
    api = api_of()
    assert log_in(api, "alice").status_code == 200
    for number, name in enumerate(["alice", *names]):
        log_in(api, name, f"guess {number}", address)
    guesses = ["password", "wrong"]
    found = [log_in(api, "alice", guess, address).status_code for guess in guesses]
    assert found == [429, 429]
    assert log_in(api, "alice", address="10.0.0.2").status_code == 200


def test_each_wrong_field_is_named_and_none_is_echoed(api: Client) -> None:
    """422 points at every wrong field and does not echo input."""
    body = {"username": "a" * 65, "passwort": "hunter2"}
    result = api.simulate_post("/token", json=body)
    assert [e["pointer"] for e in result.json["errors"]] == ["/username", "/password", ""]
    assert "hunter2" not in result.text
    assert "passwort" not in result.text


def test_no_id_is_reused(file: Path) -> None:
    """An id belongs to its merchant's transactions, points and Idempotency-Keys for ever."""
    shipped, ids = file.read_bytes(), set()
    for name in ("dora", "eve"):
        file.write_bytes(shipped)  # the last entry is deleted by hand
        assert main(["add", name], file, io.StringIO(), lambda: "secret") == 0
        ids.add(load(file)[-1].id)
    assert len(ids) == 2
    assert ids.isdisjoint(range(1, 1000))


def test_a_change_while_a_password_is_typed_is_kept(file: Path) -> None:
    """`add` waits for a password; a user disabled meanwhile stays disabled."""

    def typed() -> str:
        assert main(["disable", "becky"], file, io.StringIO(), lambda: "") == 0
        return "secret of dora"

    assert main(["add", "dora"], file, io.StringIO(), typed) == 0
    assert [user.username for user in load(file) if user.enabled] == ["alice", "dora"]


def test_concurrent_changes_are_all_kept(file: Path) -> None:
    """Of users added at the same time, each is in the file."""
    names = [f"user{number}" for number in range(6)]
    with ThreadPoolExecutor(len(names)) as pool:
        codes = list(pool.map(lambda n: main(["add", n], file, io.StringIO(), lambda: "pw"), names))
    assert codes == [0] * len(names)
    assert {*names} <= {user.username for user in load(file)}


@pytest.mark.parametrize(
    ("args", "password", "message"),
    [
        (["add", "alice"], "secret", "user alice exists already"),
        (["disable", "nobody"], "", "no user nobody"),
        (["add", "x" * 65], "secret", "users: a name has 1 to 64 printable characters\n"),
        (["add", ""], "secret", "users: a name has 1 to 64 printable characters\n"),
        (["add", "a\x1b[31m"], "secret", "users: a name has 1 to 64 printable characters\n"),
        (["add", "dora"], "", "users: a password has 1 to "),
    ],
)
def test_the_users_command_refuses(
    file: Path, capsys: pytest.CaptureFixture[str], args: list[str], password: str, message: str
) -> None:
    """An invalid change is refused with the reason, and the file is unchanged."""
    assert main(args, file, io.StringIO(), lambda: password) == 1
    assert message in capsys.readouterr().err
    assert file.read_bytes() == SHIPPED_USERS.read_bytes()


def test_the_users_command_lists_users_file(file: Path) -> None:
    """`list` prints each user of USERS_FILE with its state; `enable` takes back a `disable`."""
    for words in (["disable", "alice"], ["enable", "charlie"]):
        assert main(words, file, io.StringIO(), lambda: "") == 0
    command = [sys.executable, "-m", "services.auth_api.users", "list"]
    listed = call(command, os.environ | {"USERS_FILE": str(file)}).stdout
    assert " ".join(listed.split()) == "1 disabled alice 2 enabled becky 3 enabled charlie"


@pytest.mark.parametrize("line", [b"%s\r\n", b"\xef\xbb\xbf%s\r\nmore", b"%s\n", b"%s"])
def test_a_password_may_come_from_a_windows_file(file: Path, line: bytes) -> None:
    """CR LF and a byte order mark are ignored; another encoding is refused."""
    stdin = io.TextIOWrapper(io.BytesIO(line % "geheim é".encode()))
    assert main(["add", "dora"], file, io.StringIO(), lambda: read_password(stdin)) == 0
    api = api_of(file)
    assert log_in(api, "dora", "geheim é").status_code == 200
    utf_16 = io.TextIOWrapper(io.BytesIO("geheim".encode("utf-16")))
    assert main(["add", "eve"], file, io.StringIO(), lambda: read_password(utf_16)) == 1


def test_no_password_at_the_prompt_is_a_fault(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-D at the prompt ends the command with a sentence."""
    monkeypatch.setattr("getpass.getpass", Mock(side_effect=EOFError))
    terminal = Mock(isatty=lambda: True)
    assert main(["add", "dora"], file, io.StringIO(), lambda: read_password(terminal)) == 1
    assert capsys.readouterr().err == "users: no password given\n"


@pytest.mark.parametrize(("added", "typed"), [("caf\u00e9", "cafe\u0301"), ("①ﬁ", "1fi")])
def test_a_password_is_the_same_on_every_keyboard(file: Path, added: str, typed: str) -> None:
    """Composed or decomposed, a password is compared in NFKC (NIST SP 800-63B, 5.1.1.2)."""
    main(["add", "dora"], file, io.StringIO(), lambda: added)
    api = api_of(file)
    statuses = [log_in(api, "dora", each).status_code for each in (typed, added, "other")]
    assert statuses == [200, 200, 401]


def test_a_change_keeps_link_and_mode_of_the_users_file(tmp_path: Path) -> None:
    """A change keeps a symbolic link and the mode of its target, and leaves no temporary file."""
    file, link = tmp_path / "elsewhere" / "users.json", tmp_path / "users.json"
    file.parent.mkdir()
    shutil.copy(SHIPPED_USERS, file)
    file.chmod(0o640)
    link.symlink_to("elsewhere/users.json")
    assert main(["disable", "alice"], link, io.StringIO(), lambda: "") == 0
    assert (link.is_symlink(), stat.S_IMODE(file.stat().st_mode)) == (True, 0o640)
    assert [user.enabled for user in load(file)] == [False, True, False]
    assert main(["add", "dora"], link, io.StringIO(), lambda: "\ud800") == 1
    assert {*tmp_path.rglob("*")} == {file.parent, file, link}
