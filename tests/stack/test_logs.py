"""The logs of a running stack: all of a payment, for people and programs, and no secrets."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from devtools import loglines
from services.auth_api.passwords import hash_password
from tests import support
from tests.stack.stack import Stack, processes_of, request_id, running

PAYING = {"router", "core-api", "psp-connector", "psp-sandbox"}


def logs(stack: Stack, *args: str) -> list[str]:
    """The output of `logs` for this stack."""
    command = [sys.executable, "-m", "devtools.logs", *args]
    return support.call(command, stack.environ).stdout.splitlines()


def test_a_payment_is_logged_by_every_process(stack: Stack) -> None:
    """Each line has the client's request id, from the router to the PSP and back."""
    own_id = request_id()
    headers = stack.bearer() | {"X-Request-Id": own_id}
    body = {"amount": 1250, "currency": "USD", "payment_method": "pm_sandbox_flaky"}
    paid = stack.http.post("/transactions", json=body, headers=headers).json()
    stack.ended(paid["id"])

    def all_attempts() -> list[str] | None:
        lines = logs(stack, "--transaction", paid["id"])
        return lines if sum("attempt=" in line for line in lines) == 3 else None

    texts = support.wait_until(all_attempts, what="three attempts in the logs", seconds_max=30)
    lines = [line for text in texts if (line := loglines.parse(text))]
    assert len(lines) == len(texts)
    assert {line.fields["service"] for line in lines} == PAYING
    assert {line.fields["request_id"] for line in lines} == {own_id}
    assert sorted(lines, key=lambda line: line.at) == lines


SECRETS = {
    "password": "marker-password-4711",
    "wrong password": "marker-wrong-password-4711",
    "JWT_SECRET": "marker-jwt-secret-4711-of-more-than-32-bytes",
    "JWT_SECRET_PREVIOUS": "marker-jwt-previous-4711-of-more-than-32-bytes",
    "PSP_API_KEY": "sk_test_marker4711",
    "Redis' password": "marker-redis-password-4711",
    "an invalid token": "marker-token-4711",
}


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A users file with the test's password."""
    file = tmp_path / "users.json"
    merchant = {"id": 1, "username": "alice", "enabled": True}
    merchant["password_hash"] = hash_password(SECRETS["password"])
    file.write_text(json.dumps([merchant]))
    return file


def test_no_secret_is_logged_or_shown(tmp_path: Path, users: Path) -> None:
    """At level debug and in failures, no log file and no process title has a secret."""
    port = support.free_ports(1)
    password = SECRETS["Redis' password"]
    more: dict[str, Any] = {name: SECRETS[name] for name in SECRETS if name.isupper()}
    more |= {"LOG_LEVEL": "debug", "USERS_FILE": str(users)}
    more |= {"REDIS_URL": f"redis://:{password}@127.0.0.1:{port}/0"}
    options = "--requirepass", password
    with (
        support.redis_server(tmp_path / "redis", port, *options) as own_redis,
        running(**more) as stack,
    ):
        stack.password = SECRETS["password"]
        tokens = pay_in_every_way(stack)
        titles = titles_of(stack)
        own_redis.kill()
        own_redis.wait(10)
        fail_in_every_way(stack, tokens[0])
        titles += titles_of(stack)
        logged = {path.name: path.read_text() for path in (stack.state / "logs").iterdir()}
        logged |= {"output": stack.output(), "titles": titles}
    # A control: what is no secret is there.
    assert "transaction_id" in logged["core-api.log"]
    assert "services.core_api" in logged["titles"]
    sought = SECRETS | {f"token {number}": token for number, token in enumerate(tokens)}
    assert [
        (name, where)
        for name, secret in sought.items()
        for where, text in logged.items()
        if secret in text
    ] == []


def pay_in_every_way(stack: Stack) -> list[str]:
    """Logs in and pays with valid and invalid requests; returns the tokens."""
    post = stack.http.post
    tokens = [stack.token() for _ in range(2)]
    bearer = {"Authorization": f"Bearer {tokens[0]}"}
    body = {"amount": 1250, "currency": "USD"}
    paid = post("/transactions", json=body, headers=bearer)
    assert post("/transactions", json=body | {"token": tokens[1]}).status_code == 202
    post("/transactions", json=body | {"payment_method": "pm_sandbox_flaky"}, headers=bearer)
    stack.ended(paid.json()["id"])
    login = {"username": "alice", "password": SECRETS["password"]}
    post("/auth/token", json=login | {"password": SECRETS["wrong password"]})
    post("/auth/token", json={"username": SECRETS["password"], "password": [login]})
    post("/auth/token", content=json.dumps(login)[:-1])
    post(f"/auth/token?password={SECRETS['password']}&token={tokens[0]}", json=login)
    bad = SECRETS["an invalid token"]
    post("/transactions", json=body, headers={"Authorization": f"Bearer {bad}"})
    post("/transactions", json=body | {"token": bad, bad: bad})
    post("/transactions", content=f'{{"token": "{tokens[0]}", ', headers=bearer)
    stack.http.get(f"/nowhere?token={tokens[0]}", headers=bearer)
    return tokens


def fail_in_every_way(stack: Stack, token: str) -> None:
    """Sends requests while Redis is down, until the connector has logged it."""
    for _ in range(2):
        body = {"amount": 1250, "currency": "USD", "token": token}
        assert stack.http.post("/transactions", json=body).status_code == 503
    stack.http.get("/transactions/health")
    stack.wait_for_log("psp-connector", "Redis unavailable")


def titles_of(stack: Stack) -> str:
    """The process titles, which every user of the machine can read."""
    return "\n".join(" ".join(process.cmdline()) for process in processes_of(stack.state))
