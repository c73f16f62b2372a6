from typing import Any

import pytest
import redis
import structlog

from services.common import redis_check, redis_client, store
from services.common.redis_url import RedisSettings
from services.common.settings import SettingsError


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


def test_a_redis_whose_health_check_would_fail_is_refused(client: Any, redis_port: int) -> None:
    """Otherwise the services would start, charge, and never be healthy."""
    client.acl_setuser(
        "a", enabled=True, nopass=True, keys="*", categories=["+@all"], commands=["-ping"]
    )
    url = f"redis://a:x@127.0.0.1:{redis_port}/0"
    of_user = redis_client.connect(url, timeout_seconds=1)
    with pytest.raises(redis.ResponseError, match="'ping'"):
        redis_check.before_start(of_user, settings(1))
    of_user.close()
    client.acl_deluser("a")


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
