"""Clients of a single Redis and of a Redis Cluster, with short timeouts."""

import contextlib
import threading
from collections.abc import Iterator
from functools import cached_property
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import MovedError, RedisClusterException, SlotNotCoveredError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from services.common.redis_url import RedisSettings

Client: TypeAlias = Any
"""A `redis.Redis` or a cluster's; untyped because redis-py types replies as possibly awaitable."""

ERRORS = (redis.RedisError, RedisClusterException)
"""What a command may raise; redis-py derives the second one from Exception."""

_CONNECT_SECONDS_MAX = 0.4
_node: Any = ClusterNode  # untyped


class _PerThreadPool(redis.ConnectionPool):
    """One connection per thread, which closes itself when the thread ends.

    redis-py's own pool checks each connection before each command, with a lock and a system call:
    a third of a command's cost. Here a broken connection is noticed in use, and the command
    repeated on a new one (see `connect`). WAIT needs the connection of the write it waits for.
    """

    def reset(self) -> None:
        # Called after a fork. This comes first: super().reset() lets other threads continue.
        self._own = threading.local()
        super().reset()

    def get_connection(self, *_command: Any, **_options: Any) -> Any:
        self._checkpid()
        if not hasattr(self._own, "connection"):
            # make_connection would count it towards max_connections and never count down.
            self._own.connection = self.connection_class(**self.connection_kwargs)
        connection = self._own.connection
        try:
            connection.connect()
        except redis.ResponseError as error:
            # A server or proxy that does not know AUTH repeats its arguments: the password.
            raise type(error)(str(error).partition(", with args")[0]) from None
        return connection

    def release(self, connection: Any) -> None:
        """Does nothing: the connection stays with its thread."""

    def close(self) -> None:
        """Closes this thread's connection and drops the others, which close after use."""
        if hasattr(self._own, "connection"):
            # The traceback of a stored exception may refer to it, and would hold it open.
            self._own.connection.disconnect()
        self._own = threading.local()


@contextlib.contextmanager
def _nodes_without_slots() -> Iterator[None]:
    """Names what redis-py reports as an IndexError."""
    try:
        yield
    except IndexError:
        raise _no_slots() from None


def _no_slots() -> RedisClusterException:
    remedy = "start those that have, or assign them, as redis-cli --cluster create does"
    fault = f"the cluster's nodes have no slots: {remedy}"
    return RedisClusterException(fault)  # type: ignore[no-untyped-call]


class _RedisCluster(redis.RedisCluster):
    @_nodes_without_slots()
    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Reads the slots again if one is not covered, as redis-py does after other errors."""
        try:
            return super().execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]
        except SlotNotCoveredError:
            self.nodes_manager.initialize()
            return super().execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]

    def determine_slot(self, *args: Any) -> int | None:
        """redis-py would ask Redis for the key of each XREADGROUP, in another round trip."""
        if args[0] == "XREADGROUP":
            slot: int = self.keyslot(args[args.index(b"STREAMS") + 1])  # type: ignore[no-untyped-call]
            return slot
        return super().determine_slot(*args)


def _with_other_nodes(client: Any, start_nodes: list[tuple[str, int]]) -> Any:
    """Adds nodes that redis-py does not know, or no more.

    That is a node without slots, to which ASK leads while it gets its first; and REDIS_URL's, which
    may lead to new nodes when all that were found are gone.
    """
    manager = client.nodes_manager
    known, read = manager.get_node, manager.initialize
    create = manager.create_redis_connections
    ask_others_for_lost_addresses = _LostAddresses(manager)

    def get_node(host: Any = None, port: Any = None, node_name: str | None = None) -> Any:
        node = known(host, port, node_name)
        if node is None and node_name:
            host, _, port = node_name.rpartition(":")
            return _node(host, int(port))
        return node

    def initialize(*, additional_startup_nodes_info: Any = (), **options: Any) -> None:
        forgotten = [one for one in start_nodes if _node(*one).name not in manager.startup_nodes]
        more = [*additional_startup_nodes_info, *forgotten]
        # One that was taken out of the cluster may claim some slots, and would take payments.
        manager._require_full_coverage = bool(forgotten)  # noqa: SLF001
        ask_others_for_lost_addresses()
        read(additional_startup_nodes_info=more, **options)

    def create_redis_connections(nodes: list[Any]) -> None:
        # It would forget all nodes, as when only one responds that was taken out of the cluster.
        if not nodes:
            raise _no_slots()
        create(nodes)

    # A pipeline has the same manager.
    manager.get_node, manager.initialize = get_node, initialize
    manager.create_redis_connections = create_redis_connections
    return client


class _LostAddresses:
    """A node that lost another's address reports port 0: the next reading asks another first."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._turn = 0

    def __call__(self) -> None:
        nodes = self._manager.nodes_cache
        lost = {name for name, node in list(nodes.items()) if not node.port}
        names = [name for name in list(self._manager.startup_nodes) if name not in lost]
        self._turn = self._turn + 1 if lost else 0
        for name in (*names[: self._turn % (len(names) or 1)], *lost):
            _ask_last(self._manager, name)


def _ask_last(manager: Any, name: str) -> None:
    with contextlib.suppress(KeyError):  # another thread does it, too
        manager.move_node_to_end_of_cached_nodes(name)


class Cluster:
    """A client of a Redis Cluster. Connects on first use, like that of a single Redis."""

    def __init__(self, urls: list[str], options: dict[str, Any]) -> None:
        self.urls = urls
        self._options = options

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    @cached_property
    def _client(self) -> Any:
        start_nodes = [(url.hostname or "", url.port or 6379) for url in map(urlsplit, self.urls)]
        with _nodes_without_slots():
            client = _RedisCluster(
                url=self.urls[0],
                startup_nodes=[_node(*address) for address in start_nodes[1:]],
                connection_pool_class=_PerThreadPool,
                # Partitions that have a primary keep working.
                require_full_coverage=False,
                retry=Retry(NoBackoff(), 1),
                **self._options,
            )
        return _with_other_nodes(client, start_nodes)

    @property
    def is_connected(self) -> bool:
        """Whether it has found the cluster's nodes; it needs none of REDIS_URL from then on."""
        return "_client" in self.__dict__

    def close(self) -> None:
        if self.is_connected:
            self._client.close()

    def lane(self, key: str) -> str:
        """The node that serves a key, by name."""
        return str(self._node(key).name)

    def _node(self, key: str) -> Any:
        client = self._client
        try:
            return client.get_node_from_key(key)
        except SlotNotCoveredError:
            self.find_nodes()
            return client.get_node_from_key(key)

    def pool(self, key: str) -> Any:
        """The connection pool of the node that serves a key."""
        return self._client.get_redis_connection(self._node(key)).connection_pool

    def primaries(self) -> dict[str, Client]:
        """A client of each primary, by node name."""
        client = self._client
        return {node.name: client.get_redis_connection(node) for node in client.get_primaries()}

    def refresh(self, key: str, error: Exception | None = None) -> None:
        """Reads the slots again after the node of a key failed, from the other nodes first.

        After MOVED, from the node that it names first: the others may not know it yet.
        """
        manager = self._client.nodes_manager
        _ask_last(manager, self.lane(key))
        if isinstance(error, MovedError):
            owner = _node(error.host, error.port)
            manager.startup_nodes.setdefault(owner.name, owner)
            for name in list(manager.startup_nodes):
                if name != owner.name:
                    _ask_last(manager, name)
        self.find_nodes()

    def find_nodes(self) -> None:
        """Reads the nodes and slots again."""
        with _nodes_without_slots():
            self._client.nodes_manager.initialize()


def nodes(client: Client) -> dict[str, Client]:
    """The client itself, or a client of each primary of a cluster, by node name."""
    return client.primaries() if isinstance(client, Cluster) else {"": client}


def reconnect(client: Client) -> None:
    """Drops the connections to a single Redis: its address may lead to another one by now."""
    if not isinstance(client, Cluster):
        client.connection_pool.close()


def ping(client: Client) -> None:
    """Raises one of ERRORS if Redis is unavailable, or all primaries of a cluster are."""
    try:
        _ping_any(client)
    except ERRORS:
        if not isinstance(client, Cluster):
            raise
        client.find_nodes()  # all may have been replaced while there were no requests
        _ping_any(client)


def _ping_any(client: Client) -> None:
    failure: Exception | None = None
    for node in nodes(client).values():
        try:
            node.ping()
        except ERRORS as error:
            failure = error
        else:
            return
    raise failure or redis.ConnectionError("no primary")


def connect_to(settings: RedisSettings, timeout_seconds: float) -> Client:
    """Returns a client as `connect` does, of these settings."""
    return connect(
        settings.redis_url, timeout_seconds=timeout_seconds, cluster=settings.redis_cluster
    )


def connect(url: str, *, timeout_seconds: float, cluster: bool = False) -> Client:
    """Returns a client of REDIS_URL that waits `timeout_seconds` for a reply.

    A command on a broken connection is repeated once on a new one, which is safe because all
    scripts are idempotent. A command that timed out is not repeated.
    """
    options: dict[str, Any] = {
        "decode_responses": True,
        # Values written by hand may not be UTF-8; an error here would recur on every read.
        "encoding_errors": "replace",
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": min(timeout_seconds, _CONNECT_SECONDS_MAX),
        **({} if url.startswith("unix:") else {"socket_keepalive": True}),
    }
    if cluster:
        # RESP2, without which redis-py 8 switches on its maintenance notifications.
        return Cluster(url.split(","), options | {"protocol": 2})
    pool = _PerThreadPool.from_url(
        url,
        **options,
        # For Redis Enterprise only; in redis-py 8 its reference cycle keeps sockets open.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        # An old primary keeps its connections after a failover; a new one finds the new primary.
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError, redis.ReadOnlyError)),
    )
    return redis.Redis(connection_pool=pool)
