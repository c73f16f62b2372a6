"""Checks that Redis matches the settings: single or cluster, and the number of partitions.

With another number of partitions, payments and Idempotency-Keys would not be found, and a card
could be charged twice.
"""

import contextlib
import time

import redis
import structlog
from redis.exceptions import NoPermissionError

from services.common import redis_client, scripts, store
from services.common.redis_url import RedisSettings
from services.common.settings import SettingsError

_NODE_SECONDS_MAX = 1.0
COMMANDS = (
    "DEL", "EXISTS", "EXPIRE", "PERSIST", "PEXPIRE", "PTTL", "TYPE",
    "GET", "INCRBY", "SET", "SETRANGE", "LLEN", "LRANGE", "RPUSH",
    "HDEL", "HEXISTS", "HGET", "HGETALL", "HINCRBY", "HMGET", "HSET",
    "XACK", "XADD", "XCLAIM", "XDEL", "XGROUP|CREATE", "XGROUP|DELCONSUMER", "XINFO|CONSUMERS",
    "XINFO|GROUPS", "XLEN", "XPENDING", "XRANGE", "XREADGROUP", "XREVRANGE",
    "ZADD", "ZCARD", "ZRANGEBYSCORE", "ZREM", "ZREMRANGEBYLEX", "ZREVRANGE", "ZREVRANGEBYLEX",
    "ZSCORE",
)  # fmt: skip
"""What the services call on their keys, as Redis' ACL rules name it."""
COMMANDS_WITHOUT_KEYS = ("EVAL", "EVALSHA", "INFO", "PING", "SCAN")
# Redis 7.0 crashes if the number of keys is missing.
_CALLS = {
    "EVAL": "EVAL - 0",
    "EVALSHA": "EVALSHA - 0",
    "XREADGROUP": "XREADGROUP GROUP - - STREAMS",
}
_NAMES_MAX = 8
# The calls in ARGV that the user has no permission for.
_REFUSED = scripts.Script(
    """
    local refused = {}
    if not redis.acl_check_cmd then return refused end  -- no Redis 7, but one that is compatible
    for _, call in ipairs(ARGV) do
        local words = {}
        for word in call:gmatch('%S+') do words[#words + 1] = word end
        -- It fails if Redis has no such command, as after rename-command.
        local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
        if not (known and allowed) then refused[#refused + 1] = call end
    end
    return refused
    """
)
# Even in a full Redis: without it no connector starts, and nothing drains the queue.
_STORE = scripts.Script("#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], ARGV[1], 'NX')")

_log = structlog.get_logger()


class MismatchError(redis.RedisError):
    """Redis does not match the settings; the message says how."""


def check(
    client: store.Client, settings: RedisSettings, partition: store.Partition | None = None
) -> None:
    """Checks Redis; the first start stores the number of partitions in it.

    In a cluster, with a partition, only that one's node is needed from the second time on.

    Raises MismatchError, or another redis.RedisError if Redis is unavailable.
    """
    # Reads succeed on a demoted primary, so a client that only reads would never leave it.
    redis_client.reconnect(client)
    check_kind(client, settings)
    _check_role(client, settings)
    if settings.redis_replicas_min and not _replicas(client, settings):
        raise MismatchError(
            f"REDIS_REPLICAS_MIN={settings.redis_replicas_min}, but Redis has no replicas: "
            "nothing would be accepted"
        )
    stored = _stored_count(client, settings, partition)
    if stored != str(settings.partitions):
        raise MismatchError(
            f"PARTITIONS={settings.partitions}, but the data in this Redis has {stored}: "
            f"set PARTITIONS={stored}, or use an empty Redis"
        )


def before_start(client: store.Client, settings: RedisSettings) -> None:
    """As `check`; also refuses a Redis with too few replicas now, or without writes or scripts.

    And a user without the permissions that the services need.
    """
    check_kind(client, settings)
    _check_role(client, settings)
    _check_nodes(client, settings)
    check(client, settings)
    if required := settings.redis_replicas_min:
        counts = []
        for node in redis_client.nodes(client).values():
            with contextlib.suppress(*redis_client.ERRORS):  # it stops only its own partitions
                counts.append(node.info("replication")["connected_slaves"])
        if (count := max(counts, default=0)) < required:
            raise MismatchError(
                f"REDIS_REPLICAS_MIN={required}, but Redis has fewer replicas ({count}): "
                "nothing would be accepted"
            )


def _check_nodes(client: store.Client, settings: RedisSettings) -> None:
    # Checks permissions on each node, because ACL SETUSER affects only one. Stops after a second
    # once one node works; other faults count only if none does.
    works, failure, until = False, None, time.monotonic() + _NODE_SECONDS_MAX
    for key in keys_of_nodes(client, settings):
        try:
            with contextlib.suppress(redis.OutOfMemoryError):  # it must be drained
                check_node(client, settings, key)
        except (NoPermissionError, redis.AuthenticationError):
            raise
        except redis_client.ERRORS as error:
            failure = error
        else:
            works = True
        if works and time.monotonic() > until:
            return
    if failure and not works:
        raise failure


def keys_of_nodes(client: store.Client, settings: RedisSettings) -> list[str]:
    """A key on each node of a cluster that has a partition, or one on a single Redis."""
    if not settings.redis_cluster:
        return [store.COUNT_KEY]
    keys = {}
    for partition in store.partitions(settings.partitions):
        with contextlib.suppress(*redis_client.ERRORS):  # no node has it
            keys[scripts.lane(client, partition)] = partition.count
    return list(keys.values())


def check_node(client: store.Client, settings: RedisSettings, key: str) -> None:
    """Raises redis.ResponseError if the node of a key takes no scripts or no writes now.

    NoPermissionError if it refuses commands or keys to this user, AuthenticationError if it does
    not know the user or password. Changes nothing.
    """
    names = _calls(settings, key)
    try:
        refused = scripts.run_script(client, _REFUSED, [key], list(names))
    except (NoPermissionError, redis.AuthenticationError) as error:
        raise type(error)(f"{error} ({key}){_place(client, key)}") from None
    if refused:
        listed = ", ".join(names[call] for call in refused[:_NAMES_MAX])
        more = f" and {len(refused) - _NAMES_MAX} more" if len(refused) > _NAMES_MAX else ""
        fault = f"REDIS_URL's user has no permission for {listed}{more}{_place(client, key)}"
        raise NoPermissionError(fault)
    # Writes nothing, even if the key is missing.
    client.setrange(key, 0, "")


def _place(client: store.Client, key: str) -> str:
    return f" at {client.lane(key)}" if isinstance(client, redis_client.Cluster) else ""


def _calls(settings: RedisSettings, key: str) -> dict[str, str]:
    """The calls that the services' user needs a permission for, and what messages call them."""
    names = {_CALLS.get(one, one): one for one in COMMANDS_WITHOUT_KEYS}
    if settings.redis_replicas_min:
        names["WAIT"] = "WAIT"
    if settings.redis_cluster:
        names |= {"CLUSTER SLOTS": "CLUSTER|SLOTS", "CLUSTER NODES": "CLUSTER|NODES"}
    for one in COMMANDS:
        names[f"{_CALLS.get(one, one).replace('|', ' ')} {key}"] = one
    keys = {store.COUNT_KEY, store.QUEUE}  # the queue of data without partitions is looked for
    for partition in store.partitions(settings.partitions):
        keys |= set(partition.examples())
        if settings.redis_cluster:
            keys.add(partition.count)
    for one in sorted(keys):
        names |= {f"GET {one}": f"GET {one}", f"SET {one} -": f"SET {one}"}
    return names


def check_kind(client: store.Client, settings: RedisSettings) -> None:
    """Raises MismatchError for a cluster without REDIS_CLUSTER, or a single Redis with it."""
    is_cluster = _is_cluster(client, settings)
    if is_cluster and not settings.redis_cluster:
        raise MismatchError("REDIS_URL is a node of a Redis Cluster: set REDIS_CLUSTER=1")
    if settings.redis_cluster and not is_cluster:
        raise MismatchError("REDIS_CLUSTER=1, but REDIS_URL is a single Redis: unset REDIS_CLUSTER")


def at_start(client: store.Client, settings: RedisSettings) -> None:
    """Checks Redis if it is available; each process checks it again before it uses it.

    Raises SettingsError if Redis does not match the settings.
    """
    try:
        check(client, settings)
        for node in redis_client.nodes(client).values():
            with contextlib.suppress(*redis_client.ERRORS):  # the other nodes go on
                _warn_of_eviction(node)
                _warn_of_permissions(node)
        _check_nodes(client, settings)
        for node in redis_client.nodes(client).values():
            # gunicorn's main process does not use the connection again.
            node.connection_pool.close()
    except MismatchError as error:
        raise SettingsError([str(error)]) from None
    except NoPermissionError as error:
        _log.warning("Redis refuses the services", reason=str(error))
    except redis_client.ERRORS as error:
        _log.warning("Redis unavailable", reason=f"{type(error).__name__}: {error}")


def _warn_of_eviction(node: store.Client) -> None:
    if (policy := node.info("memory").get("maxmemory_policy")) not in (None, "noeviction"):
        _log.warning("Redis may drop payments when it is full", maxmemory_policy=policy)


def _warn_of_permissions(node: store.Client) -> None:
    # Loading its append-only file, Redis checks transactions against the default user's permissions
    # (redis issue 14541). All payments are written by scripts, which it stores as transactions.
    with contextlib.suppress(redis.ResponseError):  # ACL is not permitted
        default = node.acl_getuser("default")
        if "+@all" not in default["categories"] or "~*" not in default["keys"]:
            _log.warning(
                "Redis may lose all payments when it is restarted",
                remedy="ACL SETUSER default ~* &* +@all, even if that user is off",
            )


def _is_cluster(client: store.Client, settings: RedisSettings) -> bool:
    if not settings.redis_cluster:
        return bool(client.info("cluster").get("cluster_enabled"))
    if client.is_connected:
        return True
    # Asks each node, because the cluster client reports only that it cannot connect.
    failure: Exception = redis.ConnectionError("no node")
    for url in settings.redis_url.split(","):
        try:
            node = redis_client.connect(url, timeout_seconds=_NODE_SECONDS_MAX)
            return bool(node.info("cluster").get("cluster_enabled"))
        except redis.RedisError as error:
            failure = error
    raise failure


def _check_role(client: store.Client, settings: RedisSettings) -> None:
    # Not a MismatchError: in a failover the address may lead to a replica for a while.
    if not settings.redis_cluster and client.info("replication").get("role") == "slave":
        raise redis.ReadOnlyError("REDIS_URL leads to a replica; it must lead to the primary")


def _replicas(client: store.Client, settings: RedisSettings) -> int:
    if settings.redis_cluster:
        # Not CLUSTER SLOTS, which omits replicas that are down.
        return sum("slave" in node["flags"] for node in client.cluster_nodes().values())
    return int(client.info("replication")["connected_slaves"])


def _stored_count(
    client: store.Client, settings: RedisSettings, partition: store.Partition | None
) -> str:
    if not settings.redis_cluster:
        return _first_count(client, settings.partitions)
    if partition and (stored := client.get(partition.count)):
        return str(stored)
    try:
        stored = client.get(store.COUNT_KEY) or _copy(client, settings)
    except redis_client.ERRORS:  # the other nodes' partitions go on
        if stored := _copy(client, settings):
            return stored
        raise
    stored = str(stored or _first_count(client, settings.partitions))
    if partition:
        scripts.run_script(client, _STORE, [partition.count], [stored])
    return stored


def _copy(client: store.Client, settings: RedisSettings) -> str:
    for partition in store.partitions(settings.partitions):
        with contextlib.suppress(*redis_client.ERRORS):
            if stored := client.get(partition.count):
                return str(stored)
    return ""


def _first_count(client: store.Client, count: int) -> str:
    stored = client.get(store.COUNT_KEY)
    if stored is None:
        # Data from before partitions existed: a queue, but no stored number.
        count = 1 if client.exists(store.WHOLE.queue) else count
        scripts.run_script(client, _STORE, [store.COUNT_KEY], [count])
        stored = client.get(store.COUNT_KEY)
    return str(stored)
