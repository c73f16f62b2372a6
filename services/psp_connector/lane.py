"""The main loop of one partition: reads its queue and starts calls."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import redis
import structlog

from services.common import redis_client
from services.common.store import LEASE_SECONDS
from services.psp_connector.dispatch import BLOCK_MS, Dispatcher
from services.psp_connector.queue import Queue
from services.psp_connector.saver import Saver
from services.psp_connector.slots import Slots

if TYPE_CHECKING:
    from services.psp_connector.connector import Connector

UPKEEP_SECONDS = 1.0
# Interval of promoting due retries under load.
PROMOTE_SECONDS = 0.05
# Due retries wait for a spare slot, but under continuous load no longer than this.
_PROMOTE_LATE_SECONDS = 5.0
_RECONNECT_SECONDS = 0.5

_log = structlog.get_logger()


class Lane:
    """Processes one partition; a failure of its Redis does not delay the others."""

    def __init__(self, queue: Queue, slots: Slots, concurrency: int, connector: Connector) -> None:
        self.slots = slots
        self.saver = Saver(queue, slots, connector.saved)
        self._queue = queue
        self._connector = connector
        self._dispatcher = Dispatcher(queue, slots, concurrency)
        self._next_at: dict[str, float] = {}
        self._renewed_at = math.inf
        self._log = _log.bind(**queue.partition.ids)
        self.last_turn = time.monotonic()
        """Monotonic time of the loop's last successful iteration, for the health check."""

    def run(self) -> None:
        joined = False
        while not self._connector.stopping:
            try:
                if not joined:
                    self._queue.join()
                    joined = True
                self._turn()
                self.last_turn = time.monotonic()
            except Exception as error:  # noqa: BLE001  ends only with the process
                # Redis may have been emptied: create the group again.
                joined = False
                crash = not isinstance(error, redis_client.ERRORS)
                event = "lane crashed" if crash else "Redis unavailable"
                reason = f"{type(error).__name__}: {error}"
                self._log.warning(event, reason=reason, exc_info=crash)
                time.sleep(_RECONNECT_SECONDS)

    def leave(self) -> None:
        """Leaves entries that were not started to other connectors."""
        self.saver.stop()
        try:
            self._dispatcher.leave()
            self._queue.leave()
        except redis_client.ERRORS as error:
            self._log.warning("could not release lease", reason=type(error).__name__)

    def _turn(self) -> None:
        """One iteration: maintenance, then starts calls or waits briefly."""
        if self._is_due("renew", UPKEEP_SECONDS):
            self._queue.renew()
            if time.monotonic() - self._renewed_at > LEASE_SECONDS:
                self._dispatcher.forget()
            self._renewed_at = time.monotonic()
        self._maintain("reclaim", UPKEEP_SECONDS, self._dispatcher.reclaim)
        if self._connector.is_paused():
            self._dispatcher.leave()  # others may reach their PSP
            time.sleep(BLOCK_MS / 1000)
            return
        works = self._dispatcher.next()
        for work in works:
            self._connector.start(self, work)
        if not works:
            # Check soon for entries that other connectors have set aside.
            soon = time.monotonic() + BLOCK_MS / 1000
            self._next_at["reclaim"] = min(self._next_at["reclaim"], soon)
        if self.slots.free or self._is_due("late promotion", _PROMOTE_LATE_SECONDS):
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
            self._log.error("maintenance failed", task=task, reason=str(error))
