"""The queue as a connector uses it: take, finish, put aside, take over, give up.

Delivery is at least once: an entry stays with a connector until it is finished, and goes to
another when the connector's lease has run out. The effect is exactly once: each change is one
atomic script that does nothing when the transaction has ended already.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis

from services import store
from services.clock import now_ms, rfc3339
from services.psp_connector.psp import RETRY_AFTER_SECONDS_MAX, Charge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.clock import Clock
    from services.psp_connector.settings import ConnectorSettings

# A connector that has not renewed its lease for so long is dead to the others.
LEASE_SECONDS = 5
_NO_KEY = -2  # what PTTL says then
_ENTRY_CHARACTERS_MAX = 1000
_DAY_SECONDS = 86_400
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Work:
    """A transaction in hand: what to charge, and which entry of the queue says so."""

    entry_id: str
    user_id: int
    attempt: int
    created_at: str
    charge: Charge


@dataclass(frozen=True)
class Later:
    """A transaction is to be tried again."""

    reason: str
    delay_seconds: float


@dataclass(frozen=True)
class Ending:
    """How a transaction ended."""

    status: str
    psp_reference: str = ""
    decline_code: str = ""
    points: int = 0
    reason: str = ""
    """Why it failed; it is in the dead letters then."""


Result = Ending | Later


class Queue:
    """One connector's hands on the queue. Every method may raise `redis.RedisError`."""

    def __init__(
        self,
        client: store.Client,
        settings: ConnectorSettings,
        name: str,
        *,
        clock: Clock = time.time,
    ) -> None:
        self._redis = client
        self._settings = settings
        self._clock = clock
        self.name = name
        self._begin = self._script("begin.lua")
        self._finish = self._script("finish.lua")
        self._retry = self._script("retry.lua")
        self._promote = self._script("promote.lua")
        self._discard = self._script("discard.lua")
        self._bury = self._script("bury.lua")
        self._claim_all = self._script("claim.lua")

    def _script(self, name: str) -> Any:
        return self._redis.register_script(store.script(__file__, name))

    def join(self) -> None:
        """Makes the consumer group if need be, and takes a lease."""
        try:
            self._redis.xgroup_create(store.QUEUE, store.GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self.renew()

    def renew(self) -> None:
        """Says that this connector lives."""
        self._redis.set(store.lease_key(self.name), "1", ex=LEASE_SECONDS)

    def leave(self) -> None:
        """Gives up the lease: what is still in hand goes to the others at once."""
        self._redis.delete(store.lease_key(self.name))
        self._remove(self.name)

    def promote(self, count_max: int = 100) -> int:
        """Puts up to `count_max` transactions that are due back into the queue.

        So is one that is due later than any wait is long: the clock was set back.
        """
        now = now_ms(self._clock)
        wait_seconds_max = max(self._settings.psp_backoff_seconds_max, RETRY_AFTER_SECONDS_MAX)
        args = [now, count_max, now + int(wait_seconds_max * 1000)]
        return int(self._promote(keys=[store.RETRIES, store.QUEUE], args=args))

    def take(self, count_max: int, block_ms: int) -> list[Work]:
        """Up to `count_max` new entries, waiting up to `block_ms` for the first."""
        answer = self._redis.xreadgroup(
            store.GROUP, self.name, {store.QUEUE: ">"}, count=count_max, block=block_ms
        )
        return self._begin_all(answer[0][1] if answer else [])

    def take_over(self, count_max: int, in_hand: frozenset[str]) -> list[Work]:
        """Up to `count_max` entries of connectors that died, or that this one lost hold of."""
        entries: list[Any] = []
        for consumer in self._redis.xinfo_consumers(store.QUEUE, store.GROUP):
            name = consumer["name"]
            if name != self.name and self._lives(name):
                continue
            if consumer["pending"]:
                # What was claimed a moment ago is this one's own by now.
                ours = in_hand.union(entry_id for entry_id, _ in entries)
                entries += self._claim(name, count_max - len(entries), ours)
            elif name != self.name:
                self._remove(name)
            if len(entries) >= count_max:
                break
        return self._begin_all(entries)

    def _lives(self, name: str) -> bool:
        left_ms = int(self._redis.pttl(store.lease_key(name)))
        if left_ms > LEASE_SECONDS * 1000:
            # The clock was set back, and Redis keeps the moment of expiry. A connector that lives
            # renews it all the same; one that died must not be waited for for hours.
            self._redis.pexpire(store.lease_key(name), LEASE_SECONDS * 1000)
        return left_ms != _NO_KEY

    def _claim(self, name: str, count_max: int, in_hand: frozenset[str]) -> list[Any]:
        # Asking for as many more as are in hand: those are skipped, and must not hide the rest.
        pending = self._redis.xpending_range(
            store.QUEUE, store.GROUP, "-", "+", count_max + len(in_hand), consumername=name
        )
        wanted = [p["message_id"] for p in pending if p["message_id"] not in in_hand][:count_max]
        if not wanted:
            return []
        claimed = self._claim_all(keys=[store.QUEUE], args=[store.GROUP, name, self.name, *wanted])
        return [(entry_id, dict(zip(f[::2], f[1::2], strict=True))) for entry_id, f in claimed]

    def _remove(self, name: str) -> None:
        self._bury(keys=[store.QUEUE, store.lease_key(name)], args=[store.GROUP, name])

    def _begin_all(self, entries: Sequence[tuple[str, dict[str, str] | None]]) -> list[Work]:
        readable: list[tuple[str, str]] = []
        for entry_id, fields in entries:
            transaction_id = (fields or {}).get("transaction_id", "")
            if _UUID.fullmatch(transaction_id):
                readable.append((entry_id, transaction_id))
            else:
                self._throw_out(entry_id, fields, "not an entry of this queue")
        if not readable:
            return []
        keys = [store.transaction_key(transaction_id) for _, transaction_id in readable]
        begun = self._begin(keys=keys, args=[rfc3339(now_ms(self._clock))])
        works: list[Work] = []
        for (entry_id, transaction_id), record in zip(readable, begun, strict=True):
            if len(record) > 1:
                works.append(_work(entry_id, transaction_id, record))
            else:
                self._throw_out(entry_id, {"transaction_id": transaction_id}, record[0])
        return works

    def _throw_out(self, entry_id: str, fields: dict[str, str] | None, reason: str) -> None:
        transaction_id = (fields or {}).get("transaction_id", "")
        self._discard(
            keys=[store.QUEUE, store.DEADLETTERS],
            args=[
                store.GROUP, entry_id, transaction_id if _UUID.fullmatch(transaction_id) else "",
                reason, json.dumps(fields)[:_ENTRY_CHARACTERS_MAX],
                rfc3339(now_ms(self._clock)), self._oldest_deadletter(),
            ],
        )  # fmt: skip

    def save(self, results: Sequence[tuple[Work, Result]]) -> list[bool | redis.ResponseError]:
        """Ends transactions or puts them aside: in one round trip, each for itself.

        Returns for each whether that had an effect, or the error of that one. It has no effect when
        the transaction had ended before; nor, but for a real answer of the PSP, when it is not in
        this connector's hand any more.
        """
        now = now_ms(self._clock)
        calls = [
            self._retrying(work, result, now)
            if isinstance(result, Later)
            else self._finishing(work, result, now)
            for work, result in results
        ]
        answers = store.run_scripts(self._redis, calls)
        return [a if isinstance(a, redis.ResponseError) else a == "done" for a in answers]

    def _finishing(self, work: Work, ending: Ending, now: int) -> store.ScriptCall:
        charge = work.charge
        at = rfc3339(now)
        details = {"reason": ending.reason} if ending.reason else {}
        credit = {
            "transaction_id": charge.transaction_id,
            "points": ending.points,
            "amount": charge.amount,
            "currency": charge.currency,
            "at": at,
        }
        forget_ms = now - self._settings.finished_days * _DAY_SECONDS * 1000
        keys = [
            store.transaction_key(charge.transaction_id), store.QUEUE,
            store.points_key(work.user_id), store.ledger_key(work.user_id),
            store.index_key(work.user_id), store.RETRIES, store.DEADLETTERS,
        ]  # fmt: skip
        args = [
            charge.transaction_id, store.GROUP, work.entry_id, ending.status, at,
            store.event(ending.status, now, **details), ending.psp_reference,
            ending.decline_code, ending.points, json.dumps(credit),
            self._settings.finished_days * _DAY_SECONDS, f"{forget_ms:013d}",
            ending.reason, self._oldest_deadletter(), self.name,
        ]  # fmt: skip
        return self._finish, keys, args

    def _retrying(self, work: Work, later: Later, now: int) -> store.ScriptCall:
        due = now + int(later.delay_seconds * 1000)
        transaction_id = work.charge.transaction_id
        event = store.event("retry", now, reason=later.reason, next_attempt_at=rfc3339(due))
        keys = [store.transaction_key(transaction_id), store.QUEUE, store.RETRIES]
        args = [transaction_id, store.GROUP, work.entry_id, self.name, rfc3339(now), event, due]
        return self._retry, keys, args

    def _oldest_deadletter(self) -> str:
        kept_ms = self._settings.deadletter_days * _DAY_SECONDS * 1000
        return f"{now_ms(self._clock) - kept_ms}-0"


def _work(entry_id: str, transaction_id: str, record: Sequence[str]) -> Work:
    user_id, amount, currency, payment_method, attempt, created_at, request_id = record
    charge = Charge(transaction_id, request_id or "", int(amount), currency, payment_method)
    return Work(entry_id, int(user_id), int(attempt), created_at, charge)
