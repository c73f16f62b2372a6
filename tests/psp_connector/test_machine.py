"""Rules taken at random against a real Redis, with a model beside it that says how all must stand.

The model knows each entry of the queue and who holds it, each retry, dead letter and record. After
every step all of Redis is compared with it; besides, what must hold whatever the model says is
checked by itself: final stays final, points and ledger agree, nothing accepted is out of reach.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
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

from services import store
from services.core_api.transactions import KeyReusedError, TransactionRequest, Transactions
from services.currencies import major_units
from services.psp_connector.deadletters import DeadLetters
from services.psp_connector.queue import Ending, Later, Queue, Work

if TYPE_CHECKING:
    from services.psp_connector.settings import ConnectorSettings

USERS = (1, 2, 3)
MONEY = ((1250, "USD"), (500, "JPY"), (99, "EUR"), (2999, "BHD"))
CONNECTORS = 3
DRAIN_ROUNDS_MAX = 50
# Some 20 s on two slow cores.
EXAMPLES_MAX = 50
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
        return self.status in store.FINAL

    @property
    def points(self) -> int:
        return major_units(self.amount, self.currency) if self.status == "captured" else 0


@dataclass
class Entry:
    """What is expected of an entry of the queue; without an owner it was not taken yet."""

    transaction_id: str
    owner: str = ""


@dataclass
class Hand:
    """Work that a connector has taken; `answer` is what the PSP said, once it was asked."""

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

    def begin(self, entry_ids: list[str], owner: str) -> list[tuple[str, int]]:
        """Hands entries to a connector; returns what it has to work on: entry and attempt."""
        begun = []
        for entry_id in entry_ids:
            entry = self.entries[entry_id]
            record = self.records.get(entry.transaction_id)
            if record is None or record.final:
                del self.entries[entry_id]
                self.new_letters[entry.transaction_id] += 1
                continue
            entry.owner = owner
            record.status, record.attempts = "processing", record.attempts + 1
            begun.append((entry_id, entry.transaction_id))
        return [(entry_id, self.records[tid].attempts) for entry_id, tid in begun]

    def holds(self, hand: Hand) -> bool:
        entry = self.entries.get(hand.work.entry_id)
        return entry is not None and entry.owner == hand.queue.name

    def finish(self, hand: Hand, status: str) -> bool:
        transaction_id = hand.work.charge.transaction_id
        record = self.records[transaction_id]
        # Whoever has lost its entry to another does not know what that one will be told.
        if status == "failed" and not self.holds(hand):
            return False
        self.entries.pop(hand.work.entry_id, None)
        if record.final:
            return False
        record.status = status
        self.retries.pop(transaction_id, None)
        self.entries.pop(record.entry, None)
        if status == "failed":
            self.new_letters[transaction_id] += 1
        return True

    def retry(self, hand: Hand, due_ms: int) -> bool:
        if not self.holds(hand):
            return False
        del self.entries[hand.work.entry_id]
        transaction_id = hand.work.charge.transaction_id
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
        self.keys: dict[tuple[int, str], tuple[tuple[int, str], str]] = {}
        self.hands: list[Hand] = []
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

    def _newest(self, count: int) -> list[tuple[str, str]]:
        """The newest entries of the queue in their order, each with its transaction."""
        found = self.client.xrevrange(store.QUEUE, count=count) if count else []
        return [(i, fields.get("transaction_id", "")) for i, fields in reversed(found)]

    def _note_new(self, count: int) -> None:
        for entry_id, transaction_id in self._newest(count):
            self.model.entries[entry_id] = Entry(transaction_id)

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

    def _took(self, slot: int, works: list[Work], expected: list[tuple[str, int]]) -> None:
        queue = self.connectors[slot]
        # Two entries of one transaction in one read: the first is told the first number.
        assert [e for e, _ in expected] == [w.entry_id for w in works]
        for work in works:
            transaction_id = self.model.entries[work.entry_id].transaction_id
            assert transaction_id == work.charge.transaction_id
            assert work.attempt <= self.model.records[transaction_id].attempts
        self.hands += [Hand(slot, queue, work) for work in works]

    @rule(slot=slots, count=counts)
    def take(self, slot: int, count: int) -> None:
        queue = self.connectors[slot]
        waiting = [i for i, entry in self.model.entries.items() if not entry.owner][:count]
        works = queue.take(count, 1) if waiting else []
        self._took(slot, works, self.model.begin(waiting, queue.name))

    @rule(slot=slots, count=counts)
    def take_over(self, slot: int, count: int) -> None:
        queue = self.connectors[slot]
        in_hand = frozenset(hand.work.entry_id for hand in self.hands if hand.slot == slot)
        found = sorted(
            (entry.owner, i)
            for i, entry in self.model.entries.items()
            if entry.owner
            and i not in in_hand
            and (entry.owner == queue.name or not self._lives(entry.owner))
        )
        works = queue.take_over(count, in_hand)
        self._took(slot, works, self.model.begin([i for _, i in found][:count], queue.name))

    def _lives(self, name: str) -> bool:
        return bool(self.client.exists(store.lease_key(name)))

    @rule(slot=slots, count=counts, how=answers, delay_seconds=delays)
    def work(self, slot: int, count: int, how: str, delay_seconds: int) -> None:
        """All that a connector does when nothing happens to it."""
        self.promote(slot, count)
        self.take(slot, count)
        for hand in [hand for hand in self.hands if hand.slot == slot]:
            self._charge(hand, how)
            self._save(hand, delay_seconds)

    @precondition(lambda self: self.hands)
    @rule(pick=picks, how=answers)
    def charge(self, pick: int, how: str) -> None:
        self._charge(self.hands[pick % len(self.hands)], how)

    def _charge(self, hand: Hand, how: str) -> None:
        """The PSP is asked; what it decided for a transaction once, it stays with."""
        if hand.answer:
            return
        transaction_id = hand.work.charge.transaction_id
        decided = self.model.decided
        if how in {"capture", "lose the answer"}:
            decided.setdefault(transaction_id, "captured")
        elif how == "decline":
            decided.setdefault(transaction_id, "declined")
        if how in {"fail", "lose the answer"}:
            hand.answer = "transient"
        else:
            hand.answer = decided.get(transaction_id, "failed")

    @precondition(lambda self: any(hand.answer for hand in self.hands))
    @rule(pick=picks, delay_seconds=delays)
    def save(self, pick: int, delay_seconds: int) -> None:
        answered = [hand for hand in self.hands if hand.answer]
        self._save(answered[pick % len(answered)], delay_seconds)

    def _save(self, hand: Hand, delay_seconds: int) -> None:
        """Finish or retry, however late."""
        self.hands.remove(hand)
        work = hand.work
        if hand.answer == "transient" and work.attempt < self.settings.psp_attempts_max:
            due_ms = int(self.now * 1000) + delay_seconds * 1000
            expected = self.model.retry(hand, due_ms)
            assert [expected] == hand.queue.save([(work, Later("HTTP 500", delay_seconds))])
            return
        status = "failed" if hand.answer == "transient" else hand.answer
        points = major_units(work.charge.amount, work.charge.currency)
        ending = Ending(
            status,
            points=points if status == "captured" else 0,
            reason="for the test" if status == "failed" else "",
        )
        expected = self.model.finish(hand, status)
        assert [expected] == hand.queue.save([(work, ending)])

    @rule(slot=slots, count=counts)
    def promote(self, slot: int, count: int) -> None:
        now_ms = int(self.now * 1000)
        due = sorted((at, i) for i, at in self.model.retries.items() if at <= now_ms)[:count]
        assert len(due) == self.connectors[slot].promote(count)
        promoted = self._newest(len(due))
        assert [i for _, i in due] == [transaction_id for _, transaction_id in promoted]
        self._note_new(len(due))
        for entry_id, transaction_id in promoted:
            del self.model.retries[transaction_id]
            if transaction_id in self.model.records:
                self.model.records[transaction_id].entry = entry_id

    # Time and accidents

    @rule(seconds=st.integers(0, 90))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @precondition(lambda self: self.hands)
    @rule(slot=slots)
    def crash(self, slot: int) -> None:
        """`kill -9`; another one starts."""
        self._crash(slot)

    def _crash(self, slot: int) -> None:
        self.client.delete(store.lease_key(self.connectors[slot].name))
        self.hands = [hand for hand in self.hands if hand.slot != slot]
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
            self.take_over(by, 4)
        if how is None:
            return
        for hand in [hand for hand in self.hands if hand.slot == slot]:
            self._charge(hand, how)
            self._save(hand, 0)

    @rule(slot=slots)
    def renew(self, slot: int) -> None:
        self.connectors[slot].renew()

    @rule(slot=slots)
    def leave(self, slot: int) -> None:
        """SIGTERM, with or without work left; another one starts."""
        self.connectors[slot].leave()
        self.hands = [hand for hand in self.hands if hand.slot != slot]
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
            assert outcome in {"missing", "queued"}, "queued is what a broken record may say"
            return
        if record.status != "failed":
            assert record.status == outcome
            return
        assert "done" == outcome
        del self.model.letters[letter_id], self.ended[transaction_id]
        del self.attempts[transaction_id]
        record.status, record.attempts = "queued", 0
        self._note_new(1)
        [(record.entry, _)] = self._newest(1)

    @rule(which=st.integers(0, len(BAD_ENTRIES) - 1))
    def write_nonsense(self, which: int) -> None:
        self.client.xadd(store.QUEUE, BAD_ENTRIES[which])
        self._note_new(1)

    @precondition(lambda self: self.model.records)
    @rule(pick=picks)
    def write_a_duplicate(self, pick: int) -> None:
        """A second entry for a transaction that is open or over."""
        transaction_id = sorted(self.model.records)[pick % len(self.model.records)]
        self.client.xadd(store.QUEUE, {"transaction_id": transaction_id})
        self._note_new(1)

    @rule(how=st.sampled_from(["text", "no fields", "no numbers", "no timeline"]))
    def write_a_broken_record(self, how: str) -> None:
        """A record nobody can read, and an entry that names it."""
        transaction_id = str(self._new_id())
        key = store.transaction_key(transaction_id)
        if how == "text":
            self.client.set(key, "nonsense")
        else:
            whole = {
                "status": "queued", "user_id": "1", "amount": "1", "currency": "USD",
                "payment_method": "pm_card_visa", "attempts": "0", "created_at": "x",
                "timeline": "{}",
            }  # fmt: skip
            broken: dict[str, dict[str, str]] = {
                "no fields": {"status": "queued"},
                "no numbers": whole | {"amount": "many", "attempts": "few"},
                "no timeline": {n: v for n, v in whole.items() if n != "timeline"},
            }
            self.client.hset(key, mapping=broken[how])
        self.client.xadd(store.QUEUE, {"transaction_id": transaction_id})
        self._note_new(1)

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
        assert [] == [
            i for i, record in self.model.records.items() if not record.final and i not in reachable
        ]

    def teardown(self) -> None:
        """All connectors die; a last one with a good PSP brings everything to its end."""
        for queue in self.connectors:
            self.client.delete(store.lease_key(queue.name))
        last = self._connector()
        for _round in range(DRAIN_ROUNDS_MAX):
            self.now += 90
            last.promote()
            works = last.take(100, 1) + last.take_over(100, frozenset())
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
        assert {} == {i: status for i, status in statuses.items() if status not in store.FINAL}
        for i, status in self.ended.items():
            assert status == statuses[i]
        for i, status in statuses.items():
            self.model.records[i].status = status
        self.points_are_what_was_captured()
        assert [] == last.take_over(100, frozenset()), "which buries the dead"
        last.leave()
        assert [] == self.client.xinfo_consumers(store.QUEUE, store.GROUP)
        assert 0 == self.client.exists(store.QUEUE, store.RETRIES) - 1, "the stream alone is left"
        self.client.close()

    def _finish_well(self, queue: Queue, work: Work) -> None:
        charge = work.charge
        status = self.model.decided.get(charge.transaction_id, "captured")
        points = major_units(charge.amount, charge.currency) if status == "captured" else 0
        queue.save([(work, Ending(status, points=points))])


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
