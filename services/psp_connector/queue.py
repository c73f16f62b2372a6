"""The queue as a connector uses it: read, set aside, claim, begin, save.

Delivery is at least once: an entry stays with a connector until it is finished, and is set aside
for the others when the connector's lease has expired. The effect is exactly once: each change is
one atomic script that does nothing when the transaction has ended already.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis
import structlog

from services.common import store
from services.common.clock import now_ms, rfc3339
from services.psp_connector.psp import RETRY_AFTER_SECONDS_MAX
from services.psp_connector.records import Entry, UnreadableError, Work, read_record
from services.psp_connector.results import FinalResult, Result, RetryResult
from services.psp_connector.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.common.clock import Clock
    from services.psp_connector.settings import ConnectorSettings

# A connector that has not renewed its lease for so long counts as dead.
LEASE_SECONDS = 5
# Entries of one dead connector that are set aside in one go; the rest a second later.
_RECLAIMED_MAX = 1000
# More than a connector ever holds.
_PENDING_MAX = 10_000
_NO_KEY = -2  # what PTTL says then
_ENTRY_CHARACTERS_MAX = 1000
_DAY_SECONDS = 86_400
_MERCHANT = "merchant:"

_log = structlog.get_logger()


@dataclass(frozen=True)
class Reclaimed:
    """What a look at the group's consumers found."""

    entries: list[Entry]
    """Abandoned by dead connectors, or lost by this one; set aside now."""
    merchants: list[str]
    """Those with entries set aside."""


class Queue:
    """The queue for one connector. Every method may raise `redis.RedisError`."""

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
        self._dead_letter = self._script("dead_letter.lua")
        self._remove_consumer = self._script("remove_consumer.lua")
        self._set_aside = self._script("set_aside.lua")
        self._claim = self._script("claim.lua")
        self.sweep = Sweep(client).step

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
        """Renews this connector's lease."""
        self._redis.set(store.lease_key(self.name), "1", ex=LEASE_SECONDS)

    def leave(self) -> None:
        """Gives up the lease: the others take over at once what is still in flight."""
        self._redis.delete(store.lease_key(self.name))
        self._remove(self.name)

    def promote(self, count_max: int = 1000) -> int:
        """Puts up to `count_max` transactions that are due back into the queue.

        So is one that is due later than any wait is long: the clock was set back.
        """
        now = now_ms(self._clock)
        wait_seconds_max = max(self._settings.psp_backoff_seconds_max, RETRY_AFTER_SECONDS_MAX)
        args = [now, count_max, now + int(wait_seconds_max * 1000)]
        return int(self._promote(keys=[store.RETRIES, store.QUEUE], args=args))

    def read(self, count_max: int, block_ms: int | None = None) -> list[Entry]:
        """Up to `count_max` new entries, which are this connector's now; waits for the first.

        What is no entry of this queue goes to the dead letters.
        """
        answer = self._redis.xreadgroup(
            store.GROUP, self.name, {store.QUEUE: ">"}, count=count_max, block=block_ms
        )
        return self._valid([Entry(i, fields or {}) for i, fields in (answer or [(0, [])])[0][1]])

    def assign(self, aside: Sequence[Entry], shares: Mapping[str, int]) -> list[Entry]:
        """Sets entries of this connector aside, then claims up to so many of each merchant."""
        calls = [self._setting_aside(self.name, aside)] if aside else []
        calls += [
            (self._claim, [store.QUEUE], [store.GROUP, _MERCHANT + merchant, self.name, count])
            for merchant, count in shares.items()
        ]
        answers = store.run_scripts(self._redis, calls)
        claimed: list[Entry] = []
        for (script, _, _), answer in zip(calls, answers, strict=True):
            if isinstance(answer, redis.ResponseError):
                raise answer
            if script is self._claim:
                claimed += _entries(answer)
        return self._valid(claimed)

    def _setting_aside(self, owner: str, entries: Sequence[Entry]) -> store.ScriptCall:
        args: list[Any] = [store.GROUP, owner, _PENDING_MAX]
        for entry in entries:
            args += (entry.id, _MERCHANT + entry.merchant)
        return self._set_aside, [store.QUEUE], args

    def reclaim(self, in_flight: Iterable[str]) -> Reclaimed:
        """Sets aside entries of dead connectors, and those this one holds but does not work on."""
        entries: list[Entry] = []
        merchants: list[str] = []
        for consumer in self._redis.xinfo_consumers(store.QUEUE, store.GROUP):
            name = consumer["name"]
            if name.startswith(_MERCHANT) and consumer["pending"]:
                merchants.append(name.removeprefix(_MERCHANT))
            elif name.startswith(_MERCHANT):
                self._remove(name)
            elif name == self.name or not self._lives(name):
                if consumer["pending"]:
                    entries += self._abandoned(name, frozenset(in_flight))
                elif name != self.name:
                    self._remove(name)
        merchants += [entry.merchant for entry in entries]
        return Reclaimed(entries, list(dict.fromkeys(merchants)))

    def _lives(self, name: str) -> bool:
        left_ms = int(self._redis.pttl(store.lease_key(name)))
        if left_ms > LEASE_SECONDS * 1000:
            # The clock was set back, and Redis keeps the moment of expiry. A live connector renews
            # its lease all the same; a dead one must not be waited for for hours.
            self._redis.pexpire(store.lease_key(name), LEASE_SECONDS * 1000)
        return left_ms != _NO_KEY

    def _abandoned(self, name: str, in_flight: frozenset[str]) -> list[Entry]:
        # As many more as are in flight: those are skipped, and must not hide the rest.
        pending = self._redis.xpending_range(
            store.QUEUE, store.GROUP, "-", "+", _RECLAIMED_MAX + len(in_flight), consumername=name
        )
        ids = [p["message_id"] for p in pending if p["message_id"] not in in_flight]
        with self._redis.pipeline(transaction=False) as pipeline:
            for entry_id in ids:
                pipeline.xrange(store.QUEUE, entry_id, entry_id)
            held = dict(zip(ids, pipeline.execute(), strict=True))
        if deleted := [entry_id for entry_id, found in held.items() if not found]:
            self._redis.xack(store.QUEUE, store.GROUP, *deleted)
        entries = [Entry(entry_id, found[0][1]) for entry_id, found in held.items() if found]
        if not entries:
            return []
        _, keys, args = self._setting_aside(name, entries)
        moved = frozenset(self._set_aside(keys=keys, args=args))
        return [entry for entry in entries if entry.id in moved]

    def _remove(self, name: str) -> None:
        self._remove_consumer(keys=[store.QUEUE, store.lease_key(name)], args=[store.GROUP, name])

    def _valid(self, entries: Sequence[Entry]) -> list[Entry]:
        self._bad([(e, "not an entry of this queue") for e in entries if not e.transaction_id])
        return [entry for entry in entries if entry.transaction_id]

    def begin(self, entries: Sequence[Entry]) -> list[Work]:
        """Begins an attempt for each entry; an unreadable record goes to the dead letters."""
        if not entries:
            return []
        keys = [store.transaction_key(entry.transaction_id) for entry in entries]
        now = now_ms(self._clock)
        records = self._begin(keys=keys, args=[rfc3339(now)])
        works: list[Work] = []
        bad: list[tuple[Entry, str]] = []
        for entry, record in zip(entries, records, strict=True):
            try:
                works.append(read_record(entry, record, now))
            except UnreadableError as error:
                bad.append((entry, str(error)))
        self._bad(bad)
        return works

    def _bad(self, entries: Sequence[tuple[Entry, str]]) -> None:
        """To the dead letters. One that is refused there stays pending, and is found again."""
        calls = [self._dead_lettering(entry, reason) for entry, reason in entries]
        for (entry, reason), answer in zip(
            entries, store.run_scripts(self._redis, calls) if calls else [], strict=True
        ):
            log = _log.bind(transaction_id=entry.transaction_id, entry=entry.id, reason=reason)
            if isinstance(answer, redis.ResponseError):
                log.error("dead letter not saved", error=str(answer))
            else:
                log.warning("dead letter")

    def _dead_lettering(self, entry: Entry, reason: str) -> store.ScriptCall:
        now = now_ms(self._clock)
        keys = [store.QUEUE, store.DEADLETTERS]
        if entry.transaction_id:
            keys.append(store.transaction_key(entry.transaction_id))
        args = [
            store.GROUP, entry.id, entry.transaction_id, reason,
            json.dumps(dict(entry.fields))[:_ENTRY_CHARACTERS_MAX],
            rfc3339(now), self._oldest_deadletter(), store.event("failed", now, reason=reason),
            self._settings.finished_days * _DAY_SECONDS,
        ]  # fmt: skip
        return self._dead_letter, keys, args

    def save(self, results: Sequence[tuple[Work, Result]]) -> list[bool | redis.ResponseError]:
        """Ends transactions or schedules their next attempts: in one round trip, each for itself.

        Returns for each whether that had an effect, or the error of that one. It has no effect when
        the transaction had ended before; nor, except for a real answer of the PSP, when this
        connector no longer holds the entry.
        """
        now = now_ms(self._clock)
        calls = [
            self._retrying(work, result, now)
            if isinstance(result, RetryResult)
            else self._finishing(work, result, now)
            for work, result in results
        ]
        answers = store.run_scripts(self._redis, calls)
        return [a if isinstance(a, redis.ResponseError) else a == "done" for a in answers]

    def _finishing(self, work: Work, result: FinalResult, now: int) -> store.ScriptCall:
        charge = work.charge
        at = rfc3339(now)
        details = {"reason": result.reason} if result.reason else {}
        credit = {
            "transaction_id": charge.transaction_id,
            "points": result.points,
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
            charge.transaction_id, store.GROUP, work.entry_id, result.status, at,
            store.event(result.status, now, **details), result.psp_reference,
            result.decline_code, result.points, json.dumps(credit),
            self._settings.finished_days * _DAY_SECONDS, f"{forget_ms:013d}",
            result.reason, self._oldest_deadletter(), self.name,
        ]  # fmt: skip
        return self._finish, keys, args

    def _retrying(self, work: Work, result: RetryResult, now: int) -> store.ScriptCall:
        due = now + int(result.delay_seconds * 1000)
        transaction_id = work.charge.transaction_id
        event = store.event("retry", now, reason=result.reason, next_attempt_at=rfc3339(due))
        keys = [store.transaction_key(transaction_id), store.QUEUE, store.RETRIES]
        args = [transaction_id, store.GROUP, work.entry_id, self.name, rfc3339(now), event, due]
        return self._retry, keys, args

    def _oldest_deadletter(self) -> str:
        kept_ms = self._settings.deadletter_days * _DAY_SECONDS * 1000
        return f"{now_ms(self._clock) - kept_ms}-0"


def _entries(reply: Sequence[str]) -> list[Entry]:
    found = []
    for entry_id, text in zip(reply[::2], reply[1::2], strict=True):
        words = json.loads(text)
        found.append(Entry(entry_id, dict(zip(words[::2], words[1::2], strict=True))))
    return found
