"""Rules taken at random against a real Redis, with a model beside it that says how all must stand.

The model knows each entry of the queue and who holds it, each retry, dead letter and record. After
every step all of Redis is compared with it; besides, what must hold whatever the model says is
checked by itself: final stays final, points and ledger agree, nothing accepted is out of reach.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import redis
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from services.common import store
from services.common.currencies import major_units
from services.common.transaction import FINAL
from services.core_api.models import TransactionRequest
from services.core_api.transactions import KeyReusedError, Transactions
from services.psp_connector.deadletters import DeadLetters
from services.psp_connector.queue import Queue
from services.psp_connector.results import FinalResult, RetryResult
from services.psp_connector.sweep import Sweep
from tests.psp_connector.fakes import take_over

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.psp_connector.records import Entry as QueueEntry
    from services.psp_connector.records import Work
    from services.psp_connector.settings import ConnectorSettings

USERS = (1, 2, 3)
MONEY = ((1250, "USD"), (500, "JPY"), (99, "EUR"), (2999, "BHD"))
CONNECTORS = 3
DRAIN_ROUNDS_MAX = 50
EXAMPLES_MAX = 30
STEPS_MAX = 60

BAD_ENTRIES: tuple[dict[str | bytes, str | bytes], ...] = (
    {"hello": "world"},
    {"transaction_id": ""},
    {"transaction_id": "no-uuid", "request_id": "r"},
    {"transaction_id": b"\xff\xfe not UTF-8"},
    {b"\xc3\x28": b"\x00"},
    {"text": "x" * 100_000},
    {"transaction_id": "00000000-0000-4000-8000-000000000000"},
)

slots = st.integers(0, CONNECTORS - 1)
counts = st.integers(1, 4)
picks = st.integers(0, 30)
delays = st.sampled_from([0, 0, 30])
answers = st.sampled_from(["capture", "decline", "refuse", "fail", "fail", "lose the answer"])


@dataclass
class Record:
    """What is expected of a transaction."""

    user_id: int
    amount: int
    currency: str
    status: str = "queued"
    attempts: int = 0
    entry: str = ""
    """The entry that was made for it last."""

    @property
    def final(self) -> bool:
        return self.status in FINAL

    @property
    def points(self) -> int:
        return major_units(self.amount, self.currency) if self.status == "captured" else 0


@dataclass
class Entry:
    """What is expected of an entry of the queue; without an owner it was not taken yet."""

    transaction_id: str
    owner: str = ""
    merchant: str = ""
    """The consumer that it is set aside with."""

    @property
    def is_valid(self) -> bool:
        return len(self.transaction_id) == len(str(uuid.uuid4()))


@dataclass
class Call:
    """Work that a connector has begun; `answer` is what the PSP said, once it was asked."""

    slot: int
    queue: Queue
    work: Work
    answer: str = ""


@dataclass
class Model:
    """How everything must stand."""

    records: dict[str, Record] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)
    letters: dict[str, str] = field(default_factory=dict)
    """Transaction ids of the dead letters that were looked at, by their own ids."""
    new_letters: Counter[str] = field(default_factory=Counter)
    decided: dict[str, str] = field(default_factory=dict)
    """What the PSP has done with a transaction; it will not do anything else."""

    def give(self, entry_ids: list[str], owner: str) -> list[str]:
        """Entries are a connector's now; what is no entry of this queue is a dead letter."""
        for entry_id in entry_ids:
            self.entries[entry_id].owner = owner
        valid = [i for i in entry_ids if self.entries[i].is_valid]
        for entry_id in entry_ids:
            if entry_id not in valid:
                self._dead(entry_id)
        return valid

    def _dead(self, entry_id: str) -> None:
        self.new_letters[self.entries.pop(entry_id).transaction_id] += 1

    def begin(self, entry_ids: list[str]) -> list[str]:
        """Attempts begin; returns the entries to work on, the others are dead letters."""
        begun = []
        for entry_id in entry_ids:
            record = self.records.get(self.entries[entry_id].transaction_id)
            if record is None or record.final:
                self._dead(entry_id)
                continue
            record.status, record.attempts = "processing", record.attempts + 1
            begun.append(entry_id)
        return begun

    def holds(self, call: Call) -> bool:
        entry = self.entries.get(call.work.entry_id)
        return entry is not None and entry.owner == call.queue.name

    def finish(self, call: Call, status: str) -> bool:
        transaction_id = call.work.charge.transaction_id
        record = self.records[transaction_id]
        # Whoever has lost its entry to another does not know what that one will be told.
        if status == "failed" and not self.holds(call):
            return False
        self.entries.pop(call.work.entry_id, None)
        if record.final:
            return False
        record.status = status
        self.retries.pop(transaction_id, None)
        self.entries.pop(record.entry, None)
        if status == "failed":
            self.new_letters[transaction_id] += 1
        return True

    def retry(self, call: Call, due_ms: int) -> bool:
        if not self.holds(call):
            return False
        del self.entries[call.work.entry_id]
        transaction_id = call.work.charge.transaction_id
        record = self.records[transaction_id]
        if record.status != "processing":
            return False
        record.status = "queued"
        self.retries[transaction_id] = due_ms
        return True


class Machine(RuleBasedStateMachine):
    """Three connectors, a Core API, an operator, somebody who writes nonsense, and accidents."""

    def __init__(self, url: str, settings: ConnectorSettings) -> None:
        super().__init__()
        self.client = store.connect(url, timeout_seconds=5)
        self.client.flushall()
        self.settings = settings
        self.now = time.time()
        self.model = Model()
        # The same ids in each run, so that picking one of them is.
        self.ids = itertools.count(1)
        self.transactions = Transactions(self.client, 10**6, clock=self.clock, new_id=self._new_id)
        self.letters = DeadLetters(self.client, clock=self.clock)
        self.sweep = Sweep(self.client)
        self.keys: dict[tuple[int, str], tuple[tuple[int, str], str]] = {}
        self.calls: list[Call] = []
        self.ended: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self.names = 0
        self.connectors = [self._connector() for _ in range(CONNECTORS)]

    def clock(self) -> float:
        return self.now

    def _new_id(self) -> uuid.UUID:
        return uuid.UUID(int=next(self.ids), version=4)

    def _connector(self) -> Queue:
        self.names += 1
        queue = Queue(self.client, self.settings, f"c{self.names:03d}", clock=self.clock)
        queue.join()
        return queue

    def _newest(self, count: int) -> list[tuple[str, Entry]]:
        """The newest entries of the queue in their order."""
        found = self.client.xrevrange(store.QUEUE, count=count) if count else []
        entries = []
        for entry_id, fields in reversed(found):
            user_id = fields.get("user_id", "")
            merchant = f"merchant:{user_id if re.fullmatch('[0-9]+', user_id) else ''}"
            entries.append((entry_id, Entry(fields.get("transaction_id", ""), "", merchant)))
        return entries

    def _note_new(self, count: int) -> None:
        """They were made by a script, which noted each in its transaction's record."""
        for entry_id, entry in self._newest(count):
            self.model.entries[entry_id] = entry
            if entry.transaction_id in self.model.records:
                self.model.records[entry.transaction_id].entry = entry_id

    # The Core API

    @rule(
        user_id=st.sampled_from(USERS),
        money=st.sampled_from(MONEY),
        key=st.sampled_from([None, None, "a", "b"]),
    )
    def accept(self, user_id: int, money: tuple[int, str], key: str | None) -> None:
        wanted = TransactionRequest(amount=money[0], currency=money[1])
        known = self.keys.get((user_id, key)) if key else None
        if known and known[0] != money:
            with pytest.raises(KeyReusedError):
                self.transactions.accept(user_id, wanted, "req", key)
            return
        accepted = self.transactions.accept(user_id, wanted, "req", key)
        assert (known is not None) == accepted.replayed
        if known:
            assert known[1] == accepted.transaction_id
            return
        if key:
            self.keys[user_id, key] = (money, accepted.transaction_id)
        self.model.records[accepted.transaction_id] = Record(user_id, *money)
        self._note_new(1)

    # Connectors at work

    def _begin(self, slot: int, entries: list[QueueEntry]) -> None:
        queue = self.connectors[slot]
        works = queue.begin(entries)
        # Two entries of one transaction in one call: the first has the first number.
        assert self.model.begin([entry.id for entry in entries]) == [w.entry_id for w in works]
        for work in works:
            transaction_id = self.model.entries[work.entry_id].transaction_id
            assert transaction_id == work.charge.transaction_id
            assert work.attempt <= self.model.records[transaction_id].attempts
        self.calls += [Call(slot, queue, work) for work in works]

    def _read(self, slot: int, count: int) -> list[QueueEntry]:
        queue = self.connectors[slot]
        undelivered = [i for i, entry in self.model.entries.items() if not entry.owner][:count]
        entries = queue.read(count)
        assert self.model.give(undelivered, queue.name) == [entry.id for entry in entries]
        return entries

    @rule(slot=slots, count=counts)
    def take(self, slot: int, count: int) -> None:
        self._begin(slot, self._read(slot, count))

    @rule(slot=slots, count=counts, started=counts)
    def set_aside(self, slot: int, count: int, started: int) -> None:
        """A merchant is above its share."""
        entries = self._read(slot, count)
        assert self.connectors[slot].assign(entries[started:], {}) == []
        for entry in entries[started:]:
            self.model.entries[entry.id].owner = self.model.entries[entry.id].merchant
        self._begin(slot, entries[:started])

    @rule(slot=slots, count=counts, merchant=st.sampled_from(["", *map(str, USERS)]))
    def claim(self, slot: int, count: int, merchant: str) -> None:
        owner = f"merchant:{merchant}"
        aside = sorted(i for i, entry in self.model.entries.items() if entry.owner == owner)
        entries = self.connectors[slot].assign([], {merchant: count})
        expected = self.model.give(aside[:count], self.connectors[slot].name)
        assert expected == [entry.id for entry in entries]
        self._begin(slot, entries)

    @rule(slot=slots)
    def reclaim(self, slot: int) -> None:
        """What the dead hold, and what this one holds and does not work on, is set aside."""
        queue = self.connectors[slot]
        in_flight = frozenset(call.work.entry_id for call in self.calls if call.slot == slot)
        expected = {
            i
            for i, entry in self.model.entries.items()
            if entry.owner
            and not entry.owner.startswith("merchant:")
            and i not in in_flight
            and (entry.owner == queue.name or not self._lives(entry.owner))
        }
        assert expected == {entry.id for entry in queue.reclaim(in_flight).entries}
        for entry_id in expected:
            self.model.entries[entry_id].owner = self.model.entries[entry_id].merchant

    def take_over(self, slot: int) -> None:
        self.reclaim(slot)
        for merchant in ("", *map(str, USERS)):
            self.claim(slot, 10, merchant)

    def _lives(self, name: str) -> bool:
        return bool(self.client.exists(store.lease_key(name)))

    @rule(slot=slots, count=counts, how=answers, delay_seconds=delays)
    def work(self, slot: int, count: int, how: str, delay_seconds: int) -> None:
        """All that a connector does when nothing happens to it."""
        self.promote(slot, count)
        self.take(slot, count)
        for call in [call for call in self.calls if call.slot == slot]:
            self._charge(call, how)
            self._save(call, delay_seconds)

    @precondition(lambda self: self.calls)
    @rule(pick=picks, how=answers)
    def charge(self, pick: int, how: str) -> None:
        self._charge(self.calls[pick % len(self.calls)], how)

    def _charge(self, call: Call, how: str) -> None:
        """The PSP is asked; what it decided for a transaction once, it stays with."""
        if call.answer:
            return
        transaction_id = call.work.charge.transaction_id
        decided = self.model.decided
        if how in {"capture", "lose the answer"}:
            decided.setdefault(transaction_id, "captured")
        elif how == "decline":
            decided.setdefault(transaction_id, "declined")
        if how in {"fail", "lose the answer"}:
            call.answer = "transient"
        else:
            call.answer = decided.get(transaction_id, "failed")

    @precondition(lambda self: any(call.answer for call in self.calls))
    @rule(pick=picks, delay_seconds=delays)
    def save(self, pick: int, delay_seconds: int) -> None:
        answered = [call for call in self.calls if call.answer]
        self._save(answered[pick % len(answered)], delay_seconds)

    def _save(self, call: Call, delay_seconds: int) -> None:
        """Finish or retry, however late."""
        self.calls.remove(call)
        work = call.work
        if call.answer == "transient" and work.attempt < self.settings.psp_attempts_max:
            due_ms = int(self.now * 1000) + delay_seconds * 1000
            expected = self.model.retry(call, due_ms)
            assert [expected] == call.queue.save([(work, RetryResult("HTTP 500", delay_seconds))])
            return
        status = "failed" if call.answer == "transient" else call.answer
        points = major_units(work.charge.amount, work.charge.currency)
        ending = FinalResult(
            status,
            points=points if status == "captured" else 0,
            reason="for the test" if status == "failed" else "",
        )
        expected = self.model.finish(call, status)
        assert [expected] == call.queue.save([(work, ending)])

    @rule(slot=slots, count=counts)
    def promote(self, slot: int, count: int) -> None:
        now_ms = int(self.now * 1000)
        due = sorted((at, i) for i, at in self.model.retries.items() if at <= now_ms)[:count]
        assert len(due) == self.connectors[slot].promote(count)
        assert [i for _, i in due] == [e.transaction_id for _, e in self._newest(len(due))]
        self._note_new(len(due))
        for _, transaction_id in due:
            del self.model.retries[transaction_id]

    # Time and accidents

    @rule(seconds=st.integers(0, 90))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @precondition(lambda self: self.calls)
    @rule(slot=slots)
    def crash(self, slot: int) -> None:
        """`kill -9`; another one starts."""
        self._crash(slot)

    def _crash(self, slot: int) -> None:
        self.client.delete(store.lease_key(self.connectors[slot].name))
        self.calls = [call for call in self.calls if call.slot != slot]
        self.connectors[slot] = self._connector()

    @rule(slot=slots, count=counts)
    def crash_while_taking(self, slot: int, count: int) -> None:
        """Redis has given it entries, and it never knew."""
        name = self.connectors[slot].name
        self.client.xreadgroup(store.GROUP, name, {store.QUEUE: ">"}, count=count)
        waiting = [entry for entry in self.model.entries.values() if not entry.owner][:count]
        for entry in waiting:
            entry.owner = name
        self._crash(slot)

    @rule(slot=slots, by=slots, how=st.none() | answers)
    def lapse(self, slot: int, by: int, how: str | None) -> None:
        """Too slow for its lease, thought dead, overtaken, and still at work, now or later."""
        self.take(slot, 4)
        self.client.delete(store.lease_key(self.connectors[slot].name))
        if by != slot:
            self.take_over(by)
        if how is None:
            return
        for call in [call for call in self.calls if call.slot == slot]:
            self._charge(call, how)
            self._save(call, 0)

    @rule(slot=slots)
    def renew(self, slot: int) -> None:
        self.connectors[slot].renew()

    @rule(slot=slots)
    def leave(self, slot: int) -> None:
        """SIGTERM, with or without work left; another one starts."""
        self.connectors[slot].leave()
        self.calls = [call for call in self.calls if call.slot != slot]
        self.connectors[slot] = self._connector()

    # People

    @precondition(lambda self: self.model.letters)
    @rule(pick=picks)
    def replay(self, pick: int) -> None:
        letter_id = sorted(self.model.letters)[pick % len(self.model.letters)]
        transaction_id = self.model.letters[letter_id]
        record = self.model.records.get(transaction_id)
        outcome = self.letters.replay(letter_id)
        if record is None:
            if outcome == "done":  # a broken record, which will fail again
                del self.model.letters[letter_id]
                self._note_new(1)
            else:
                assert outcome in {"missing", "queued"}, "queued is what it says then"
            return
        if record.status != "failed":
            assert record.status == outcome
            return
        assert outcome == "done"
        del self.model.letters[letter_id], self.ended[transaction_id]
        del self.attempts[transaction_id]
        record.status, record.attempts = "queued", 0
        self._note_new(1)

    @rule(which=st.integers(0, len(BAD_ENTRIES) - 1))
    def write_nonsense(self, which: int) -> None:
        self.client.xadd(store.QUEUE, BAD_ENTRIES[which])
        self._note_new(1)

    @precondition(lambda self: self.model.records)
    @rule(pick=picks)
    def write_a_duplicate(self, pick: int) -> None:
        """A second entry for a transaction that is open or over."""
        transaction_id = sorted(self.model.records)[pick % len(self.model.records)]
        entry_id = self.client.xadd(store.QUEUE, {"transaction_id": transaction_id})
        self.model.entries[entry_id] = Entry(transaction_id, "", "merchant:")

    @precondition(lambda self: any(entry.owner for entry in self.model.entries.values()))
    @rule(pick=picks)
    def delete_a_consumer(self, pick: int) -> None:
        """`XGROUP DELCONSUMER`: what it held and is open is found by the sweep, and once."""
        names = sorted({e.owner for e in self.model.entries.values() if e.owner})
        name = names[pick % len(names)]
        self.client.xgroup_delconsumer(store.QUEUE, store.GROUP, name)
        lost = []
        for entry_id, entry in list(self.model.entries.items()):
            if entry.owner == name:
                del self.model.entries[entry_id]
                record = self.model.records.get(entry.transaction_id)
                if record and record.entry == entry_id and not record.final:
                    lost.append(entry.transaction_id)
                else:
                    self.client.xdel(store.QUEUE, entry_id)
        assert Counter(lost) == Counter(self.sweep.step())
        assert self.sweep.step() == []
        self._note_new(len(lost))

    @precondition(lambda self: self.model.records)
    @rule(pick=picks, what=st.sampled_from(["points", "ledger", "index", "retries", "letters"]))
    def break_a_key(self, pick: int, what: str) -> None:
        """A key of another type: each script that uses it refuses and changes nothing."""
        user_id = USERS[pick % len(USERS)]
        key = {
            "points": store.points_key(user_id), "ledger": store.ledger_key(user_id),
            "index": store.index_key(user_id), "retries": store.RETRIES,
            "letters": store.DEADLETTERS,
        }[what]  # fmt: skip
        wanted = TransactionRequest(amount=1250, currency="USD")
        with self._broken(key):
            if what in {"index", "retries"}:
                with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
                    self.transactions.accept(user_id, wanted, "req", None)
            if what == "retries":
                with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
                    self.connectors[0].promote()
            for call in self.calls:
                if call.work.user_id == user_id or what in {"retries", "letters"}:
                    result = FinalResult("captured", points=5)
                    if what == "letters":
                        result = FinalResult("failed", reason="for the test")
                    saved = call.queue.save([(call.work, result)])
                    assert [redis.ResponseError] == [type(one) for one in saved]
            for call in self.calls if what == "retries" else []:
                saved = call.queue.save([(call.work, RetryResult("HTTP 500", 0))])
                assert [redis.ResponseError] == [type(one) for one in saved]

    @contextlib.contextmanager
    def _broken(self, key: str) -> Iterator[None]:
        was_there = self.client.exists(key)
        if was_there:
            self.client.rename(key, "aside")
        self.client.hset(key, "of", "another type")
        try:
            yield
        finally:
            self.client.delete(key)
            if was_there:
                self.client.rename("aside", key)

    # What must hold

    @invariant()
    def redis_is_as_the_model_says(self) -> None:
        model = self.model
        with self.client.pipeline() as pipeline:
            pipeline.xrange(store.QUEUE)
            pipeline.xpending_range(store.QUEUE, store.GROUP, "-", "+", 10_000)
            pipeline.zrange(store.RETRIES, 0, -1, withscores=True)
            pipeline.xrange(store.DEADLETTERS)
            for transaction_id in model.records:
                pipeline.hmget(store.transaction_key(transaction_id), "status", "attempts")
            stream, pending, retries, letters, *records = pipeline.execute()
        assert list(model.entries) == [entry_id for entry_id, _ in stream]
        owners = {i: entry.owner for i, entry in model.entries.items() if entry.owner}
        assert owners == {p["message_id"]: p["consumer"] for p in pending}
        assert model.retries == {i: int(at) for i, at in retries}
        expected = [[record.status, str(record.attempts)] for record in model.records.values()]
        assert expected == records
        self._check_letters(letters)

    def _check_letters(self, letters: list[tuple[str, dict[str, str]]]) -> None:
        model = self.model
        new = {i: letter["transaction_id"] for i, letter in letters if i not in model.letters}
        # A text that is no id is not repeated where an id is expected.
        expected = Counter(
            {
                tid: count
                for tid, count in model.new_letters.items()
                if tid in model.records or len(tid) == len(str(uuid.uuid4()))
            }
        )
        expected[""] = model.new_letters.total() - expected.total()
        assert +expected == Counter(new.values())
        assert all(
            letter["reason"] and len(letter.get("entry", "")) <= 1000 for _, letter in letters
        )
        model.letters |= new
        model.new_letters.clear()

    @invariant()
    def final_is_final(self) -> None:
        for transaction_id, record in self.model.records.items():
            if transaction_id in self.ended:
                assert self.ended[transaction_id] == record.status
            elif record.final:
                self.ended[transaction_id] = record.status
            assert record.attempts >= self.attempts.get(transaction_id, 0)
            self.attempts[transaction_id] = record.attempts
            # What the PSP did and what is written down agree.
            if record.status in {"captured", "declined"}:
                assert record.status == self.model.decided[transaction_id]

    @invariant()
    def points_are_what_was_captured(self) -> None:
        for user_id in USERS:
            ledger = [
                json.loads(text) for text in self.client.lrange(store.ledger_key(user_id), 0, -1)
            ]
            captured = {
                i: record.points
                for i, record in self.model.records.items()
                if record.user_id == user_id and record.points
            }
            assert sorted(captured.items()) == sorted(
                (credit["transaction_id"], credit["points"]) for credit in ledger
            )
            assert sum(captured.values()) == int(self.client.get(store.points_key(user_id)) or 0)

    @invariant()
    def nothing_open_is_out_of_reach(self) -> None:
        reachable = {entry.transaction_id for entry in self.model.entries.values()}
        reachable |= self.model.retries.keys()
        assert [
            i for i, record in self.model.records.items() if not record.final and i not in reachable
        ] == []

    def teardown(self) -> None:
        """All connectors die; a last one with a good PSP brings everything to its end."""
        for queue in self.connectors:
            self.client.delete(store.lease_key(queue.name))
        last = self._connector()
        for _round in range(DRAIN_ROUNDS_MAX):
            self.now += 90
            last.promote()
            works = last.begin(last.read(100)) + take_over(last)
            for work in works:
                self._finish_well(last, work)
            if not works and not self.client.xlen(store.QUEUE) and not self.model.retries:
                break
            self.model.entries = {
                p["message_id"]: Entry("", p["consumer"])
                for p in self.client.xpending_range(store.QUEUE, store.GROUP, "-", "+", 10_000)
            }
            self.model.retries = dict(self.client.zrange(store.RETRIES, 0, -1, withscores=True))
        else:
            raise AssertionError(f"not drained in {DRAIN_ROUNDS_MAX} rounds")
        statuses = {
            i: self.client.hget(store.transaction_key(i), "status") for i in self.model.records
        }
        assert {i: status for i, status in statuses.items() if status not in FINAL} == {}
        for i, status in self.ended.items():
            assert status == statuses[i]
        for i, status in statuses.items():
            self.model.records[i].status = status
        self.points_are_what_was_captured()
        assert take_over(last) == [], "which removes the dead"
        last.leave()
        assert self.client.xinfo_consumers(store.QUEUE, store.GROUP) == []
        assert self.client.exists(store.QUEUE, store.RETRIES) - 1 == 0, "the stream alone is left"
        self.client.close()

    def _finish_well(self, queue: Queue, work: Work) -> None:
        charge = work.charge
        status = self.model.decided.get(charge.transaction_id, "captured")
        points = major_units(charge.amount, charge.currency) if status == "captured" else 0
        queue.save([(work, FinalResult(status, points=points))])


def test_whatever_happens_nothing_is_lost_or_done_twice(
    redis_port: int, settings: ConnectorSettings
) -> None:
    """Random histories of accepts, attempts, crashes, take-overs, late comers and nonsense."""
    url = f"redis://127.0.0.1:{redis_port}/0"
    run_state_machine_as_test(
        lambda: Machine(url, settings),  # type: ignore[arg-type]  # it only calls it
        # A failing history is shown as it was: making it shorter takes longer than a test may.
        settings=hypothesis_settings(
            max_examples=EXAMPLES_MAX,
            stateful_step_count=STEPS_MAX,
            deadline=None,
            phases=[Phase.generate],
        ),
    )


# What random histories come by only now and then, told on purpose: (rule, arguments) each.
HISTORIES: dict[str, tuple[tuple[str, tuple[Any, ...]], ...]] = {
    "a late failure while the successor is being told captured": (
        ("accept", (1, (1250, "USD"), None)),
        ("lapse", (0, 1, "refuse")),
        ("charge", (0, "capture")),
        ("save", (0, 0)),
    ),
    "a late last attempt without an answer": (
        ("accept", (1, (1250, "USD"), None)),
        *[("work", (0, 1, "fail", 0)), ("promote", (0, 1))] * 2,
        ("lapse", (0, 1, "lose the answer")),
        ("charge", (0, "capture")),
        ("save", (0, 0)),
    ),
    "a late capture while the next attempt is queued": (
        ("accept", (1, (1250, "USD"), None)),
        ("lapse", (0, 1, None)),
        ("charge", (1, "fail")),
        ("save", (0, 0)),
        ("promote", (1, 1)),
        ("charge", (0, "capture")),
        ("save", (0, 0)),
    ),
    "a retry after the other entry's capture": (
        ("accept", (1, (1250, "USD"), None)),
        ("write_a_duplicate", (0,)),
        ("take", (0, 2)),
        ("charge", (0, "capture")),
        ("charge", (1, "fail")),
        ("save", (0, 0)),
        ("save", (0, 30)),
    ),
    "a replay while its old connector comes late": (
        ("accept", (1, (1250, "USD"), None)),
        ("lapse", (0, 1, None)),
        ("charge", (1, "refuse")),
        ("save", (0, 0)),
        ("replay", (0,)),
        ("charge", (0, "refuse")),
        ("save", (0, 0)),
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_rare_histories(redis_port: int, settings: ConnectorSettings, name: str) -> None:
    """The same model, step by step."""
    machine = Machine(f"redis://127.0.0.1:{redis_port}/0", settings)
    for step, arguments in HISTORIES[name]:
        getattr(machine, step)(*arguments)
        machine.redis_is_as_the_model_says()
        machine.final_is_final()
        machine.points_are_what_was_captured()
        machine.nothing_open_is_out_of_reach()
    machine.teardown()
