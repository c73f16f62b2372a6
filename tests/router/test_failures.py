"""Services that fail, hang or restart, and clients that are too slow."""

import select
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.http_service import Reply, Service, service_on
from tests.router.helpers import RESPONSE_SECONDS_MAX, Platform, Router, problem, receive, router_on
from tests.support import free_ports


def test_a_services_own_error_passes_untouched(platform: Platform) -> None:
    """A service's 503 passes unchanged; only the router's own errors get a problem document."""
    body = b'{"type": "about:blank", "code": "queue-full"}'
    headers = (("Content-Type", "application/problem+json"), ("Retry-After", "7"))
    platform.core.replies["/"] = Reply(503, headers, body)
    response = platform.router.request("POST", "/transactions", b"{}")
    assert (response.status, response.body) == (503, body)
    assert response.headers["Retry-After"] == "7"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_service_that_hangs_up_is_502(platform: Platform, method: str) -> None:
    """A service that closes the connection may have done its work: 502, and no retry."""
    platform.core.replies["/"] = Reply(None)
    response = platform.router.request(method, "/transactions", b"{}")
    assert problem(response) == (502, "bad-gateway")
    assert len(platform.core.seen) == 1


def test_a_service_that_is_down_is_503(impatient: tuple[Router, Service]) -> None:
    """A stopped service is 503 with Retry-After; its address is in the log only."""
    router, _auth = impatient
    address = f"127.0.0.1:{router.port + 2}"
    response = router.request("POST", "/transactions", b"{}")
    assert problem(response) == (503, "service-unavailable")
    assert response.headers["Retry-After"] == "1"
    assert address not in str(response)
    assert address in router.log_of(response.headers["X-Request-Id"])["error"]
    assert router.request("GET", "/health").status == 200


def test_no_request_goes_to_a_proxy(tmp_path: Path) -> None:
    """An engine may give its containers the user's proxy, which would see passwords and tokens."""
    with service_on() as proxy:
        url = f"http://127.0.0.1:{proxy.server_address[1]}"
        port, auth = free_ports(3), "auth.invalid:1"
        with router_on(tmp_path, port, http_proxy=url, AUTH_API_ADDRESS=auth) as router:
            assert router.request("POST", "/auth/token", b"{}").status == 503
        assert proxy.seen == []


def test_a_service_at_several_addresses(tmp_path: Path) -> None:
    """All addresses of a service get requests; when one does not listen, the others respond."""
    port = free_ports(4)
    both = f"127.0.0.1:{port + 2} 127.0.0.1:{port + 3}"
    with service_on(port + 2) as first, router_on(tmp_path, port, CORE_API_ADDRESS=both) as router:
        with service_on(port + 3) as second:
            for service in (first, second):
                service.replies["/"] = Reply(headers=(("Connection", "close"),))
            assert {router.request("GET", "/transactions").status for _ in range(40)} == {200}
            assert len(first.seen) + len(second.seen) == 40
            assert first.seen
            assert second.seen
        assert {router.request("GET", "/transactions").status for _ in range(20)} == {200}


def test_a_restart_of_a_service_is_bridged(tmp_path: Path) -> None:
    """A request during a restart waits for the service, and its body arrives whole."""
    port = free_ports(3)
    with router_on(tmp_path, port) as router, ThreadPoolExecutor(1) as client:
        with service_on(port + 2) as core:
            # A request on a kept connection that closes at that moment is a 502: it may have been
            # read. The claim is about later requests.
            core.replies["/"] = Reply(headers=(("Connection", "close"),))
            assert router.request("POST", "/transactions", b"{}").status == 200
        response = client.submit(router.request, "POST", "/transactions", b'{"amount": 1}')
        time.sleep(0.5)
        with service_on(port + 2) as core:
            assert response.result(10).status == 200
            assert [seen.body for seen in core.seen] == [b'{"amount": 1}']


def test_a_slow_body_is_408(impatient: tuple[Router, Service]) -> None:
    """A body has 10 s, silent or dripping; a slower one never reaches the service."""
    router, auth = impatient
    begun = auth.begun
    head = b"POST /auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    assert problem(router.send(head + b"0123456789")) == (408, "request-timeout")
    with router.connect() as connection:
        connection.sendall(head)
        for _tenth in range(100):
            connection.sendall(b"x")
            if select.select([connection], [], [], 0.1)[0]:
                break
        assert problem(receive(connection)) == (408, "request-timeout")
    assert auth.begun == begun


def test_slow_headers_end_the_connection(impatient: tuple[Router, Service]) -> None:
    """Headers that never end are closed or answered with an error."""
    router, _auth = impatient
    started = time.monotonic()
    received = router.raw(b"POST /auth/token HTTP/1.1\r\nHost: localhost\r\n")
    assert time.monotonic() - started < RESPONSE_SECONDS_MAX
    assert received == b"" or received.split()[1] in {b"400", b"408"}


def test_a_slow_service_is_504(impatient: tuple[Router, Service]) -> None:
    """A service that hangs is 504, and gets the request once."""
    router, auth = impatient
    auth.replies["/slow"] = Reply(wait_seconds=RESPONSE_SECONDS_MAX)
    response = router.request("GET", "/auth/slow")
    assert problem(response) == (504, "gateway-timeout")
    assert [seen.path for seen in auth.seen] == ["/slow"]
