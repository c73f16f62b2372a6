"""The Redis schema (each key, its type and lifetime), and calls of Lua scripts.

| key | type | lifetime | what |
|---|---|---|---|
| `transaction:{id}` | hash | FINISHED_DAYS after it is final | `common/transaction.py` |
| `user:{id}:transactions` | sorted set, scores 0 | as its transactions | `<created ms>:<id>` |
| `user:{id}:points` | string, integer | unlimited | loyalty points |
| `user:{id}:ledger` | list of JSON | unlimited | loyalty credits |
| `user:{id}:idempotency:{key}` | hash | 24 hours | `fingerprint` of the request, `answer` |
| `queue` | stream, a group | until finished | ids, `traceparent`; see accept.lua |
| `retries` | sorted set by due time (ms) | until due | ids waiting for their next attempt |
| `deadletters` | stream | DEADLETTER_DAYS | `transaction_id`, `reason`, `entry`, `at` |
| `connector:{name}` | string | LEASE_SECONDS, renewed | the lease of a live connector |
| `partitions` | string, integer | unlimited | the number of partitions, see below |

Each merchant belongs to one of PARTITIONS partitions. With one, the keys are as above. With more,
all keys but `partitions` have the prefix `{p<n>}:`, a hash tag: the keys of a partition share a
slot of a Redis Cluster, and each has a queue, retries, dead letters and leases of its own.

A consumer of the group is either a connector, or `merchant:{id}`, which holds that merchant's
entries waiting for a slot. An entry from a sweep or a replay also has `swept` or `replayed`.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import redis
import structlog
from redis.exceptions import AskError, ClusterDownError, NoScriptError, TryAgainError

from services.common import problems, redis_client

if TYPE_CHECKING:
    from collections.abc import Sequence

    import falcon

    from services.common.web import App

Client: TypeAlias = redis_client.Client

QUEUE = "queue"
GROUP = "psp-connector"
COUNT_KEY = "partitions"
LEASE_SECONDS = 5
"""A connector that has not renewed its lease for this long counts as dead."""
# Below the Core API's timeout. A replica on the same network confirms within a millisecond.
_WAIT_MS_MAX = 500

_log = structlog.get_logger()

_CHECK_TYPES = (Path(__file__).parent / "check_types.lua").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Partition:
    """The merchants whose keys share a slot, and the names of these keys."""

    number: int = 0
    prefix: str = ""

    @property
    def queue(self) -> str:
        """Open transactions."""
        return f"{self.prefix}{QUEUE}"

    @cached_property
    def attributes(self) -> dict[str, str]:
        """Attributes of spans about the queue; the semantic conventions have no name for Redis."""
        queue = {"messaging.system": "redis", "messaging.destination.name": QUEUE}
        number = {"messaging.destination.partition.id": str(self.number)} if self.prefix else {}
        return queue | number

    @property
    def ids(self) -> dict[str, int]:
        """The fields of log lines about it."""
        return {"partition": self.number} if self.prefix else {}

    @property
    def retries(self) -> str:
        """Transactions waiting for their next attempt."""
        return f"{self.prefix}retries"

    @property
    def deadletters(self) -> str:
        """Transactions given up."""
        return f"{self.prefix}deadletters"

    def transaction(self, transaction_id: str) -> str:
        """A transaction's record."""
        return f"{self.prefix}transaction:{transaction_id}"

    def index(self, user_id: int) -> str:
        """A user's transactions in order of creation."""
        return f"{self.prefix}user:{user_id}:transactions"

    def points(self, user_id: int) -> str:
        """A user's loyalty points."""
        return f"{self.prefix}user:{user_id}:points"

    def ledger(self, user_id: int) -> str:
        """A user's loyalty credits, oldest first."""
        return f"{self.prefix}user:{user_id}:ledger"

    def idempotency(self, user_id: int, key: str) -> str:
        """The stored response for a user's Idempotency-Key."""
        return f"{self.prefix}user:{user_id}:idempotency:{key}"

    def lease(self, name: str) -> str:
        """The lease of a connector; expires when it stops renewing."""
        return f"{self.prefix}connector:{name}"


WHOLE = Partition()
"""The only partition of a Redis that is not divided."""


def partitions(count: int) -> tuple[Partition, ...]:
    """All partitions of a Redis or Redis Cluster with `count` of them."""
    if count == 1:
        return (WHOLE,)
    return tuple(Partition(number, f"{{p{number}}}:") for number in range(count))


def partition_of(user_id: int, among: Sequence[Partition]) -> Partition:
    """The partition of a user. Stored data depend on it: it must never change."""
    return among[zlib.crc32(b"%d" % user_id) % len(among)]


@dataclass(frozen=True)
class Script:
    """A Lua script."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", sha)


class NotReplicatedError(redis.RedisError):
    """Fewer replicas than REDIS_REPLICAS_MIN have confirmed a write, which may get lost."""


ScriptCall: TypeAlias = "tuple[Script, Sequence[str], Sequence[Any]]"
"""A script, its KEYS and its ARGV."""


def handle_errors(
    app: App,
    detail: str = "This is temporarily unavailable.",
    *,
    unsure: str = "The request may have been carried out.",
) -> None:
    """Makes the app respond 503 if Redis is down, slow, loading, full or read-only.

    `unsure` follows `detail` in the response to a POST that Redis may yet execute.
    """

    def respond(
        req: falcon.Request, resp: falcon.Response, error: Exception, _params: dict[str, Any]
    ) -> None:
        _log.error("Redis error", reason=f"{type(error).__name__}: {error}")
        # A stalled Redis executes what it was sent when it continues.
        is_sure = req.method != "POST" or isinstance(error, redis.ResponseError)
        text = detail if is_sure else f"{detail} {unsure}"
        problems.respond(req, resp, problems.Unavailable(text))

    for kind in redis_client.ERRORS:
        app.add_error_handler(kind, respond)


def ping(client: Client) -> None:
    """Raises one of `redis_client.ERRORS` if Redis, or each primary of a cluster, is away."""
    failure: Exception | None = None
    for node in redis_client.nodes(client).values():
        try:
            node.ping()
        except redis_client.ERRORS as error:
            failure = error
        else:
            return
    raise failure or redis.ConnectionError("no primary")


def run_script(client: Client, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
    """Runs a script and returns its reply.

    Raises:
        redis.RedisError: the script failed, or Redis is unavailable.
    """
    [reply] = run_scripts(client, [(script, keys, args)])
    if isinstance(reply, redis.ResponseError):
        raise reply
    return reply


def run_scripts(
    client: Client, calls: Sequence[ScriptCall], replicas_min: int = 0
) -> list[Any | redis.ResponseError]:
    """Runs all calls in one round trip; returns the reply or error of each.

    In a Redis Cluster the calls are those of one node (`lane`); one that a slot's move sends
    elsewhere follows it by itself.

    Args:
        client: of Redis.
        calls: each must write something, also when it is repeated, if replicas are waited for.
        replicas_min: replicas that must have confirmed all writes.

    Raises:
        redis.RedisError: Redis is unavailable or timed out; whether a call ran is unknown.
            NotReplicatedError: the calls ran, and may get lost.
    """
    if not calls:
        return []
    replies = _evaluate(client, calls, "EVALSHA", replicas_min)
    # After a restart or in a new primary. EVAL loads the script.
    unknown = [n for n, r in enumerate(replies) if isinstance(r, NoScriptError)]
    if unknown:
        repeated = _evaluate(client, [calls[n] for n in unknown], "EVAL", replicas_min)
        for n, reply in zip(unknown, repeated, strict=True):
            replies[n] = reply
    for n, reply in enumerate(replies):
        if isinstance(reply, AskError | TryAgainError | ClusterDownError):
            replies[n] = _redirected(client, calls[n], replicas_min)
    return replies


def confirm(client: Client, partition: Partition, name: str, replicas_min: int) -> None:
    """Waits until replicas have all that this connection has read or written before.

    Renews the lease `name` for that: WAIT waits for the writes of its own connection, which may be
    a new one.

    Raises:
        NotReplicatedError: fewer than `replicas_min` have.
        redis.RedisError: Redis is unavailable.
    """
    renewal: ScriptCall = (_RENEW, [partition.lease(name)], [])
    [reply] = run_scripts(client, [renewal], replicas_min)
    if isinstance(reply, redis.ResponseError):
        raise reply


def lane(client: Client, partition: Partition) -> str:
    """What serves a partition now: scripts with the same lane can run in one round trip."""
    if isinstance(client, redis_client.Cluster):
        return client.lane(partition.queue)
    return ""


def _redirected(client: Client, call: ScriptCall, replicas_min: int) -> Any:
    """Runs a script with redis-py's cluster client, which follows redirections."""
    if replicas_min:
        # Where redis-py ran it is not known, so no WAIT could follow.
        client.refresh(call[1][0])
        return _evaluate(client, [call], "EVAL", replicas_min)[0]
    try:
        return client.execute_command(*_command(call, "EVAL"))
    except redis.ResponseError as error:
        return error


def _command(call: ScriptCall, how: str) -> tuple[Any, ...]:
    script, keys, args = call
    return (how, script.sha if how == "EVALSHA" else script.text, len(keys), *keys, *args)


def _evaluate(
    client: Client, calls: Sequence[ScriptCall], how: str, replicas_min: int
) -> list[Any]:
    # Not redis-py's pipeline: it takes up to twice the CPU time, and checks before each run whether
    # Redis has the scripts.
    commands = [_command(call, how) for call in calls]
    if not replicas_min:
        return _exchange(client, calls, commands)
    # One for all: on the same connection, it covers each write before it.
    wait = ("WAIT", replicas_min, _WAIT_MS_MAX)
    *replies, confirmed = _exchange(client, calls, [*commands, wait])
    if isinstance(confirmed, Exception):
        raise confirmed
    # A script that is unknown runs afterwards, and is waited for then.
    is_unknown = any(isinstance(reply, NoScriptError) for reply in replies)
    if confirmed < replicas_min and not is_unknown:
        raise NotReplicatedError(f"{confirmed} of {replicas_min} replicas have the write")
    return replies


def _exchange(
    client: Client, calls: Sequence[ScriptCall], commands: Sequence[tuple[Any, ...]]
) -> list[Any]:
    if not isinstance(client, redis_client.Cluster):
        return _round_trip(client.connection_pool, commands)
    key = calls[0][1][0]
    try:
        return _round_trip(client.pool(key), commands)
    except redis.ConnectionError:
        client.refresh(key)
        return _round_trip(client.pool(key), commands)
    except redis.TimeoutError:
        client.refresh(key)
        raise


def _round_trip(pool: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    connection = pool.get_connection()
    try:
        return list(
            connection.retry.call_with_retry(
                lambda: _send(connection, commands), lambda _error: connection.disconnect()
            )
        )
    finally:
        pool.release(connection)


def _send(connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    connection.send_packed_command(connection.pack_commands(commands))
    return [_reply(connection) for _ in commands]


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def script(module: str, name: str) -> Script:
    """Reads a Lua script next to a module (`__file__`) and prepends `check_types`."""
    text = (Path(module).parent / name).read_text(encoding="utf-8")
    # Redis reads the script's flags from its first line.
    flags, _, body = text.partition("\n")
    return Script(f"{flags}\n{_CHECK_TYPES}{body}")


_RENEW = Script(
    f"#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], '1', 'EX', {LEASE_SECONDS})"
)
