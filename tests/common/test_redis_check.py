import re
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog

from services.common import redis_check, redis_client, store
from services.common.redis_url import RedisSettings
from services.common.settings import SettingsError
from tests.support import free_ports, redis_server


def settings(partitions: int, **more: str) -> RedisSettings:
    url = {"REDIS_URL": "redis://127.0.0.1:1/0"}
    return RedisSettings.read({**url, "PARTITIONS": str(partitions), **more})


def test_the_first_start_decides_the_number_of_partitions(client: Any) -> None:
    """A different number is refused with one message that names both."""
    redis_check.check(client, settings(16))
    redis_check.check(client, settings(16))
    with pytest.raises(SettingsError, match=r"^PARTITIONS=4, but the data .* has 16: set PART"):
        redis_check.at_start(client, settings(4))


def test_a_redis_that_evicts_logs_a_warning(client: Any) -> None:
    """The warning at the start names the eviction policy."""
    client.config_set("maxmemory-policy", "volatile-lru")
    with structlog.testing.capture_logs() as lines:
        redis_check.at_start(client, settings(1))
    client.config_set("maxmemory-policy", "noeviction")
    assert [line["maxmemory_policy"] for line in lines] == ["volatile-lru"]


def test_a_redis_that_would_lose_payments_logs_a_warning(client: Any) -> None:
    """When it is restarted, it drops what its default user may not write."""
    rules = ["-@all", "+@read", "+@write", "+@connection", "+@scripting", "+info", "+acl"]
    try:
        client.execute_command("ACL", "SETUSER", "default", *rules)
        with structlog.testing.capture_logs() as lines:
            redis_check.at_start(client, settings(1))
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+@all")
    assert [line["event"] for line in lines] == ["Redis may lose all payments when it is restarted"]


def test_a_missing_permission_logs_a_warning(client: Any, redis_port: int) -> None:
    """Also where no preflight refuses the start, as in a container."""
    client.execute_command("ACL SETUSER", "some", "reset", "on", "nopass", "~*", "+@all", "-zadd")
    url = f"redis://some:x@127.0.0.1:{redis_port}/0"
    try:
        with (
            structlog.testing.capture_logs() as lines,
            redis_client.connect(url, timeout_seconds=1) as of_user,
        ):
            redis_check.at_start(of_user, settings(1))
    finally:
        client.acl_deluser("some")
    assert [line["event"] for line in lines] == ["Redis refuses the services"]
    assert lines[0]["reason"].endswith("no permission for ZADD")


def refusal(client: Any, port: int, *rules: str, partitions: int = 1) -> str:
    """Why a start with a user of these permissions is refused."""
    client.execute_command("ACL SETUSER", "some", "reset", "on", "nopass", *rules)
    of_user = redis_client.connect(f"redis://some:x@127.0.0.1:{port}/0", timeout_seconds=1)
    try:
        redis_check.before_start(of_user, settings(partitions))
    except redis.ResponseError as error:
        return str(error)
    finally:
        of_user.close()
        client.acl_deluser("some")
    return ""


@pytest.mark.parametrize("command", redis_check.COMMANDS + redis_check.COMMANDS_WITHOUT_KEYS)
def test_a_user_without_a_command_is_refused(client: Any, redis_port: int, command: str) -> None:
    """Otherwise payments would get 503, wait, or never be charged."""
    name = command.replace("|", " ").casefold()
    reason = refusal(client, redis_port, "~*", "+@all", f"-{command}").replace("|", " ").casefold()
    assert re.search(rf"permissions? .*\b{name}\b", reason)


def test_a_redis_without_a_command_is_refused(tmp_path: Path) -> None:
    """As one whose commands were renamed."""
    port = free_ports(1)
    url = f"redis://127.0.0.1:{port}"
    with (
        redis_server(tmp_path, port, "--rename-command", "SCAN", ""),
        redis_client.connect(url, timeout_seconds=1) as connection,
        pytest.raises(redis.ResponseError, match=r"no permission for SCAN$"),
    ):
        redis_check.before_start(connection, settings(1))


@pytest.mark.parametrize(
    ("partitions", "keys", "refused"),
    [
        (1, "~transaction:* ~user:* ~connector:* ~partitions ~psp", "GET deadletters, SET"),
        (1, "%R~* ~partitions", "SET connector:name, SET deadletters, SET psp, SET queue, SET"),
        (16, "~{p?}:* ~partitions ~queue", "GET {p10}:connector:name, SET"),
        (16, "~{p*}:* ~partitions", "GET queue, SET queue"),
        (1, "~queue", "to access one of the keys used as arguments (partitions)"),
    ],
)
def test_a_user_without_some_keys_is_refused(
    client: Any, redis_port: int, partitions: int, keys: str, refused: str
) -> None:
    reason = refusal(client, redis_port, "+@all", *keys.split(), partitions=partitions)
    assert re.search(rf"has no permissions? (for )?{re.escape(refused)}", reason)


# The rules of docs/production.md.
COMMAND_RULES = "+@read +@write +@scripting +@connection +info"
KEY_RULES = {
    1: "~transaction:* ~user:* ~connector:* ~queue ~retries ~deadletters ~psp ~partitions",
    16: "~{p*}:* ~queue ~partitions",
}


@pytest.mark.parametrize("partitions", KEY_RULES)
def test_a_user_of_the_documented_rules_is_enough(tmp_path: Path, partitions: int) -> None:
    """Redis 7.0 crashes when it looks for the keys of an incomplete EVAL, before any other call."""
    rules = f"{COMMAND_RULES} {KEY_RULES[partitions]}".split()
    port = free_ports(1)
    with redis_server(tmp_path, port), redis.Redis(port=port) as client:
        assert refusal(client, port, *rules, partitions=partitions) == ""


def test_older_data_have_one_partition(client: Any) -> None:
    """Data with a queue but no stored number count as one partition."""
    client.xadd(store.WHOLE.queue, {"a": "b"})
    with pytest.raises(redis_check.MismatchError, match="has 1: set PARTITIONS=1"):
        redis_check.check(client, settings(16))
    redis_check.check(client, settings(1))


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("redis://h:1,redis://h:2/1", "start nodes that differ in host and port only"),
        ("redis://h:1,redis://:pw@h:2", "start nodes that differ in host and port only"),
        ("redis://h:1/3", "without a database"),
        ("unix:///tmp/redis", "without a database"),
    ],
)
def test_start_nodes(url: str, rule: str) -> None:
    """Start nodes have one password and no database, and a cluster has several partitions."""
    with pytest.raises(SettingsError, match=rule):
        settings(16, REDIS_CLUSTER="1", REDIS_URL=url)
    with pytest.raises(SettingsError, match="PARTITIONS=1: must be more"):
        settings(1, REDIS_CLUSTER="1")
    assert settings(16, REDIS_CLUSTER="1", REDIS_URL="redis://h:1,redis://h:2").redis_cluster
