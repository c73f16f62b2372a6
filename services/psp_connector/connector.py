"""The PSP Connector's main loop: reads the queue, charges, and saves the results."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import redis
import structlog
from structlog.contextvars import bind_contextvars, clear_contextvars

from services.common import tracing
from services.common.currencies import major_units
from services.psp_connector.dispatch import BLOCK_MS, Dispatcher
from services.psp_connector.metrics import Attempts
from services.psp_connector.psp import Captured, Declined, Outcome, Refused, Transient, text
from services.psp_connector.queue import LEASE_SECONDS, Queue
from services.psp_connector.results import FinalResult, Result, RetryResult
from services.psp_connector.saver import Attempt, Saver
from services.psp_connector.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from services.psp_connector.backoff import Backoff
    from services.psp_connector.breaker import Breaker
    from services.psp_connector.psp import PSP
    from services.psp_connector.records import Work

UPKEEP_SECONDS = 1.0
# Interval of promoting due retries under load.
PROMOTE_SECONDS = 0.05
# Due retries wait for a spare slot, but under continuous load no longer than this.
_PROMOTE_LATE_SECONDS = 5.0
_RECONNECT_SECONDS = 0.5

_log = structlog.get_logger()


class Connector:
    """Charges queued transactions until `stop`."""

    def __init__(
        self,
        queue: Queue,
        psp: PSP,
        breaker: Breaker,
        backoff: Backoff,
        *,
        concurrency: int,
        attempts_max: int,
        metrics: Attempts | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._queue = queue
        self._psp = psp
        self._breaker = breaker
        self._backoff = backoff
        self._attempts_max = attempts_max
        self._metrics = metrics or Attempts()
        self._sleep = sleep
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="charge")
        self._saver = Saver(queue, self)
        self._slots = Slots(lambda: breaker.allowed)
        self._dispatcher = Dispatcher(queue, self._slots, concurrency)
        self._probing: Future[None] | None = None
        # Not an Event: setting one in a signal handler deadlocks if the interrupted thread holds
        # the Event's lock.
        self._stopping = False
        self._next_at: dict[str, float] = {}
        self._renewed_at = math.inf
        self.last_turn = time.monotonic()
        """Monotonic time of the main loop's last iteration, for the health check."""

    def run(self) -> None:
        """Runs until `stop`; survives Redis outages."""
        self._saver.start()
        joined = False
        while not self._stopping:
            try:
                if not joined:
                    self._queue.join()
                    joined = True
                self._turn()
            except redis.RedisError as error:
                # Redis may have been emptied: create the group again.
                joined = False
                _log.warning("Redis unavailable", reason=f"{type(error).__name__}: {error}")
                self._sleep(_RECONNECT_SECONDS)
            self.last_turn = time.monotonic()

    def stop(self) -> None:
        """Stops starting calls; `drain` waits for those in flight."""
        self._stopping = True

    def drain(self, seconds_max: float) -> int:
        """Waits for calls in flight, then leaves; returns the number of unfinished ones."""
        unfinished = self._slots.wait_idle(seconds_max)
        self._saver.stop()
        try:
            self._dispatcher.leave()
            self._queue.leave()
        except redis.RedisError as error:
            _log.warning("could not release lease", reason=type(error).__name__)
        return unfinished

    def _turn(self) -> None:
        """One iteration: maintenance, then starts calls or waits briefly."""
        if self._is_due("renew", UPKEEP_SECONDS):
            self._queue.renew()
            if time.monotonic() - self._renewed_at > LEASE_SECONDS:
                self._dispatcher.forget()
            self._renewed_at = time.monotonic()
        self._maintain("reclaim", UPKEEP_SECONDS, self._reclaim)
        self._maintain("sweep", UPKEEP_SECONDS, self._sweep)
        if self._breaker.allowed == 0:
            if self._probing is None or self._probing.done():
                self._probing = self._pool.submit(self._probe)
            self._sleep(BLOCK_MS / 1000)
            return
        works = self._dispatcher.next()
        self._start(works)
        if not works:
            # Look soon for entries that other connectors have set aside.
            soon = time.monotonic() + BLOCK_MS / 1000
            self._next_at["reclaim"] = min(self._next_at["reclaim"], soon)
        if self._slots.free or self._is_due("late promotion", _PROMOTE_LATE_SECONDS):
            self._next_at["late promotion"] = time.monotonic() + _PROMOTE_LATE_SECONDS
            self._maintain("promote", PROMOTE_SECONDS, self._queue.promote)

    def _is_due(self, task: str, seconds: float) -> bool:
        now = time.monotonic()
        if now < self._next_at.get(task, 0.0):
            return False
        self._next_at[task] = now + seconds
        return True

    def _maintain(self, task: str, seconds: float, do: Callable[[], object]) -> None:
        """Runs a task if due. A corrupt key in Redis must not stop the rest."""
        if not self._is_due(task, seconds):
            return
        try:
            do()
        except redis.ResponseError as error:
            self._next_at[task] = time.monotonic() + UPKEEP_SECONDS
            _log.error("maintenance failed", task=task, reason=str(error))

    def _probe(self) -> None:
        """Runs in a thread: a probe of a hanging PSP takes longer than the lease."""
        if self._breaker.probe(self._psp.is_available):
            _log.info("PSP available again")

    def _reclaim(self) -> None:
        for entry in self._dispatcher.reclaim():
            _log.info(
                "reclaimed",
                request_id=entry.fields.get("request_id", "")[:64],
                transaction_id=entry.transaction_id,
            )

    def _sweep(self) -> None:
        for transaction_id in self._queue.sweep():
            _log.warning("orphaned transaction requeued", transaction_id=transaction_id)

    def _start(self, works: list[Work]) -> None:
        self._slots.occupy(works)
        for work in works:
            self._pool.submit(self._process, work)

    def _process(self, work: Work) -> None:
        bind_contextvars(**work.ids)
        try:
            with work.span.active():
                started = time.perf_counter()
                outcome = self._charge(work)
                seconds = time.perf_counter() - started
                self._metrics.called(seconds)
                self._report(outcome)
                result = self._result(work, outcome)
                saving = tracing.span("retry" if isinstance(result, RetryResult) else "finish")
            self._saver.put(Attempt(work, result, round(seconds * 1000, 2), saving))
        except Exception:  # noqa: BLE001  the other transactions go on
            # The entry stays pending for this connector, which reclaims it.
            _log.exception("attempt crashed")
            work.span.end("attempt crashed")
            self._slots.release([work])
        finally:
            clear_contextvars()

    def _charge(self, work: Work) -> Outcome:
        try:
            return self._psp.charge(work.charge)
        except Exception as error:  # noqa: BLE001  a client library may raise anything
            # Counts as an attempt, so the number of retries is bounded.
            _log.exception("charge crashed")
            return Transient(f"{type(error).__name__} in the connector")

    def _report(self, outcome: Outcome) -> None:
        """Reports the outcome to the breaker, and checks the PSP if the breaker requests it."""
        if not isinstance(outcome, Transient):
            self._breaker.succeeded()
        elif self._breaker.failed() and self._breaker.check(self._psp.is_available):
            _log.warning("PSP unavailable, charging paused")

    def _result(self, work: Work, outcome: Outcome) -> Result:
        if isinstance(outcome, Transient) and work.attempt < self._attempts_max:
            delay = self._backoff.delay_seconds(work.attempt, outcome.retry_after_seconds)
            return RetryResult(text(outcome.reason), delay)
        return _final_result(work, outcome)

    def saved(self, attempts: list[tuple[Attempt, bool]]) -> None:
        """Called by the saver for results written to Redis."""
        for attempt, effective in attempts:
            result = attempt.result
            if isinstance(result, RetryResult):
                outcome = "retry"
                details: dict[str, Any] = {"delay_seconds": round(result.delay_seconds, 2)}
            else:
                outcome = result.status
                code = {"decline_code": result.decline_code} if result.decline_code else {}
                details = {"points": result.points, **code}
            self._metrics.ended(outcome)
            _log.info(
                "attempt", **attempt.work.ids, attempt=attempt.work.attempt,
                psp_ms=attempt.psp_ms, outcome=outcome, reason=result.reason, **details,
                effective=effective,
            )  # fmt: skip
            attempt.span.end()
            attempt.work.span.set({"platform.outcome": outcome})
            attempt.work.span.end(result.reason)
        self._slots.release([attempt.work for attempt, _ in attempts])

    def lost(self, attempt: Attempt) -> None:
        """Called by the saver for a result it gave up on."""
        attempt.span.end("could not save result")
        attempt.work.span.end("could not save result")
        self._slots.release([attempt.work])


def _final_result(work: Work, outcome: Outcome) -> FinalResult:
    match outcome:
        case Captured(reference):
            points = major_units(work.charge.amount, work.charge.currency)
            return FinalResult("captured", psp_reference=text(reference), points=points)
        case Declined(code, reference):
            return FinalResult("declined", psp_reference=text(reference), decline_code=text(code))
        case Refused(reason):
            return FinalResult("failed", reason=f"refused by the PSP: {text(reason)}")
        case Transient(reason):
            reason = f"given up after {work.attempt} attempts: {text(reason)}"
            return FinalResult("failed", reason=reason)
