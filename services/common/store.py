"""The Redis schema (each key, its type and lifetime) and the Redis client.

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

A consumer of the group is either a connector, or `merchant:{id}`, which holds that merchant's
entries waiting for a slot. An entry from a sweep or a replay also has `swept` or `replayed`.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import redis
import structlog
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from services.common import problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    import falcon

    from services.common.web import App

Client: TypeAlias = Any
"""A `redis.Redis`; untyped because redis-py types each reply as possibly awaitable."""

ScriptCall: TypeAlias = "tuple[Any, Sequence[str], Sequence[Any]]"
"""A script from `Client.register_script`, its KEYS and its ARGV."""

QUEUE = "queue"
GROUP = "psp-connector"
RETRIES = "retries"
DEADLETTERS = "deadletters"
# Attributes of spans about the queue; the semantic conventions have no name for Redis.
QUEUE_ATTRIBUTES = {"messaging.system": "redis", "messaging.destination.name": QUEUE}

_log = structlog.get_logger()

_CHECK_TYPES = (Path(__file__).parent / "check_types.lua").read_text(encoding="utf-8")


def transaction_key(transaction_id: str) -> str:
    """A transaction's record."""
    return f"transaction:{transaction_id}"


def index_key(user_id: int) -> str:
    """A user's transactions in order of creation."""
    return f"user:{user_id}:transactions"


def points_key(user_id: int) -> str:
    """A user's loyalty points."""
    return f"user:{user_id}:points"


def ledger_key(user_id: int) -> str:
    """A user's loyalty credits, oldest first."""
    return f"user:{user_id}:ledger"


def idempotency_key(user_id: int, key: str) -> str:
    """The stored response for a user's Idempotency-Key."""
    return f"user:{user_id}:idempotency:{key}"


def lease_key(name: str) -> str:
    """The lease of a connector; expires when it stops renewing."""
    return f"connector:{name}"


class _ThreadConnection:
    """Closes its connection when the owning thread ends."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.disconnect()


class _PerThreadPool(redis.ConnectionPool):
    """One connection per thread, kept until the thread ends.

    redis-py's own pool checks each connection before each command, with a lock and a system call:
    a third of a command's cost. Here a broken connection is noticed in use, and the command
    repeated on a new one (see `connect`).
    """

    def reset(self) -> None:
        """Drops all connections, as after a fork."""
        # Before super().reset(), after which redis-py lets other threads continue.
        self._own = threading.local()
        super().reset()

    def get_connection(self, *_command: Any, **_options: Any) -> Any:
        """This thread's connection, connected."""
        self._checkpid()
        if not hasattr(self._own, "holder"):
            # make_connection would count it towards max_connections and never count down.
            self._own.holder = _ThreadConnection(self.connection_class(**self.connection_kwargs))
        connection = self._own.holder.connection
        connection.connect()
        return connection

    def release(self, connection: Any) -> None:
        """Does nothing: the connection stays with its thread."""


def connect(url: str, *, timeout_seconds: float) -> Client:
    """Returns a client with short timeouts, in seconds.

    A command on a broken connection is repeated once on a new one, which is safe because all
    scripts are idempotent. A command that timed out is not repeated.
    """
    pool = _PerThreadPool.from_url(
        url,
        decode_responses=True,
        # Values written by hand may not be UTF-8; an error here would recur on every read.
        encoding_errors="replace",
        socket_timeout=timeout_seconds,
        socket_connect_timeout=min(timeout_seconds, 0.4),
        **({} if url.startswith("unix:") else {"socket_keepalive": True}),
        # For Redis Enterprise only; in redis-py 8 its reference cycle keeps sockets open.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
    return redis.Redis(connection_pool=pool)


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
        req: falcon.Request, resp: falcon.Response, error: redis.RedisError, _params: dict[str, Any]
    ) -> None:
        _log.error("Redis error", reason=f"{type(error).__name__}: {error}")
        # A stalled Redis executes what it was sent when it continues.
        is_sure = req.method != "POST" or isinstance(error, redis.ResponseError)
        text = detail if is_sure else f"{detail} {unsure}"
        problems.respond(req, resp, problems.Unavailable(text))

    app.add_error_handler(redis.RedisError, respond)


def run_scripts(client: Client, calls: Sequence[ScriptCall]) -> list[Any | redis.ResponseError]:
    """Runs all calls in one round trip; returns the reply or error of each.

    After a Redis restart, scripts are loaded again and the call is repeated.

    Raises:
        redis.RedisError: Redis is unavailable or timed out; whether a call ran is unknown.
    """
    replies = _evaluate(client, calls)
    unknown = [n for n, r in enumerate(replies) if isinstance(r, redis.exceptions.NoScriptError)]
    if unknown:
        for text in {calls[n][0].script for n in unknown}:
            client.script_load(text)
        repeated = _evaluate(client, [calls[n] for n in unknown])
        for n, reply in zip(unknown, repeated, strict=True):
            replies[n] = reply
    return replies


def _evaluate(client: Client, calls: Sequence[ScriptCall]) -> list[Any]:
    # Not redis-py's pipeline: it takes up to twice the CPU time, and checks before each run whether
    # Redis has the scripts.
    commands = [("EVALSHA", s.sha, len(keys), *keys, *args) for s, keys, args in calls]
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        return list(
            connection.retry.call_with_retry(
                lambda: _round_trip(connection, commands), lambda _error: connection.disconnect()
            )
        )
    finally:
        pool.release(connection)


def _round_trip(connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    connection.send_packed_command(connection.pack_commands(commands))
    return [_reply(connection) for _ in commands]


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def script(module: str, name: str) -> str:
    """Reads a Lua script next to a module (`__file__`) and prepends `check_types`."""
    text = (Path(module).parent / name).read_text(encoding="utf-8")
    # Redis reads the script's flags from its first line.
    flags, _, body = text.partition("\n")
    return f"{flags}\n{_CHECK_TYPES}{body}"
