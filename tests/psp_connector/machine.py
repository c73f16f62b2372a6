"""Random rules against a real Redis, with a model of the expected state.

The model has each queue entry and its owner, retry, dead letter and record. After every step, all
of Redis is compared with it; invariants are checked independently: final stays final, points and
ledger agree, nothing accepted is lost.
"""

from collections import Counter
from typing import Any

from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from services.common import store
from services.psp_connector.deadletters import id_prefix
from services.psp_connector.settings import ConnectorSettings
from tests.psp_connector.attempts import Working, counts, delays, picks, responses, slots
from tests.psp_connector.model import Entry

BAD_ENTRIES: tuple[dict[str | bytes, str | bytes], ...] = (
    {"hello": "world"},
    {"transaction_id": ""},
    {"transaction_id": "no-uuid", "request_id": "r"},
    {"transaction_id": b"\xff\xfe not UTF-8"},
    {b"\xc3\x28": b"\x00"},
    {"text": "x" * 100_000},
    {"transaction_id": "00000000-0000-4000-8000-000000000000", "user_id": b"\xff \n"},
)


class Machine(Working):
    """Adds crashes, slow connectors, an operator, and corrupt data written by hand."""

    # Accidents

    @precondition(lambda self: self.calls)
    @rule(slot=slots)
    def crash(self, slot: int) -> None:
        """`kill -9`; another connector starts."""
        self._crash(slot)

    def _crash(self, slot: int) -> None:
        self.client.delete(self.partition.lease(self.connectors[slot].name))
        self.calls = [call for call in self.calls if call.slot != slot]
        self.connectors[slot] = self._connector()

    @rule(slot=slots, count=counts)
    def crash_while_taking(self, slot: int, count: int) -> None:
        """A connector dies before it receives the entries that Redis assigned to it."""
        name = self.connectors[slot].name
        self.client.xreadgroup(store.GROUP, name, {self.partition.queue: ">"}, count=count)
        waiting = [entry for entry in self.model.entries.values() if not entry.owner][:count]
        for entry in waiting:
            entry.owner = name
        self._crash(slot)

    @rule(
        slot=slots, by=slots, first=st.none() | responses, late=st.none() | responses,
        delay_seconds=delays,
    )  # fmt: skip
    def lapse(
        self, slot: int, by: int, first: str | None, late: str | None, delay_seconds: int
    ) -> None:
        """A connector loses its lease, and continues before, after or beside its successor."""
        self.take(slot, 4)
        self.client.delete(self.partition.lease(self.connectors[slot].name))
        if by != slot:
            self.take_over(by)
        for connector, how in ((by, first), (slot, late)):
            if how:
                self._end(connector, how, delay_seconds)

    @rule(slot=slots)
    def leave(self, slot: int) -> None:
        """SIGTERM, with or without unfinished work; another connector starts."""
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
        outcome = self.letters.replay(id_prefix(self.partition) + letter_id)
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
        del self.model.letters[letter_id]
        record.status, record.attempts = "queued", 0
        self._note_new(1)

    @rule(which=st.integers(0, len(BAD_ENTRIES) - 1))
    def write_nonsense(self, which: int) -> None:
        self.client.xadd(self.partition.queue, BAD_ENTRIES[which])
        self._note_new(1)

    @precondition(lambda self: self.model.records)
    @rule(pick=picks, slot=st.none() | slots)
    def write_a_duplicate(self, pick: int, slot: int | None) -> None:
        """A second entry for a transaction, open or final; both may be in flight together."""
        records = self.model.records
        ids = sorted(records, key=lambda i: (records[i].final, i))
        transaction_id = ids[pick % len(ids)]
        entry_id = self.client.xadd(self.partition.queue, {"transaction_id": transaction_id})
        self.model.entries[entry_id] = Entry(transaction_id, "", "merchant:")
        if slot is not None:
            self.take(slot, 10)

    @precondition(lambda self: any(entry.owner for entry in self.model.entries.values()))
    @rule(pick=picks)
    def delete_a_consumer(self, pick: int) -> None:
        """`XGROUP DELCONSUMER`: the sweep finds its open transactions, once."""
        names = sorted({e.owner for e in self.model.entries.values() if e.owner})
        name = names[pick % len(names)]
        self.client.xgroup_delconsumer(self.partition.queue, store.GROUP, name)
        lost = []
        for entry_id, entry in list(self.model.entries.items()):
            if entry.owner == name:
                del self.model.entries[entry_id]
                record = self.model.records.get(entry.transaction_id)
                is_newest = record and record.entry == entry_id and not record.final
                if is_newest and entry.transaction_id not in self.model.retries:
                    lost.append(entry.transaction_id)
                else:
                    self.client.xdel(self.partition.queue, entry_id)
        assert Counter(lost) == Counter(self.sweep.step())
        assert self.sweep.step() == []
        self._note_new(len(lost))


def run(
    client: Any, settings: ConnectorSettings, partition: store.Partition, examples_max: int
) -> None:
    """Runs random histories of up to 60 steps."""
    run_state_machine_as_test(
        lambda: Machine(client, settings, partition),  # type: ignore[arg-type]  # it only calls it
        # A failing history is not shrunk, which would take longer than a test may.
        settings=hypothesis_settings(
            max_examples=examples_max,
            stateful_step_count=60,
            deadline=None,
            phases=[Phase.generate],
        ),
    )
