"""The queue as a connector uses it: read, set aside, claim, begin, save.

Delivery is at least once: an entry stays pending for a connector until it is finished, and is set
aside for others when the connector's lease expires. The effect is exactly once: each change is an
atomic script that does nothing if the transaction is already final.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import redis
import structlog

from services.common import redis_check, scripts, store, tracing
from services.common.clock import Clock, now_ms, rfc3339
from services.common.store import LEASE_SECONDS
from services.common.transaction import Credit, Event
from services.psp_connector.psp import RETRY_AFTER_SECONDS_MAX
from services.psp_connector.records import (
    RECORD_FIELDS,
    Entry,
    FinalResult,
    Result,
    RetryResult,
    UnreadableError,
    Work,
    read_claimed,
    read_record,
    start_span,
)
from services.psp_connector.settings import ConnectorSettings

# Entries of one dead connector set aside at once; the rest follow a second later.
_RECLAIMED_MAX = 1000
# PTTL's replies for a missing key, and for one without expiry.
_NO_KEY, _NO_EXPIRY = -2, -1
_ENTRY_CHARACTERS_MAX = 1000
_DAY_SECONDS = 86_400
_MERCHANT = "merchant:"

(
    _CREATE_GROUP, _BEGIN, _FINISH, _RETRY, _PROMOTE, _DEAD_LETTER, _REMOVE_CONSUMER, _SET_ASIDE,
    _CLAIM,
) = (
    scripts.script(__file__, f"{name}.lua")
    for name in (
        "create_group", "begin", "finish", "retry", "promote", "dead_letter", "remove_consumer",
        "set_aside", "claim",
    )
)  # fmt: skip

_log = structlog.get_logger()


class Queue:
    """The queue for one connector. All methods may raise `redis.RedisError`."""

    def __init__(
        self,
        client: store.Client,
        settings: ConnectorSettings,
        name: str,
        partition: store.Partition = store.WHOLE,
        *,
        clock: Clock = time.time,
    ) -> None:
        self._redis = client
        self._settings = settings
        self._clock = clock
        self.name = name
        self.partition = partition
        self._psp = settings.psp
        self._finished_seconds = settings.finished_days * _DAY_SECONDS

    def join(self) -> None:
        """Checks Redis, creates the consumer group if missing, and takes a lease."""
        redis_check.check(self._redis, self._settings, self.partition)
        keys = [self.partition.queue, self.partition.psp]
        scripts.run_script(self._redis, _CREATE_GROUP, keys, [store.GROUP, self._psp])
        # Without its replicas, a partition must not take slots from the others: see `begin`.
        scripts.renew(self._redis, self.partition, self.name, self._settings.redis_replicas_min)

    def renew(self) -> None:
        scripts.renew(self._redis, self.partition, self.name)

    def leave(self) -> None:
        """Releases the lease, so that others reclaim unfinished entries at once."""
        self._redis.delete(self.partition.lease(self.name))
        self._remove(self.name)

    def promote(self, count_max: int = 1000) -> int:
        """Moves up to `count_max` due transactions back into the queue.

        Also moves those due later than any delay allows, as after the clock was set back.
        """
        now = now_ms(self._clock)
        seconds_max = max(self._settings.psp_backoff_seconds_max, RETRY_AFTER_SECONDS_MAX)
        keys = [self.partition.retries, self.partition.queue]
        args = [now, count_max, now + int(seconds_max * 1000), self.partition.transaction("")]
        return int(scripts.run_script(self._redis, _PROMOTE, keys, args))

    def read(self, count_max: int, block_ms: int | None = None) -> list[Entry]:
        """Reads new entries, waiting `block_ms` for one; malformed ones become dead letters."""
        return self._valid(self._read(self.name, ">", count_max, block_ms))

    def _read(
        self, consumer: str, after: str, count_max: int, block_ms: int | None = None
    ) -> list[Entry]:
        """Reads entries new to the group (`>`), or those pending for the consumer (`0`).

        A pending entry that was deleted from the stream has no fields.
        """
        reply = self._redis.xreadgroup(
            store.GROUP, consumer, {self.partition.queue: after}, count=count_max, block=block_ms
        )
        return [Entry(i, fields or {}) for i, fields in (reply or [(0, [])])[0][1]]

    def assign(self, aside: Sequence[Entry], shares: Mapping[str, int]) -> list[Entry]:
        """Sets entries aside, then claims up to `shares[merchant]` entries of each merchant."""
        calls = [self._set_aside_call(self.name, aside)] if aside else []
        calls += [
            (_CLAIM, [self.partition.queue], [store.GROUP, _MERCHANT + merchant, self.name, count])
            for merchant, count in shares.items()
        ]
        replies: list[Any] = scripts.run_scripts(self._redis, calls)
        for reply in replies:
            if isinstance(reply, redis.ResponseError):
                raise reply
        claims = replies[-len(shares) :] if shares else []
        return self._valid([entry for claimed in claims for entry in read_claimed(claimed)])

    def _set_aside_call(self, owner: str, entries: Sequence[Entry]) -> scripts.ScriptCall:
        args = [store.GROUP, owner]
        for entry in entries:
            args += (entry.id, _MERCHANT + entry.merchant)
        return _SET_ASIDE, [self.partition.queue], args

    def reclaim(self, in_flight: Iterable[str]) -> list[str]:
        """Sets aside entries of dead connectors, and of this one if not in flight.

        Returns the merchants that have entries set aside.
        """
        merchants: list[str] = []
        for consumer in self._redis.xinfo_consumers(self.partition.queue, store.GROUP):
            name = consumer["name"]
            if name.startswith(_MERCHANT) and consumer["pending"]:
                merchants.append(name.removeprefix(_MERCHANT))
            elif name.startswith(_MERCHANT):
                self._remove(name)
            elif name == self.name or not self._is_alive(name):
                if consumer["pending"]:
                    merchants += self._reclaim_from(name, frozenset(in_flight))
                elif name != self.name:
                    self._remove(name)
        return list(dict.fromkeys(merchants))

    def _is_alive(self, name: str) -> bool:
        left_ms = int(self._redis.pttl(self.partition.lease(name)))
        if left_ms > LEASE_SECONDS * 1000 or left_ms == _NO_EXPIRY:
            # Set by hand, or the clock was set back: Redis stores an absolute expiry. A live
            # connector will renew its lease; a dead one's must not last for hours.
            self._redis.pexpire(self.partition.lease(name), LEASE_SECONDS * 1000)
        return left_ms != _NO_KEY

    def _reclaim_from(self, name: str, in_flight: frozenset[str]) -> list[str]:
        # Entries in flight are skipped, and must not use up the limit.
        held = self._read(name, "0", _RECLAIMED_MAX + len(in_flight))
        if deleted := [entry.id for entry in held if not entry.fields]:
            self._redis.xack(self.partition.queue, store.GROUP, *deleted)
        entries = [entry for entry in held if entry.fields and entry.id not in in_flight]
        if not entries:
            return []
        moved = frozenset(scripts.run_script(self._redis, *self._set_aside_call(name, entries)))
        reclaimed = [entry for entry in entries if entry.id in moved]
        for entry in reclaimed:
            _log.info("entry reclaimed", **self.partition.ids, **entry.ids)
        return [entry.merchant for entry in reclaimed]

    def _remove(self, name: str) -> None:
        scripts.run_script(
            self._redis, _REMOVE_CONSUMER, [self.partition.queue], [store.GROUP, name]
        )

    def _valid(self, entries: Sequence[Entry]) -> list[Entry]:
        self._dead_letter(
            [(e, "not an entry of this queue") for e in entries if not e.transaction_id]
        )
        return [entry for entry in entries if entry.transaction_id]

    def begin(self, entries: Sequence[Entry]) -> list[Work]:
        """Begins an attempt for each entry; unreadable records become dead letters.

        With REDIS_REPLICAS_MIN, only transactions that replicas have are charged: one that is lost
        got no 202, so the merchant would send it again under another id.
        """
        if not entries:
            return []
        if replicas_min := self._settings.redis_replicas_min:
            scripts.renew(self._redis, self.partition, self.name, replicas_min)
        keys = [self.partition.transaction(entry.transaction_id) for entry in entries]
        now = now_ms(self._clock)
        spans = [start_span(entry, self.partition, self.name) for entry in entries]
        repeated = ["1" if entry.is_repeated else "" for entry in entries]
        traceparents = map(tracing.traceparent, spans)
        args = [rfc3339(now), self._psp, *traceparents, *repeated, *RECORD_FIELDS]
        records = scripts.run_script(self._redis, _BEGIN, keys, args)
        works: list[Work] = []
        bad: list[tuple[Entry, str]] = []
        for entry, record, span in zip(entries, records, spans, strict=True):
            try:
                works.append(read_record(entry, record, self._psp, now, span))
            except UnreadableError as error:
                tracing.end(span, str(error))
                bad.append((entry, str(error)))
        self._dead_letter(bad)
        return works

    def _dead_letter(self, entries: Sequence[tuple[Entry, str]]) -> None:
        """Moves entries to the dead letters; one that fails stays pending and is reclaimed."""
        calls = [self._dead_letter_call(entry, reason) for entry, reason in entries]
        replies = scripts.run_scripts(self._redis, calls)
        for (entry, reason), reply in zip(entries, replies, strict=True):
            log = _log.bind(**entry.ids, entry=entry.id, reason=reason)
            if isinstance(reply, redis.ResponseError):
                log.error("could not save dead letter", error=str(reply))
            elif reply:
                log.warning("dead letter")
            else:
                log.info("entry taken over")

    def _dead_letter_call(self, entry: Entry, reason: str) -> scripts.ScriptCall:
        now = now_ms(self._clock)
        keys = [self.partition.queue, self.partition.deadletters]
        if entry.transaction_id:
            keys.append(self.partition.transaction(entry.transaction_id))
        args = [
            store.GROUP, entry.id, entry.transaction_id, reason,
            json.dumps(dict(entry.fields))[:_ENTRY_CHARACTERS_MAX],
            rfc3339(now), self._oldest_deadletter(),
            Event.of("failed", now, reason=reason).to_json(),
            self._finished_seconds,
        ]  # fmt: skip
        return _DEAD_LETTER, keys, args

    def save(self, results: Sequence[tuple[Work, Result]]) -> list[bool | redis.ResponseError]:
        """Finishes transactions or schedules retries, in one round trip.

        Returns for each its error, or whether it had an effect: none if the transaction was final
        already, or another connector holds the entry and the PSP gave no definite response.
        """
        now = now_ms(self._clock)
        calls = [
            self._retry_call(work, result, now)
            if isinstance(result, RetryResult)
            else self._finish_call(work, result, now)
            for work, result in results
        ]
        replies = scripts.run_scripts(self._redis, calls)
        return [r if isinstance(r, redis.ResponseError) else r == "done" for r in replies]

    def _finish_call(self, work: Work, result: FinalResult, now: int) -> scripts.ScriptCall:
        charge = work.charge
        at = rfc3339(now)
        credit = Credit(
            transaction_id=charge.transaction_id, points=result.points, amount=charge.amount,
            currency=charge.currency, at=at,
        )  # fmt: skip
        forget_ms = now - self._finished_seconds * 1000
        keys = [
            self.partition.transaction(charge.transaction_id), self.partition.queue,
            self.partition.points(work.user_id), self.partition.ledger(work.user_id),
            self.partition.index(work.user_id), self.partition.retries, self.partition.deadletters,
        ]  # fmt: skip
        args = [
            charge.transaction_id, store.GROUP, work.entry_id, result.status, at,
            Event.of(result.status, now, reason=result.reason or None).to_json(),
            result.points, credit.to_json(), self._finished_seconds, f"{forget_ms:013d}",
            result.reason or f"captured as {result.psp_reference}", self._oldest_deadletter(),
            self.name, *result.details(),
        ]  # fmt: skip
        return _FINISH, keys, args

    def _retry_call(self, work: Work, result: RetryResult, now: int) -> scripts.ScriptCall:
        partition, transaction_id = self.partition, work.charge.transaction_id
        due = now + int(result.delay_seconds * 1000)
        event = Event.of("retry", now, reason=result.reason, next_attempt_at=rfc3339(due))
        keys = [partition.transaction(transaction_id), partition.queue, partition.retries]
        args = [
            transaction_id, store.GROUP, work.entry_id, self.name, rfc3339(now), event.to_json(),
            due, work.attempt if work.is_first and result.is_unseen else "",
        ]  # fmt: skip
        return _RETRY, keys, args

    def _oldest_deadletter(self) -> str:
        kept_ms = self._settings.deadletter_days * _DAY_SECONDS * 1000
        return f"{max(now_ms(self._clock) - kept_ms, 0)}-0"
