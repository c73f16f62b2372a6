"""The PSP Connector: charges what the lanes of its partitions read from their queues."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars, clear_contextvars

from services.common import redis_client, tracing
from services.common.currencies import major_units
from services.psp_connector.backoff import Backoff
from services.psp_connector.breaker import Breaker
from services.psp_connector.lane import UPKEEP_SECONDS, Lane
from services.psp_connector.metrics import Attempts
from services.psp_connector.psp import PSP, Captured, Declined, Outcome, Refused, Transient, text
from services.psp_connector.queue import Queue
from services.psp_connector.records import FinalResult, Result, RetryResult, Work
from services.psp_connector.saver import Attempt
from services.psp_connector.slots import Slots
from services.psp_connector.sweep import Sweep

# Minimum time to leave the partitions, even if calls in flight used up the grace period.
_LEAVE_SECONDS = 0.5
_START_SECONDS_MAX = 10.0

_log = structlog.get_logger()


class Connector:
    """Charges queued transactions until `stop`."""

    def __init__(
        self,
        queues: Sequence[Queue],
        sweep: Sweep,
        psp: PSP,
        breaker: Breaker,
        backoff: Backoff,
        *,
        concurrency: int,
        attempts_max: int,
    ) -> None:
        self._sweep = sweep
        self._psp = psp
        self._breaker = breaker
        self._backoff = backoff
        self._attempts_max = attempts_max
        self.metrics = Attempts()
        self.metrics.paused.set_function(lambda: not breaker.calls_max)
        self._concurrency = concurrency
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="charge")
        # Not an Event: setting one in a signal handler deadlocks if the interrupted thread holds
        # the Event's lock.
        self.stopping = False
        slots = Slots(lambda: breaker.calls_max)
        views = [slots, *(slots.sibling() for _ in queues[1:])]
        self._lanes = [
            Lane(queue, view, concurrency, self) for queue, view in zip(queues, views, strict=True)
        ]

    @property
    def last_turn(self) -> float:
        """Monotonic time of the least recent turn among the lanes, for the health check."""
        return min(lane.last_turn for lane in self._lanes)

    def run(self) -> None:
        """Works until `stop`; exits with 1 if the system refuses a thread."""
        try:
            _start_all(self._pool, self._concurrency)
            _thread("sweep", self._sweeping)
            for lane in self._lanes:
                lane.saver.start()
            threads = [_thread("lane", lane.run) for lane in self._lanes[1:]]
        except RuntimeError as error:
            _log.error("cannot start threads", concurrency=self._concurrency, reason=repr(error))
            self.stop()
            sys.exit(1)
        self._lanes[0].run()
        _join(threads, _LEAVE_SECONDS)

    def stop(self) -> None:
        """Stops starting calls; `drain` waits for those in flight."""
        self.stopping = True

    def drain(self, seconds_max: float) -> int:
        """Waits for calls in flight, then leaves; returns the number of unfinished ones."""
        deadline = time.monotonic() + seconds_max
        unfinished = self._lanes[0].slots.wait_idle(seconds_max)
        threads = [_thread("leave", lane.leave) for lane in self._lanes]
        _join(threads, max(deadline - time.monotonic(), _LEAVE_SECONDS))
        return unfinished

    def _sweeping(self) -> None:
        while not self.stopping:
            try:
                for transaction_id in self._sweep.step():
                    _log.warning("orphaned transaction requeued", transaction_id=transaction_id)
            except Exception as error:  # noqa: BLE001  ends only with the process
                crash = not isinstance(error, redis_client.ERRORS)
                _log.error("maintenance failed", task="sweep", reason=str(error), exc_info=crash)
            time.sleep(UPKEEP_SECONDS)

    def is_paused(self) -> bool:
        """Whether nothing may be charged now; probes the PSP if it is due."""
        if self._breaker.is_due():
            self._pool.submit(self._probe)
        return not self._breaker.calls_max

    def _probe(self) -> None:
        """Runs in a thread: a probe of a hanging PSP takes longer than the lease."""
        self._check("no response to a probe")

    def _check(self, reason: str) -> None:
        change = self._breaker.check(self._psp.is_available)
        if change == "opened":
            _log.warning("PSP unavailable, charging paused", reason=reason)
        elif change:
            _log.info("PSP available again")

    def start(self, lane: Lane, work: Work) -> None:
        self._pool.submit(self._process, lane, work)

    def _process(self, lane: Lane, work: Work) -> None:
        bind_contextvars(**work.ids)
        try:
            with tracing.use(work.span, end=False):
                started = time.perf_counter()
                outcome = self._charge(work)
                seconds = time.perf_counter() - started
                self.metrics.seconds.observe(seconds)
                self._report(work, outcome)
                result = self._result(work, outcome)
                saving = tracing.span("retry" if isinstance(result, RetryResult) else "finish")
            lane.saver.put(Attempt(work, result, round(seconds * 1000, 2), saving))
        except Exception:  # noqa: BLE001  must not stop the others
            # The entry stays pending for this connector, which reclaims it.
            _log.exception("attempt crashed")
            tracing.end(work.span, "attempt crashed")
            lane.slots.release([work])
        finally:
            clear_contextvars()

    def _charge(self, work: Work) -> Outcome:
        try:
            return self._psp.charge(work.charge)
        except Exception as error:  # noqa: BLE001  a client library may raise anything
            # Counts as an attempt, so the number of retries is bounded.
            _log.exception("charge crashed")
            return Transient(f"{type(error).__name__} in the connector")

    def _is_last(self, work: Work) -> bool:
        return work.attempt >= self._attempts_max

    def _report(self, work: Work, outcome: Outcome) -> None:
        if isinstance(outcome, Refused) and not outcome.is_sent:
            return
        if not isinstance(outcome, Transient):
            self._breaker.succeeded()
        elif self._breaker.failed(is_last=self._is_last(work)):
            self._check(text(outcome.reason))

    def _result(self, work: Work, outcome: Outcome) -> Result:
        # While the PSP is down, not even the last attempt is final.
        is_final = self._is_last(work) and self._breaker.calls_max
        if isinstance(outcome, Transient) and not is_final:
            delay = self._backoff.delay_seconds(work.attempt, outcome.retry_after_seconds)
            return RetryResult(text(outcome.reason), delay, outcome.is_unseen)
        return _final_result(work, outcome)

    def saved(self, attempts: list[tuple[Attempt, bool]]) -> None:
        """Logs and counts saved results, each with whether it had an effect."""
        for attempt, effective in attempts:
            result = attempt.result
            if isinstance(result, RetryResult):
                outcome = "retry"
                details: dict[str, Any] = {"delay_seconds": round(result.delay_seconds, 2)}
            else:
                outcome = result.status
                code = {"decline_code": result.decline_code} if result.decline_code else {}
                details = {"points": result.points, **code}
            self.metrics.outcomes.labels(outcome).inc()
            _log.info(
                "attempt", **attempt.work.ids, attempt=attempt.work.attempt,
                psp_ms=attempt.psp_ms, outcome=outcome, reason=result.reason, **details,
                effective=effective,
            )  # fmt: skip
            attempt.span.end()
            attempt.work.span.set_attribute("platform.outcome", outcome)
            tracing.end(attempt.work.span, result.reason)


def _final_result(work: Work, outcome: Outcome) -> FinalResult:
    match outcome:
        case Captured(reference):
            points = major_units(work.charge.amount, work.charge.currency)
            return FinalResult("captured", psp_reference=text(reference), points=points)
        case Declined(code, reference):
            return FinalResult("declined", psp_reference=text(reference), decline_code=text(code))
        case Refused(reason, is_sent):
            what = "refused by the PSP" if is_sent else "not sent to the PSP"
            return FinalResult("failed", reason=f"{what}: {text(reason)}")
        case Transient(reason):
            attempts = "1 attempt" if work.attempt == 1 else f"{work.attempt} attempts"
            reason = f"given up after {attempts}: {text(reason)}"
            return FinalResult("failed", reason=reason)


def _start_all(pool: ThreadPoolExecutor, count: int) -> None:
    """Starts all threads of the pool; raises RuntimeError if there cannot be so many.

    The pool would start one when work comes, and keep the work if that fails.
    """
    started = threading.Barrier(count)
    try:
        waits = [pool.submit(started.wait, _START_SECONDS_MAX) for _ in range(count)]
        for wait in waits:
            wait.result()
    except RuntimeError:
        started.abort()
        raise


def _thread(name: str, target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def _join(threads: Sequence[threading.Thread], seconds_max: float) -> None:
    """Waits for all threads, at most `seconds_max` altogether."""
    deadline = time.monotonic() + seconds_max
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
