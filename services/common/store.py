"""The Redis schema: each key, its type and lifetime.

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
| `psp` | string | unlimited | where the connector that started last charges |
| `partitions` | string, integer | unlimited | the number of partitions, see below |
| `{p<n>}:partitions` | string, integer | unlimited | a copy, in a cluster |

Each merchant belongs to one of PARTITIONS partitions. With one, the keys are as above. With more,
all keys but `partitions` have the prefix `{p<n>}:`, a hash tag: the keys of a partition share a
slot of a Redis Cluster, and each has a queue, retries, dead letters and leases of its own.

A consumer of the group is either a connector, or `merchant:{id}`, which holds that merchant's
entries waiting for a slot. An entry from a sweep or a replay also has `swept` or `replayed`.
"""

import zlib
from collections.abc import Sequence
from typing import TypeAlias

from services.common import redis_client

Client: TypeAlias = redis_client.Client

QUEUE = "queue"
GROUP = "psp-connector"
COUNT_KEY = "partitions"
LEASE_SECONDS = 5
"""A connector that has not renewed its lease for this long counts as dead."""


class Partition:
    """The merchants whose keys share a slot, and the names of these keys."""

    def __init__(self, number: int = 0, prefix: str = "") -> None:
        self.number = number
        self.prefix = prefix
        self.queue = f"{prefix}{QUEUE}"
        self.retries = f"{prefix}retries"
        self.deadletters = f"{prefix}deadletters"
        self.psp = f"{prefix}psp"
        self.count = f"{prefix}{COUNT_KEY}"
        # Fields of log lines, and attributes of spans about the queue. `redis` is our own value:
        # the semantic conventions define none.
        self.ids = {"partition": number} if prefix else {}
        self.attributes = {"messaging.system": "redis", "messaging.destination.name": QUEUE}
        if prefix:
            self.attributes["messaging.destination.partition.id"] = str(number)

    def transaction(self, transaction_id: str) -> str:
        return f"{self.prefix}transaction:{transaction_id}"

    def index(self, user_id: int) -> str:
        return f"{self.prefix}user:{user_id}:transactions"

    def points(self, user_id: int) -> str:
        return f"{self.prefix}user:{user_id}:points"

    def ledger(self, user_id: int) -> str:
        return f"{self.prefix}user:{user_id}:ledger"

    def idempotency(self, user_id: int, key: str) -> str:
        return f"{self.prefix}user:{user_id}:idempotency:{key}"

    def lease(self, connector: str) -> str:
        return f"{self.prefix}connector:{connector}"

    def examples(self) -> list[str]:
        """One key of each kind but `partitions`."""
        of_user = self.index(1), self.points(1), self.ledger(1), self.idempotency(1, "key")
        others = self.queue, self.retries, self.deadletters, self.psp
        return [self.transaction("id"), *of_user, *others, self.lease("name")]


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
