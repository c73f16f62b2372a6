"""The PSP Connector's work: takes transactions from the queue, charges them, ends them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import redis
import structlog

from services.currencies import major_units
from services.psp_connector.metrics import Attempts
from services.psp_connector.psp import Captured, Declined, Outcome, Refused, Transient
from services.psp_connector.queue import Ending, Later, Queue, Result, Work
from services.psp_connector.saver import Attempt, Saver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from services.psp_connector.backoff import Backoff
    from services.psp_connector.breaker import Breaker
    from services.psp_connector.psp import PSP

# How long a read of the queue waits; retries that fall due are looked for in between.
BLOCK_MS = 200
UPKEEP_SECONDS = 1.0
# Between looks for retries that have fallen due, while entries come without a pause.
PROMOTE_SECONDS = 0.05
# With half of its hands full a connector waits so long for more to come free, and takes as many
# entries in one go: reading one by one would cost a fast PSP's connector more than the charges.
_GATHER_SECONDS = 0.002
_AWAY_PAUSE_SECONDS = 0.5

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
        self._saver = Saver(queue, self)
        self._in_hand: set[str] = set()
        self._changed = threading.Condition()
        self._probing: Future[None] | None = None
        # No Event: setting one in a signal handler waits for ever if the signal came while this
        # very thread had the Event's lock.
        self._stopping = False
        self._renew_at = 0.0
        self._look_at = 0.0
        self._promote_at = 0.0
        self.last_turn = time.monotonic()
        """When the main loop last came round; health looks at it."""

    def run(self) -> None:
        """Works until `stop`; Redis may come and go."""
        self._saver.start()
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
                self._sleep(_AWAY_PAUSE_SECONDS)
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
        self._saver.stop()
        try:
            self._queue.leave()
        except redis.RedisError as error:
            _log.warning("left without a word", reason=type(error).__name__)
        return left

    def _turn(self) -> None:
        """Fills the free hands once, or waits a little when there are none."""
        self._renew()
        if self._breaker.allowed == 0:
            if self._probing is None or self._probing.done():
                self._probing = self._pool.submit(self._probe)
            self._sleep(BLOCK_MS / 1000)
        elif free := self._free_hands():
            # First, or with never a hand free for it the dead would wait as long as there is work.
            free -= self._take_over(free)
            if not free:
                return
            if time.monotonic() >= self._promote_at:
                self._promote_at = time.monotonic() + PROMOTE_SECONDS
                self._queue.promote()
            self._start(self._queue.take(free, BLOCK_MS))

    def _free_hands(self) -> int:
        """How many may be taken; waits a little while there are none or few."""

        def free() -> int:
            return self._breaker.allowed - len(self._in_hand)

        with self._changed:
            self._changed.wait_for(lambda: free() > 0, BLOCK_MS / 1000)
            self._changed.wait_for(lambda: 2 * free() > self._breaker.allowed, _GATHER_SECONDS)
            return max(free(), 0)

    def _probe(self) -> None:
        """In a thread: a PSP that hangs takes longer to ask than the lease lasts."""
        if self._breaker.probe(self._psp.answers):
            _log.info("PSP answers again")

    def _renew(self) -> None:
        if time.monotonic() >= self._renew_at:
            self._renew_at = time.monotonic() + UPKEEP_SECONDS
            self._queue.renew()

    def _take_over(self, free: int) -> int:
        """Looks for entries of the dead, when it is time to; returns how many it took."""
        if time.monotonic() < self._look_at:
            return 0
        self._look_at = time.monotonic() + UPKEEP_SECONDS
        with self._changed:
            in_hand = frozenset(self._in_hand)
        works = self._queue.take_over(free, in_hand)
        for work in works:
            charge = work.charge
            _log.info(
                "taken over", request_id=charge.request_id, transaction_id=charge.transaction_id
            )
        self._start(works)
        return len(works)

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
            if self._tell_breaker(outcome):
                _log.warning("PSP does not answer, charging pauses")
            self._saver.put(Attempt(work, self._result(work, outcome), round(seconds * 1000, 2)))
        except Exception:  # noqa: BLE001  whatever it was, the other transactions go on
            # The entry stays in the queue under this connector's name, and is taken up again.
            _log.exception(
                "attempt broke off",
                request_id=work.charge.request_id,
                transaction_id=work.charge.transaction_id,
            )
            self._out_of_hand([work])

    def _tell_breaker(self, outcome: Outcome) -> bool:
        if isinstance(outcome, Transient):
            return self._breaker.failed()
        self._breaker.succeeded()
        return False

    def _result(self, work: Work, outcome: Outcome) -> Result:
        if isinstance(outcome, Transient) and work.attempt < self._attempts_max:
            delay = self._backoff.delay_seconds(work.attempt, outcome.retry_after_seconds)
            return Later(outcome.reason, delay)
        return _ending(work, outcome)

    def saved(self, attempts: list[tuple[Attempt, bool]]) -> None:
        """For the saver: these are in Redis."""
        for attempt, effective in attempts:
            result = attempt.result
            if isinstance(result, Later):
                outcome = "retry"
                details: dict[str, Any] = {"delay_seconds": round(result.delay_seconds, 2)}
            else:
                outcome = result.status
                code = {"decline_code": result.decline_code} if result.decline_code else {}
                details = {"points": result.points, **code}
            self._metrics.ended(outcome)
            charge = attempt.work.charge
            _log.info(
                "attempt", request_id=charge.request_id, transaction_id=charge.transaction_id,
                attempt=attempt.work.attempt, psp_ms=attempt.psp_ms, outcome=outcome,
                reason=result.reason, **details, effective=effective,
            )  # fmt: skip
        self._out_of_hand([attempt.work for attempt, _ in attempts])

    def lost(self, attempt: Attempt) -> None:
        """For the saver: Redis does not take this one."""
        self._out_of_hand([attempt.work])

    def _out_of_hand(self, works: Sequence[Work]) -> None:
        with self._changed:
            self._in_hand.difference_update(work.entry_id for work in works)
            self._changed.notify_all()


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
