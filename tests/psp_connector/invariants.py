"""What must hold after each step of the state machine, and at its end."""

from __future__ import annotations

import itertools
import json
import re
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
)

from services.common import store
from services.common.currencies import major_units
from services.common.transaction import FINAL
from services.core_api.transactions import Transactions
from services.psp_connector.deadletters import DeadLetters
from services.psp_connector.queue import Queue
from services.psp_connector.records import FinalResult
from services.psp_connector.sweep import Sweep
from tests.psp_connector.model import Call, Entry, Model
from tests.psp_connector.payments import take_over

if TYPE_CHECKING:
    from services.psp_connector.records import Work
    from services.psp_connector.settings import ConnectorSettings

USERS = (1, 2, 3)
CONNECTORS = 3
DRAIN_ROUNDS_MAX = 50


class Checked(RuleBasedStateMachine):
    """The state of the machine, and what must hold after each of its steps."""

    def __init__(
        self, client: Any, settings: ConnectorSettings, partition: store.Partition = store.WHOLE
    ) -> None:
        super().__init__()
        self.client = client
        self.partition = partition
        self.client.flushall()
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
        """The newest entries of the queue in their order."""
        found = self.client.xrevrange(self.partition.queue, count=count) if count else []
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

    @invariant()
    def redis_is_as_the_model_says(self) -> None:
        model = self.model
        with self.client.pipeline() as pipeline:
            pipeline.xrange(self.partition.queue)
            pipeline.xpending_range(self.partition.queue, store.GROUP, "-", "+", 10_000)
            pipeline.zrange(self.partition.retries, 0, -1, withscores=True)
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
    def redis_and_the_psp_agree(self) -> None:
        for transaction_id, record in self.model.records.items():
            if record.status in {"captured", "declined"}:
                assert record.status == self.model.decided[transaction_id]

    @invariant()
    def points_are_what_was_captured(self) -> None:
        for user_id in USERS:
            ledger = [
                json.loads(text)
                for text in self.client.lrange(self.partition.ledger(user_id), 0, -1)
            ]
            captured = {
                i: record.points
                for i, record in self.model.records.items()
                if record.user_id == user_id and record.points
            }
            assert sorted(captured.items()) == sorted(
                (credit["transaction_id"], credit["points"]) for credit in ledger
            )
            assert sum(captured.values()) == int(
                self.client.get(self.partition.points(user_id)) or 0
            )

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
            self.client.delete(self.partition.lease(queue.name))
        last = self._connector()
        for _round in range(DRAIN_ROUNDS_MAX):
            self.now += 900
            last.promote()
            for work in last.begin(last.read(100)) + take_over(last):
                self._finish_well(last, work)
            if (
                self.client.exists(self.partition.retries) + self.client.xlen(self.partition.queue)
                == 0
            ):
                break
        for i, record in self.model.records.items():
            status = self.client.hget(self.partition.transaction(i), "status")
            assert status in FINAL
            assert not record.final or status == record.status
            record.status = status
        self.points_are_what_was_captured()
        assert take_over(last) == [], "which removes the dead"
        last.leave()
        assert self.client.xinfo_consumers(self.partition.queue, store.GROUP) == []
        assert self.client.xlen(self.partition.queue) == 0
        assert self.client.exists(self.partition.retries) == 0

    def _finish_well(self, queue: Queue, work: Work) -> None:
        charge = work.charge
        status = self.model.decided.get(charge.transaction_id, "captured")
        points = major_units(charge.amount, charge.currency) if status == "captured" else 0
        queue.save([(work, FinalResult(status, points=points))])
