"""The state machine's rules for normal operation: payments and attempts."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
)

from services.common.currencies import major_units
from services.common.problems import Problem
from services.core_api.models import TransactionRequest
from services.psp_connector.records import Entry as QueueEntry
from services.psp_connector.records import FinalResult, RetryResult
from tests.psp_connector.model import CONNECTORS, USERS, Call, Checked, Record

HOUR = 3600
MONEY = ((1250, "USD"), (500, "JPY"), (99, "EUR"), (2999, "BHD"))

slots = st.integers(0, CONNECTORS - 1)
counts = st.integers(1, 4)
picks = st.integers(0, 30)
delays = st.sampled_from([0, 0, 30])
responses = st.sampled_from(["capture", "decline", "refuse", "fail", "fail", "lose the response"])


class Working(Checked):
    """A Core API and three connectors."""

    # The Core API

    @initialize(users=st.lists(st.sampled_from(USERS), min_size=4, max_size=10))
    def accept_some(self, users: list[int]) -> None:
        """Without payments, most other rules would have nothing to do."""
        for user_id in users:
            self.accept(user_id, MONEY[user_id], None)

    @rule(
        user_id=st.sampled_from(USERS),
        money=st.sampled_from(MONEY),
        key=st.sampled_from([None, None, "a", "{b}"]),
    )
    def accept(self, user_id: int, money: tuple[int, str], key: str | None) -> None:
        payment = TransactionRequest(amount=money[0], currency=money[1])
        known = self.keys.get((user_id, key)) if key else None
        if known and known[0] != money:
            with pytest.raises(Problem, match="422"):
                self.transactions.accept(user_id, payment, "req", key)
            return
        accepted = self.transactions.accept(user_id, payment, "req", key)
        assert (known is not None) == accepted.replayed
        if known:
            assert known[1] == accepted.transaction_id
            return
        if key:
            self.keys[user_id, key] = (money, accepted.transaction_id)
        self.model.records[accepted.transaction_id] = Record(user_id, *money)
        self._note_new(1)

    @rule(seconds=st.integers(0, 90) | st.sampled_from([-2 * HOUR, -HOUR // 2, 2 * HOUR]))
    def time_passes(self, seconds: int) -> None:
        """Moves the clock, within a day: later attempts are refused."""
        self.now = min(max(self.now + seconds, self.began - 3 * HOUR), self.began + 6 * HOUR)

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
        assert self.model.assign(undelivered, queue.name) == [entry.id for entry in entries]
        return entries

    @rule(slot=slots, count=counts, started=counts)
    def take(self, slot: int, count: int, started: int = 10) -> None:
        """Entries of a merchant above its share are set aside."""
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
        expected = self.model.assign(aside[:count], self.connectors[slot].name)
        assert expected == [entry.id for entry in entries]
        self._begin(slot, entries)

    @rule(slot=slots)
    def reclaim(self, slot: int) -> None:
        """Entries of dead connectors, and its own that are not in flight, are set aside."""
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
        queue.reclaim(in_flight)
        for entry_id in expected:
            self.model.entries[entry_id].owner = self.model.entries[entry_id].merchant

    def take_over(self, slot: int) -> None:
        self.reclaim(slot)
        for merchant in ("", *map(str, USERS)):
            self.claim(slot, 10, merchant)

    def _lives(self, name: str) -> bool:
        return bool(self.client.exists(self.partition.lease(name)))

    @rule(slot=slots, count=counts, how=responses, delay_seconds=delays)
    def work(self, slot: int, count: int, how: str, delay_seconds: int) -> None:
        """All steps of a connector when nothing fails."""
        self.promote(slot, count)
        self.take(slot, count)
        self._end(slot, how, delay_seconds)

    def _end(self, slot: int, how: str, delay_seconds: int) -> None:
        for call in [call for call in self.calls if call.slot == slot]:
            self._charge(call, how)
            self._save(call, delay_seconds)

    @precondition(lambda self: self.calls)
    @rule(pick=picks, how=responses)
    def charge(self, pick: int, how: str) -> None:
        self._charge(self.calls[pick % len(self.calls)], how)

    def _charge(self, call: Call, how: str) -> None:
        """Charges at the PSP, whose decision for a transaction never changes."""
        if call.result:
            return
        transaction_id = call.work.charge.transaction_id
        decided = self.model.decided
        if how in {"capture", "lose the response"}:
            decided.setdefault(transaction_id, "captured")
        elif how == "decline":
            decided.setdefault(transaction_id, "declined")
        if how in {"fail", "lose the response"}:
            call.result = "transient"
        else:
            call.result = decided.get(transaction_id, "failed")

    @precondition(lambda self: any(call.result for call in self.calls))
    @rule(pick=picks, delay_seconds=delays)
    def save(self, pick: int, delay_seconds: int) -> None:
        charged = [call for call in self.calls if call.result]
        self._save(charged[pick % len(charged)], delay_seconds)

    def _save(self, call: Call, delay_seconds: int) -> None:
        """Saves the result or schedules a retry, however late."""
        self.calls.remove(call)
        work = call.work
        if call.result == "transient" and work.attempt < self.settings.psp_attempts_max:
            due_ms = int(self.now * 1000) + delay_seconds * 1000
            expected = self.model.retry(call, due_ms)
            assert [expected] == call.queue.save([(work, RetryResult("HTTP 500", delay_seconds))])
            return
        status = "failed" if call.result == "transient" else call.result
        points = major_units(work.charge.amount, work.charge.currency)
        ending = FinalResult(
            status,
            points=points if status == "captured" else 0,
            reason="for the test" if status == "failed" else "",
        )
        expected = self.model.finish(call, status)
        assert [expected] == call.queue.save([(work, ending)])

    @rule(slot=slots, count=counts, set_back_seconds=st.sampled_from([0, 0, 2 * HOUR]))
    def promote(self, slot: int, count: int, set_back_seconds: int = 0) -> None:
        """The clock may have been set back before."""
        self.time_passes(-set_back_seconds)
        now_ms, waiting = (
            int(self.now * 1000),
            sorted((t, i) for i, t in self.model.retries.items()),
        )
        # The clock was set back if one is due later than the longest wait.
        misled = [(at, i) for at, i in waiting if at > now_ms + HOUR * 1000]
        due = [*[(at, i) for at, i in waiting if at <= now_ms], *misled][:count]
        assert len(due) == self.connectors[slot].promote(count)
        assert [i for _, i in due] == [e.transaction_id for _, e in self._newest(len(due))]
        self._note_new(len(due))
        for _, transaction_id in due:
            del self.model.retries[transaction_id]
