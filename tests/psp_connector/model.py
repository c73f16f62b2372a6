"""The model of the state machine, and the invariants after each step."""

import itertools
import json
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, invariant

from services.common import store
from services.common.currencies import major_units
from services.common.transaction import FINAL
from services.core_api.transactions import Transactions
from services.psp_connector.deadletters import DeadLetters
from services.psp_connector.queue import Queue
from services.psp_connector.records import FinalResult, Work
from services.psp_connector.settings import ConnectorSettings
from services.psp_connector.sweep import Sweep
from tests.psp_connector.payments import take_over

USERS = (1, 2, 3)
CONNECTORS = 3
DRAIN_ROUNDS_MAX = 50


@dataclass
class Record:
    """The expected record of a transaction."""

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
    """An expected entry of the queue; without an owner, it was not delivered yet."""

    transaction_id: str
    owner: str = ""
    merchant: str = ""
    """The consumer that it is set aside with."""

    @property
    def is_valid(self) -> bool:
        return len(self.transaction_id) == len(str(uuid.uuid4()))


@dataclass
class Call:
    """An attempt that a connector has begun; `result` is the PSP's, once called."""

    slot: int
    queue: Queue
    work: Work
    result: str = ""


@dataclass
class Model:
    """The expected state."""

    records: dict[str, Record] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)
    letters: dict[str, str] = field(default_factory=dict)
    """Transaction ids of the dead letters that were looked at, by their own ids."""
    new_letters: Counter[str] = field(default_factory=Counter)
    decided: dict[str, str] = field(default_factory=dict)
    """What the PSP has done with a transaction; it will not do anything else."""

    def assign(self, entry_ids: list[str], owner: str) -> list[str]:
        """Assigns entries to a connector; malformed ones become dead letters."""
        for entry_id in entry_ids:
            self.entries[entry_id].owner = owner
        valid = [i for i in entry_ids if self.entries[i].is_valid]
        for entry_id in entry_ids:
            if entry_id not in valid:
                self._dead(entry_id)
        return valid

    def _dead(self, entry_id: str) -> None:
        entry = self.entries.pop(entry_id)
        # A text that is no id is not repeated where an id is expected.
        self.new_letters[entry.transaction_id if entry.is_valid else ""] += 1

    def begin(self, entry_ids: list[str]) -> list[str]:
        """Begins attempts; returns the chargeable entries, the others are dead letters."""
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
        # A connector that lost its entry does not know the response to the one that took it.
        if status == "failed" and not self.holds(call):
            return False
        self.entries.pop(call.work.entry_id, None)
        if record.final:
            # The PSP captured it, but the record says otherwise.
            self.new_letters[transaction_id] += status == "captured" != record.status
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


class Checked(RuleBasedStateMachine):
    """The machine's state, and the invariants after each step."""

    def __init__(
        self, client: Any, settings: ConnectorSettings, partition: store.Partition = store.WHOLE
    ) -> None:
        super().__init__()
        self.client = client
        self.partition = partition
        for key in client.scan_iter():
            client.delete(key)
        self.settings = settings
        self.began = self.now = time.time()
        self.model = Model()
        # The same ids in each run, so that picking one of them is.
        self.ids = itertools.count(1)
        self.transactions = Transactions(
            client, 10**6, (partition,), clock=self.clock, new_id=self._new_id
        )
        self.letters = DeadLetters(client, (partition,), clock=self.clock)
        self.sweep = Sweep(client, (partition,))
        self.keys: dict[tuple[int, str], tuple[tuple[int, str], str]] = {}
        self.calls: list[Call] = []
        self.names = 0
        self.connectors = [self._connector() for _ in range(CONNECTORS)]

    def clock(self) -> float:
        return self.now

    def _new_id(self) -> uuid.UUID:
        return uuid.UUID(int=next(self.ids), version=4)

    def _connector(self) -> Queue:
        self.names += 1
        queue = Queue(
            self.client, self.settings, f"c{self.names:03d}", self.partition, clock=self.clock
        )
        queue.join()
        return queue

    def _newest(self, count: int) -> list[tuple[str, Entry]]:
        """The newest entries of the queue, in order."""
        newest = self.client.xrevrange(self.partition.queue, count=count) if count else []
        entries = []
        for entry_id, fields in reversed(newest):
            merchant = f"merchant:{fields.get('user_id', '')}"
            entries.append((entry_id, Entry(fields.get("transaction_id", ""), "", merchant)))
        return entries

    def _note_new(self, count: int) -> None:
        """Records the entries that scripts added, which their records name."""
        for entry_id, entry in self._newest(count):
            self.model.entries[entry_id] = entry
            if entry.transaction_id in self.model.records:
                self.model.records[entry.transaction_id].entry = entry_id

    @invariant()
    def redis_is_as_the_model_says(self) -> None:
        model = self.model
        with self.client.pipeline(transaction=False) as pipeline:
            pipeline.xrange(self.partition.queue)
            pipeline.xpending_range(self.partition.queue, store.GROUP, "-", "+", 10_000)
            pipeline.zrangebyscore(self.partition.retries, "-inf", "inf", withscores=True)
            pipeline.xrange(self.partition.deadletters)
            for transaction_id in model.records:
                pipeline.hmget(self.partition.transaction(transaction_id), "status", "attempts")
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
        assert model.new_letters == Counter(new.values())
        assert all(one["reason"] and len(one.get("entry", "")) <= 1000 for _, one in letters)
        model.letters |= new
        model.new_letters.clear()

    @invariant()
    def points_are_what_was_captured(self) -> None:
        with self.client.pipeline(transaction=False) as pipeline:
            for user_id in USERS:
                pipeline.lrange(self.partition.ledger(user_id), 0, -1)
                pipeline.get(self.partition.points(user_id))
            replies = pipeline.execute()
        for user_id, ledger, points in zip(USERS, replies[::2], replies[1::2], strict=True):
            captured = {
                i: record.points
                for i, record in self.model.records.items()
                if record.user_id == user_id and record.points
            }
            assert sorted(captured.items()) == sorted(
                (credit["transaction_id"], credit["points"]) for credit in map(json.loads, ledger)
            )
            assert int(points or 0) == sum(captured.values())

    @invariant()
    def nothing_open_is_out_of_reach(self) -> None:
        reachable = {entry.transaction_id for entry in self.model.entries.values()}
        reachable |= self.model.retries.keys()
        assert [
            i for i, record in self.model.records.items() if not record.final and i not in reachable
        ] == []

    def teardown(self) -> None:
        """All connectors die; a last one with a working PSP finishes everything."""
        for queue in self.connectors:
            self.client.delete(self.partition.lease(queue.name))
        last = self._connector()
        for _round in range(DRAIN_ROUNDS_MAX):
            self.now += 900
            last.promote()
            for work in last.begin(last.read(100)) + take_over(last):
                self._finish_well(last, work)
            queued = self.client.xlen(self.partition.queue)
            if not queued and not self.client.exists(self.partition.retries):
                break
        for i, record in self.model.records.items():
            status = self.client.hget(self.partition.transaction(i), "status")
            assert status in FINAL
            assert not record.final or status == record.status
            record.status = status
        self.points_are_what_was_captured()
        assert take_over(last) == [], "which removes dead consumers"
        last.leave()
        assert self.client.xinfo_consumers(self.partition.queue, store.GROUP) == []
        assert self.client.xlen(self.partition.queue) == 0
        assert self.client.exists(self.partition.retries) == 0

    def _finish_well(self, queue: Queue, work: Work) -> None:
        charge = work.charge
        status = self.model.decided.get(charge.transaction_id, "captured")
        points = major_units(charge.amount, charge.currency) if status == "captured" else 0
        queue.save([(work, FinalResult(status, points=points))])
