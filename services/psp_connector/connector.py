"""The PSP Connector's work: takes transactions from the queue, charges them, ends them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import redis
import structlog

from services.currencies import major_units
from services.psp_connector.metrics import Attempts
from services.psp_connector.psp import Captured, Declined, Outcome, Refused, Transient
from services.psp_connector.queue import Ending, Queue, Work

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from services.psp_connector.backoff import Backoff
    from services.psp_connector.breaker import Breaker
    from services.psp_connector.psp import PSP

# How long a read of the queue waits; retries that fall due are looked for in between.
BLOCK_MS = 200
UPKEEP_SECONDS = 1.0
# An ending that Redis does not take is tried so often (for 30 s and more); then it stays with the
# connector's lost entries, and is charged again under the same idempotency key.
_SAVE_TRIES_MAX = 60
_SAVE_PAUSE_SECONDS = 0.5

_log = structlog.get_logger()


class Connector:
    """Runs until it is told to stop."""

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
        self._in_hand: set[str] = set()
        self._changed = threading.Condition()
        self._probing: Future[None] | None = None
        # No Event: setting one in a signal handler waits for ever if the signal came while this
        # very thread had the Event's lock.
        self._stopping = False
        self._upkeep_at = 0.0
        self.last_turn = time.monotonic()
        """When the main loop last came round; health looks at it."""

    def run(self) -> None:
        """Works until `stop`; Redis may come and go."""
        joined = False
        while not self._stopping:
            try:
                if not joined:
                    self._queue.join()
                    joined = True
                self._turn()
            except redis.RedisError as error:
                # Away, or emptied by somebody: the group has to be made again.
                joined = False
                _log.warning("queue not reached", reason=f"{type(error).__name__}: {error}")
                self._sleep(_SAVE_PAUSE_SECONDS)
            self.last_turn = time.monotonic()

    def stop(self) -> None:
        """Takes nothing more; `drain` waits for what is in hand."""
        self._stopping = True

    def drain(self, seconds_max: float) -> int:
        """Waits for the work in hand, then leaves; returns how much was left to the others."""
        deadline = time.monotonic() + seconds_max
        with self._changed:
            self._changed.wait_for(lambda: not self._in_hand, deadline - time.monotonic())
            left = len(self._in_hand)
        try:
            self._queue.leave()
        except redis.RedisError as error:
            _log.warning("left without a word", reason=type(error).__name__)
        return left

    def _turn(self) -> None:
        """Fills the free hands once, or waits a little when there are none."""
        self._upkeep()
        free = self._breaker.allowed - len(self._in_hand)
        if self._breaker.allowed == 0:
            if self._probing is None or self._probing.done():
                self._probing = self._pool.submit(self._probe)
            self._sleep(BLOCK_MS / 1000)
        elif free <= 0:
            with self._changed:
                self._changed.wait(BLOCK_MS / 1000)
        else:
            self._queue.promote()
            self._start(self._queue.take(free, BLOCK_MS))

    def _probe(self) -> None:
        """In a thread: a PSP that hangs takes longer to ask than the lease lasts."""
        if self._breaker.probe(self._psp.answers):
            _log.info("PSP answers again")

    def _upkeep(self) -> None:
        if time.monotonic() < self._upkeep_at:
            return
        self._upkeep_at = time.monotonic() + UPKEEP_SECONDS
        self._queue.renew()
        free = self._breaker.allowed - len(self._in_hand)
        if free > 0:
            with self._changed:
                in_hand = frozenset(self._in_hand)
            works = self._queue.take_over(free, in_hand)
            for work in works:
                charge = work.charge
                _log.info(
                    "taken over",
                    request_id=charge.request_id,
                    transaction_id=charge.transaction_id,
                )
            self._start(works)

    def _start(self, works: list[Work]) -> None:
        with self._changed:
            self._in_hand.update(work.entry_id for work in works)
        for work in works:
            self._pool.submit(self._process, work)

    def _process(self, work: Work) -> None:
        try:
            started = time.perf_counter()
            outcome = self._psp.charge(work.charge)
            seconds = time.perf_counter() - started
            self._metrics.called(seconds)
            opened = self._tell_breaker(outcome)
            self._save(work, outcome, round(seconds * 1000, 2))
            if opened:
                _log.warning("PSP does not answer, charging pauses")
        except Exception:  # noqa: BLE001  whatever it was, the other transactions go on
            # The entry stays in the queue under this connector's name, and is taken up again.
            _log.exception(
                "attempt broke off",
                request_id=work.charge.request_id,
                transaction_id=work.charge.transaction_id,
            )
        finally:
            with self._changed:
                self._in_hand.discard(work.entry_id)
                self._changed.notify_all()

    def _tell_breaker(self, outcome: Outcome) -> bool:
        if isinstance(outcome, Transient):
            return self._breaker.failed()
        self._breaker.succeeded()
        return False

    def _save(self, work: Work, outcome: Outcome, psp_ms: float) -> None:
        log = _log.bind(
            request_id=work.charge.request_id,
            transaction_id=work.charge.transaction_id,
            attempt=work.attempt,
            psp_ms=psp_ms,
        )
        for _try in range(_SAVE_TRIES_MAX):
            try:
                self._save_once(work, outcome, log)
            except redis.RedisError as error:
                log.warning("outcome not saved yet", reason=type(error).__name__)
                self._sleep(_SAVE_PAUSE_SECONDS)
            else:
                return
        log.error("outcome not saved, the transaction will be tried again")

    def _save_once(
        self, work: Work, outcome: Outcome, log: structlog.typing.FilteringBoundLogger
    ) -> None:
        if isinstance(outcome, Transient) and work.attempt < self._attempts_max:
            delay = self._backoff.delay_seconds(work.attempt, outcome.retry_after_seconds)
            done = self._queue.retry(work, outcome.reason, delay)
            self._metrics.ended("retry")
            log.info(
                "attempt", outcome="retry", reason=outcome.reason, delay_seconds=round(delay, 2),
                effective=done,
            )  # fmt: skip
            return
        ending = _ending(work, outcome)
        done = self._queue.finish(work, ending)
        self._metrics.ended(ending.status)
        log.info(
            "attempt", outcome=ending.status, reason=ending.reason, points=ending.points,
            effective=done,
        )  # fmt: skip


def _ending(work: Work, outcome: Outcome) -> Ending:
    match outcome:
        case Captured(reference):
            points = major_units(work.charge.amount, work.charge.currency)
            return Ending("captured", psp_reference=reference, points=points)
        case Declined(code, reference):
            return Ending("declined", psp_reference=reference, decline_code=code)
        case Refused(reason):
            return Ending("failed", reason=f"refused by the PSP: {reason}")
        case Transient(reason):
            return Ending("failed", reason=f"given up after {work.attempt} attempts: {reason}")
