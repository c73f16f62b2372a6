"""The model of the state machine: how everything in Redis must stand."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.common.currencies import major_units
from services.common.transaction import FINAL

if TYPE_CHECKING:
    from services.psp_connector.queue import Queue
    from services.psp_connector.records import Work


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
        # A connector that lost its entry does not know the response to the one that took it.
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
