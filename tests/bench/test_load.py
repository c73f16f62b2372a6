from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bench.load import generate
from bench.results import MeasureError
from tests.http_service import Reply, Service, service_on
from tests.support import CLOSED_PORT

BODY = {"amount": 1, "x": '"[y]"\\'}


@pytest.fixture
def service() -> Iterator[Service]:
    """Accepts payments, and refuses or hangs up elsewhere."""
    with service_on() as service:
        service.replies = {"/pay": Reply(202), "/other": Reply(404), "/hang-up": Reply(None)}
        yield service


def post(service: Service, path: str, **more: Any) -> httpx.Request:
    return httpx.Request("POST", httpx.URL(service.url).join(path), **more)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/hang-up", "requests got no response"),
        (f"http://127.0.0.1:{CLOSED_PORT}", "unable to connect"),
        ("/other", "were refused"),
    ],
    ids=["hang-up", "closed", "refused"],  # the same in each process of pytest-xdist
)
def test_a_run_without_good_responses_is_invalid(service: Service, path: str, message: str) -> None:
    """A rate of refusals or broken connections is never reported as one of good responses."""
    with pytest.raises(MeasureError, match=message):
        generate([post(service, path)], connections=1, seconds=0.2)


def test_refusals_do_not_count_in_the_rate(service: Service) -> None:
    """The rate counts responses below 400 only."""
    requests = [post(service, path, json={}) for path in ("/pay", "/other")]
    load = generate(requests, connections=1, seconds=2, refusals=True)
    assert load.refused == pytest.approx(load.requests / 2, abs=1)
    assert load.rate == pytest.approx((load.requests - load.refused) / load.seconds)


def test_requests_are_sent_in_turn_and_unchanged(service: Service) -> None:
    """Wrk sends each request in turn, with its query, header and body."""
    requests = [
        post(service, "/pay?x=1", headers={"Authorization": f"Bearer {who}"}, json=BODY)
        for who in ("a", "b")
    ]
    load = generate(requests, connections=1, seconds=2)
    seen = [(one.path, one.headers["Authorization"], one.body) for one in service.seen]
    assert 0 < load.requests <= len(seen)
    assert sorted(seen[:2]) == [
        ("/pay?x=1", one.headers["Authorization"], one.content) for one in requests
    ]
    assert seen[2:4] == seen[:2]
