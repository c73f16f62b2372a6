"""`python -m bench.queues NAME JOBS THREADS`: fills a job queue, then drains it until a signal.

Each is set up as its documentation advises for throughput without results.
"""

import asyncio
import os
import signal
import sys
from typing import Any

from bench import jobs
from bench.copies import copy_id

_PREFETCH = 100
_WORKER_SECONDS_MAX = 600


def dramatiq(url: str, ids: list[str], threads: int) -> None:
    """One message at a time from a queue that is read ahead."""
    # Read when it is imported.
    os.environ["dramatiq_queue_prefetch"] = str(_PREFETCH)  # noqa: SIM112  its own spelling
    from dramatiq import Actor, Worker  # noqa: PLC0415
    from dramatiq.brokers.redis import RedisBroker  # noqa: PLC0415
    from dramatiq.middleware import default_middleware  # noqa: PLC0415

    # Its metrics would listen on a port.
    middleware = [kind() for kind in default_middleware if kind.__name__ != "Prometheus"]
    broker = RedisBroker(url=url, middleware=middleware)
    actor: Any = Actor(
        jobs.end, broker=broker, actor_name="end", queue_name="bench", priority=0, options={}
    )
    for transaction_id in ids:
        actor.send(transaction_id)
    Worker(broker, worker_threads=threads).start()
    signal.pause()


def huey(url: str, ids: list[str], threads: int) -> None:
    """A list, and threads that wait for it."""
    from huey import RedisHuey  # noqa: PLC0415

    queue = RedisHuey("bench", url=url, results=False, blocking=True)
    task: Any = queue.task()(jobs.end)
    for transaction_id in ids:
        task(transaction_id)
    queue.create_consumer(workers=threads, worker_type="thread", periodic=False).run()


def celery(url: str, ids: list[str], threads: int) -> None:
    """A thread pool; with one thread, the main thread."""
    from celery import Celery  # noqa: PLC0415

    app = Celery("bench", broker=url, set_as_current=True)
    app.conf.update(
        task_ignore_result=True, worker_prefetch_multiplier=_PREFETCH // threads or 1,
        worker_enable_remote_control=False, worker_send_task_events=False,
    )  # fmt: skip
    task: Any = app.task(jobs.end, name="end")
    for transaction_id in ids:
        task.delay(transaction_id)
    pool = ["--pool=solo"] if threads == 1 else ["--pool=threads", f"--concurrency={threads}"]
    quiet = ["--loglevel=ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", *pool, *quiet])


def rq(url: str, ids: list[str], _threads: int) -> None:
    """One job after the other."""
    import redis  # noqa: PLC0415
    from rq import Queue, SimpleWorker  # noqa: PLC0415

    connection = redis.Redis.from_url(url)
    queue = Queue("bench", connection=connection)
    for transaction_id in ids:
        queue.enqueue(jobs.end, transaction_id, result_ttl=0)
    # The one that does not fork for each job: a tenth of the time of the one that does.
    SimpleWorker([queue], connection=connection).work(logging_level="ERROR")


async def taskiq(url: str, ids: list[str], threads: int) -> None:
    """Coroutines over a stream."""
    from taskiq.api import run_receiver_task  # noqa: PLC0415
    from taskiq_redis import RedisStreamBroker  # noqa: PLC0415

    broker = RedisStreamBroker(url)
    task: Any = broker.register_task(jobs.end_async, task_name="end")
    await broker.startup()
    for transaction_id in ids:
        await task.kiq(transaction_id)
    broker.is_worker_process = True
    await run_receiver_task(broker, max_async_tasks=threads, max_prefetch=_PREFETCH)


async def saq(url: str, ids: list[str], threads: int) -> None:
    """Coroutines over a list."""
    from saq import Queue, Worker  # noqa: PLC0415

    queue: Any = Queue.from_url(url, name="bench")
    await queue.connect()
    for transaction_id in ids:
        await queue.enqueue("end_by_saq", transaction_id=transaction_id, ttl=-1)
    worker: Any = Worker(queue, functions=[jobs.end_by_saq], concurrency=threads)
    await worker.start()


def main(name: str, count: str, threads: str) -> None:
    """Fills the queue, then works."""
    signal.alarm(_WORKER_SECONDS_MAX)
    ids = [copy_id(n) for n in range(int(count))]
    run = globals()[name](os.environ["REDIS_URL"], ids, int(threads))
    if asyncio.iscoroutine(run):
        asyncio.run(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
