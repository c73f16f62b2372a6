"""Lua scripts: many in one round trip, repeated where that is safe, and confirmed by replicas."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import redis
from redis.exceptions import ClusterDownError, MovedError, NoScriptError

from services.common import redis_client
from services.common.redis_client import Client
from services.common.store import LEASE_SECONDS, Partition

# Below the Core API's timeout. A replica on the same network confirms within a millisecond.
_WAIT_MS_MAX = 500
# Only a replica refuses WAIT; scripts may fail there with other errors. A primary with fewer than
# min-replicas-to-write replicas replies NOREPLICAS; the address may lead to a new primary by now.
_REFUSED = re.compile("WAIT cannot be used with replica|^NOREPLICAS ")

_LIBRARY = (Path(__file__).parent / "library.lua").read_text(encoding="utf-8")


class Script:
    """A Lua script, and the hash that EVALSHA expects."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class NotReplicatedError(redis.RedisError):
    """Fewer than REDIS_REPLICAS_MIN replicas confirmed a write, which may be lost."""


class UnsureError(redis.ResponseError):
    """A repeated call was refused; an earlier attempt, whose reply was lost, may have run."""


ScriptCall: TypeAlias = "tuple[Script, Sequence[str], Sequence[Any]]"
"""A script, its KEYS and its ARGV."""


def run_script(
    client: Client, script: Script, keys: Sequence[str], args: Sequence[Any], replicas_min: int = 0
) -> Any:
    """Runs a script and returns its reply; raises its error, or as `run_scripts`."""
    [reply] = run_scripts(client, [(script, keys, args)], replicas_min)
    if isinstance(reply, redis.ResponseError):
        raise reply
    return reply


def run_scripts(
    client: Client, calls: Sequence[ScriptCall], replicas_min: int = 0
) -> list[Any | redis.ResponseError]:
    """Runs all calls in one round trip; returns the reply or error of each (see UnsureError).

    In a Redis Cluster all calls are for one node (`lane`); calls whose slot has moved are repeated,
    unless `client` is that of a single node. While it moves, they fail. With `replicas_min`, that
    many replicas must confirm; each call must then write something, even when repeated.

    Raises NotReplicatedError if the calls ran, but their writes may be lost; another
    redis.RedisError if Redis is unavailable or timed out, and whether a call ran is unknown.
    """
    if not calls:
        return []
    lost: list[str] = []
    replies: list[Any] = []
    try:
        replies = _evaluate(client, calls, "EVALSHA", replicas_min, lost)
        _repeat(client, calls, replies, replicas_min, lost)
    except redis.ReadOnlyError:
        raise
    except redis.ResponseError as error:  # to AUTH or SELECT of a new connection
        if not lost and not replies:
            raise
        raise UnsureError(f"{error}, on a new connection") from None
    return [
        UnsureError(f"{reply}, after {lost[0]}")
        if lost and isinstance(reply, redis.ResponseError)
        else reply
        for reply in replies
    ]


def _repeat(
    client: Client,
    calls: Sequence[ScriptCall],
    replies: list[Any],
    replicas_min: int,
    lost: list[str],
) -> None:
    # Redis lacks the script after a restart or failover; the slot has moved, or its primary was cut
    # off from the others.
    moved = (MovedError, ClusterDownError) if isinstance(client, redis_client.Cluster) else ()
    for kind in (NoScriptError, moved):
        again = [n for n, reply in enumerate(replies) if isinstance(reply, kind)]
        if not again:
            continue
        repeated = [calls[n] for n in again]
        if kind is moved:
            client.refresh(repeated[0][1][0], replies[again[0]])
        # EVAL loads the script.
        repeats = _evaluate(client, repeated, "EVAL", replicas_min, lost)
        for n, reply in zip(again, repeats, strict=True):
            replies[n] = reply


def renew(client: Client, partition: Partition, name: str, replicas_min: int = 0) -> None:
    """Renews the lease `name`, even in a full Redis: its holder frees memory.

    Then waits until `replicas_min` replicas have everything this connection has read or written so
    far, else raises NotReplicatedError. WAIT covers only its own connection, so a new one needs the
    renewal as a write.
    """
    run_script(client, _RENEW, [partition.lease(name)], [], replicas_min)


def lane(client: Client, partition: Partition) -> str:
    """The node that serves a partition; scripts with the same lane share a round trip."""
    if isinstance(client, redis_client.Cluster):
        return client.lane(partition.queue)
    return ""


def _command(call: ScriptCall, how: str) -> tuple[Any, ...]:
    script, keys, args = call
    return (how, script.sha if how == "EVALSHA" else script.text, len(keys), *keys, *args)


def _evaluate(
    client: Client,
    calls: Sequence[ScriptCall],
    how: str,
    replicas_min: int,
    lost: list[str],
) -> list[Any]:
    # Not redis-py's pipeline: it takes up to twice the CPU time, and checks before each run whether
    # Redis has the scripts.
    commands = [_command(call, how) for call in calls]
    if not replicas_min:
        return _exchange(client, calls, commands, lost)
    # One WAIT covers all earlier writes on its connection.
    wait = ("WAIT", replicas_min, _WAIT_MS_MAX)
    *replies, confirmed = _exchange(client, calls, [*commands, wait], lost)
    # Nothing was written; repeated calls have their own WAIT.
    if all(isinstance(reply, redis.ResponseError) for reply in replies):
        return replies
    if isinstance(confirmed, Exception):
        raise NotReplicatedError(str(confirmed))
    if confirmed < replicas_min:
        # This may be an old primary, while the address already leads to the new one.
        redis_client.reconnect(client)
        raise NotReplicatedError(f"{confirmed} of {replicas_min} replicas have the write")
    return replies


def _exchange(
    client: Client,
    calls: Sequence[ScriptCall],
    commands: Sequence[tuple[Any, ...]],
    lost: list[str],
) -> list[Any]:
    """Sends commands and returns their replies; adds errors of earlier attempts to `lost`.

    As text: an exception's traceback would hold the connection open.
    """
    if not isinstance(client, redis_client.Cluster):
        return _round_trip(client.connection_pool, commands, lost)
    key = calls[0][1][0]
    try:
        return _round_trip(client.pool(key), commands, lost)
    except (redis.ConnectionError, redis.ReadOnlyError) as error:
        lost.append(str(error))
        client.refresh(key)
        return _round_trip(client.pool(key), commands, lost)
    except redis.TimeoutError:
        client.refresh(key)
        raise


def _round_trip(pool: Any, commands: Sequence[tuple[Any, ...]], lost: list[str]) -> list[Any]:
    connection = pool.get_connection()

    def disconnect(error: Exception) -> None:
        lost.append(str(error))
        connection.disconnect()

    try:
        return list(
            connection.retry.call_with_retry(lambda: _send(connection, commands), disconnect)
        )
    finally:
        pool.release(connection)


def _send(connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    connection.send_packed_command(connection.pack_commands(commands))
    replies = [_reply(connection) for _ in commands]
    for reply in replies:
        if isinstance(reply, redis.ReadOnlyError):
            raise reply
        if isinstance(reply, redis.ResponseError) and _REFUSED.search(str(reply)):
            raise redis.ReadOnlyError(str(reply))
    return replies


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def script(module: str, name: str) -> Script:
    """Reads a Lua script next to a module (`__file__`) and prepends the library."""
    text = (Path(module).parent / name).read_text(encoding="utf-8")
    # Redis reads the script's flags from its first line.
    flags, _, body = text.partition("\n")
    return Script(f"{flags}\n{_LIBRARY}{body}")


_RENEW = Script(
    f"#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], '1', 'EX', {LEASE_SECONDS})"
)
