import contextlib
import os
import re
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import falcon.testing
import psutil
import pytest

from services.common import redis_client, store
from services.common.settings import HttpSettings
from services.common.web import make_app
from services.psp_connector import metrics
from services.psp_connector.app import create_app
from services.psp_connector.metrics import Attempts
from services.psp_connector.settings import ConnectorSettings
from tests.support import CLOSED_PORT, call, http, service, wait_until


def value(text: str, sample: str) -> float:
    """The sum of the samples with this prefix."""
    samples = re.findall(rf"^{re.escape(sample)}[^ ]* ([0-9.e+]+)$", text, re.MULTILINE)
    return sum(float(number) for number in samples)


LOCAL = {"Host": "localhost"}
UNAUTHORIZED = 'http_request_duration_seconds_count{method="GET",route="/",status="401"}'


def ask(url: str) -> None:
    """Sends 20 requests, each on its own connection, so that all workers get some."""
    for _ in range(20):
        assert http.get(f"{url}/").status_code == 401


def test_counts_outlive_the_workers_and_not_the_service(tmp_path: Path) -> None:
    """One scrape has the counts of all workers, including killed ones, in a file per slot.

    No character of the folder's path is taken for a pattern.
    """
    files = tmp_path / "[work]*/metrics"
    state = {"PLATFORM_STATE": str(files.parent), "WORKERS": "2"}
    with service("core_api", tmp_path, **state) as (url, process):
        ask(url)
        for end in (psutil.Process.terminate, psutil.Process.kill):
            wait_until(partial(ended, process, end, process.children()), what="their end")
            wait_until(lambda: len(process.children()) == 2, what="others in their place")
            ask(url)
        assert len([*files.rglob("*.db")]) == 2
        assert value(http.get(f"{url}/metrics").text, UNAUTHORIZED) == 60
        for killed in (process, *process.children()):
            killed.kill()
    (port,) = files.iterdir()
    with service("core_api", tmp_path, HTTP_PORT=port.name, **state) as (url, process):
        assert value(http.get(f"{url}/metrics").text, UNAUTHORIZED) == 0
    assert [*files.rglob("*.db")] == []


def ended(parent: psutil.Process, end: Any, workers: list[psutil.Process]) -> bool:
    """Whether the workers have ended. One that just began ignores its first signal."""
    left = {*workers} & {*parent.children()}
    for worker in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            end(worker)
    return not left


@pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")  # that is the point of it
def test_labels_are_few_whatever_clients_send() -> None:
    """Paths and methods that clients invent do not become labels."""
    app = make_app({}, HttpSettings.read({"HTTP_PORT": "1"}), checks={})
    api = falcon.testing.TestClient(app, headers=LOCAL)
    for number in range(20):
        api.simulate_get(f"/guess/{number}")
        api.simulate_request("BREW", f"/{number}")
    text = api.simulate_get("/metrics").text
    assert set(re.findall(r'route="([^"]*)"', text)) == {"none"}
    assert set(re.findall(r'method="([^"]*)"', text)) == {"GET", "other"}


@pytest.mark.parametrize("is_redis_up", [True, False])
def test_the_connector_shows_attempts_and_queue(
    client: Any, redis_port: int, *, is_redis_up: bool
) -> None:
    """Attempts by outcome and PSP durations; while Redis is up, the queue's length and age."""
    client.xadd(store.WHOLE.queue, {"a": 1}, id=f"{int(time.time() - 3000) * 1000}-0")
    client.xadd(store.WHOLE.queue, {"a": 1})
    client.zadd(store.WHOLE.retries, {"x": 1, "y": 2, "z": 3})
    client.xadd(store.WHOLE.deadletters, {"a": 1})
    url = f"redis://127.0.0.1:{redis_port if is_redis_up else CLOSED_PORT}/0"
    attempts = Attempts()
    attempts.seconds.observe(0.02)
    attempts.outcomes.labels("captured").inc()
    environ = {"REDIS_URL": url, "PSP_URL": f"http://127.0.0.1:{CLOSED_PORT}", "HTTP_PORT": "1"}
    connector: Any = SimpleNamespace(metrics=attempts)
    settings = ConnectorSettings.read(environ)
    app = create_app(settings, connector, redis_client.connect(url, timeout_seconds=1))
    text = falcon.testing.TestClient(app, headers=LOCAL).simulate_get("/metrics").text
    assert value(text, 'psp_attempts_total{outcome="captured"}') == 1
    assert value(text, "psp_request_duration_seconds_count") == 1
    queue = [value(text, f"queue_{one}") for one in ("entries", "retries", "dead_letters")]
    assert queue == ([2, 3, 1] if is_redis_up else [0, 0, 0])
    age_seconds = value(text, "queue_oldest_entry_age_seconds")
    assert (3000 <= age_seconds < 3100) == is_redis_up


def test_a_silent_redis_delays_a_scrape_once(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time for all partitions has a bound; without one, each takes its own timeout."""
    monkeypatch.setattr(metrics, "COLLECT_SECONDS_MAX", 0.3)
    client = redis_client.connect(f"redis://127.0.0.1:{silent_port}/0", timeout_seconds=0.2)
    began = time.monotonic()
    gauges = [*metrics.QueueCollector(client, store.partitions(16)).collect()]
    assert time.monotonic() - began < 2
    assert [gauge.samples for gauge in gauges] == [[]] * 4


def test_a_second_process_at_a_port_leaves_the_counters_of_the_first(tmp_path: Path) -> None:
    """It never got the port: gunicorn ends it after some tries."""
    code = """
from services.common.metrics import SharedCounters
SharedCounters(8000).when_ready(None)
SharedCounters(8000).remove()
"""
    environ = {"PATH": os.environ["PATH"], "PLATFORM_STATE": str(tmp_path)}
    done = call([sys.executable, "-c", code], environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "metrics/8000").is_dir()
