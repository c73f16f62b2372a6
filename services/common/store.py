"""Where everything is kept: each Redis key, its type and its lifetime. And how Redis is reached.

| key | type | lifetime | what |
|---|---|---|---|
| `transaction:{id}` | hash | FINISHED_DAYS after its end | the transaction; fields below |
| `user:{id}:transactions` | sorted set, scores 0 | as its transactions | `<created ms>:<id>` |
| `user:{id}:points` | string, integer | for ever | loyalty points |
| `user:{id}:ledger` | list of JSON | for ever | each credit: for what, when |
| `user:{id}:idempotency:{key}` | hash | 24 hours | `fingerprint` of a request, its `answer` |
| `queue` | stream, a group | until finished | `transaction_id`, `user_id`, `request_id`, `swept` |
| `retries` | sorted set by due time (ms) | until due | ids that wait for an attempt |
| `deadletters` | stream | DEADLETTER_DAYS | `transaction_id`, `reason`, `entry`, `at` |
| `connector:{name}` | string | LEASE_SECONDS, renewed | says that this connector lives |

The fields of a transaction are those of the public contract; `timeline` is its events as JSON
objects with commas between them, so that a script appends one without reading the rest. A
consumer of the group is a connector by its name, or `merchant:{id}`, which holds the entries of
that merchant that were read and wait for a slot.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import redis
from pydantic_core import from_json
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from services.common.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Client: TypeAlias = Any
"""A `redis.Redis`; redis-py types each reply as one that may have to be awaited."""

ScriptCall: TypeAlias = "tuple[Any, Sequence[str], Sequence[Any]]"
"""A script of `Client.register_script`, its keys and its arguments."""

QUEUE = "queue"
GROUP = "psp-connector"
RETRIES = "retries"
DEADLETTERS = "deadletters"

_CHECK_TYPES = (Path(__file__).parent / "check_types.lua").read_text(encoding="utf-8")

FINAL = frozenset({"captured", "declined", "failed"})

# In the contract's order. A record has more fields than are shown: `request_id`, and `entry`, the
# entry of the queue that was made for it last.
_FIELDS: Mapping[str, type[int | str]] = {
    "id": str,
    "user_id": int,
    "amount": int,
    "currency": str,
    "payment_method": str,
    "status": str,
    "created_at": str,
    "updated_at": str,
    "attempts": int,
    "psp_reference": str,
    "decline_code": str,
    "loyalty_points": int,
}


def transaction_key(transaction_id: str) -> str:
    """The hash of one transaction."""
    return f"transaction:{transaction_id}"


def index_key(user_id: int) -> str:
    """The ids of a user's transactions by age."""
    return f"user:{user_id}:transactions"


def points_key(user_id: int) -> str:
    """A user's loyalty points."""
    return f"user:{user_id}:points"


def ledger_key(user_id: int) -> str:
    """How a user's points came about."""
    return f"user:{user_id}:ledger"


def idempotency_key(user_id: int, key: str) -> str:
    """What was answered to a user's request with this Idempotency-Key."""
    return f"user:{user_id}:idempotency:{key}"


def lease_key(name: str) -> str:
    """Exists as long as the connector of that name lives."""
    return f"connector:{name}"


def event(name: str, at_ms: int, **details: Any) -> str:
    """One entry of a timeline, as JSON."""
    return json.dumps({"event": name, "at": rfc3339(at_ms), **details})


def public(record: Mapping[str, str]) -> dict[str, Any]:
    """A transaction's hash as the contract shows it.

    Raises:
        KeyError, TypeError, ValueError: it is not as it was written.
    """
    shown: dict[str, Any] = {
        name: kind(record[name]) for name, kind in _FIELDS.items() if name in record
    }
    shown["timeline"] = from_json(f"[{record['timeline']}]")
    return shown


class _OfThread:
    """Closes a connection when the thread that it is local to ends."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.disconnect()


class _ThreadsPool(redis.ConnectionPool):
    """A connection for each thread, kept until the thread ends.

    redis-py's own pool asks a connection whether it still lives before each command, under a lock
    and with a system call; that was a third of a command's cost. A connection that has died shows
    when it is used, and `connect` below has the command repeated on a new one.
    """

    def reset(self) -> None:
        """Starts anew, as after a fork."""
        # First, because redis-py lets other threads go on as soon as its own part is done.
        self._own = threading.local()
        super().reset()

    def get_connection(self, *_command: Any, **_options: Any) -> Any:
        """This thread's connection, connected."""
        self._checkpid()
        if not hasattr(self._own, "holder"):
            # make_connection would count it towards max_connections, and nothing counts down.
            self._own.holder = _OfThread(self.connection_class(**self.connection_kwargs))
        connection = self._own.holder.connection
        connection.connect()
        return connection

    def release(self, connection: Any) -> None:
        """It stays this thread's."""


def connect(url: str, *, timeout_seconds: float) -> Client:
    """A client that never waits long: for its caller somebody else is waiting.

    A connection found dead is made anew once; a command is not repeated on a slow Redis. Scripts
    here do nothing twice, so the repetition is safe.
    """
    pool = _ThreadsPool.from_url(
        url,
        decode_responses=True,
        # What somebody wrote by hand may not be UTF-8; an error here would come back for ever.
        encoding_errors="replace",
        socket_timeout=timeout_seconds,
        socket_connect_timeout=min(timeout_seconds, 0.4),
        **({} if url.startswith("unix:") else {"socket_keepalive": True}),
        # Of Redis Enterprise; in redis-py 8 a reference cycle that keeps sockets open.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
    return redis.Redis(connection_pool=pool)


def run_scripts(client: Client, calls: Sequence[ScriptCall]) -> list[Any | redis.ResponseError]:
    """The answer to each call, or the error of that one; all in one round trip.

    A Redis that was started anew does not know the scripts: it is told them, and asked again.

    Raises:
        redis.RedisError: Redis is away, or slower than the client waits: what was done is unknown.
    """
    answers = _evaluate(client, calls)
    unknown = [n for n, a in enumerate(answers) if isinstance(a, redis.exceptions.NoScriptError)]
    if unknown:
        for text in {calls[n][0].script for n in unknown}:
            client.script_load(text)
        again = _evaluate(client, [calls[n] for n in unknown])
        for n, answer in zip(unknown, again, strict=True):
            answers[n] = answer
    return answers


def _evaluate(client: Client, calls: Sequence[ScriptCall]) -> list[Any]:
    # Not redis-py's pipeline: that takes up to twice the processor time for the same, and before it
    # runs scripts it asks each time whether Redis knows them.
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
    """The text of a Lua script beside a module (its `__file__`), with `check_types` defined."""
    text = (Path(module).parent / name).read_text(encoding="utf-8")
    # Redis reads the script's flags from its first line.
    flags, _, body = text.partition("\n")
    return f"{flags}\n{_CHECK_TYPES}{body}"
