import socket
import ssl
import threading
import time
from contextlib import suppress

import httpx
import pytest
import requests
from urllib3.util.ssltransport import SSLTransport

from services.psp_connector import bounded
from services.psp_connector.psp import Transient
from tests.cluster import Certificate, certificate
from tests.http_service import Reply, Service
from tests.psp_connector.http_psp import CHARGE, client


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def tls_psp(psp: Service, made: Certificate) -> Service:
    """The server with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.path, made.key)
    psp.socket = context.wrap_socket(psp.socket, server_side=True)
    return psp


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")  # which would hide a failure
def test_a_psp_that_cannot_be_verified_is_sent_nothing(tls_psp: Service, made: Certificate) -> None:
    """TLS is always verified, so neither payment nor key goes to an unverified server."""
    url = f"https://127.0.0.1:{tls_psp.server_port}"
    assert client(url).charge(CHARGE) == Transient("no response", is_unseen=True)
    assert tls_psp.seen == []
    trusting = ssl.create_default_context(cafile=str(made.root))
    assert httpx.get(url, verify=trusting).status_code == 200, "so it was the authority"


def test_a_proxy_that_trickles_is_cut_off(
    tls_psp: Service, made: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timeout bounds the CONNECT of an https proxy as well."""
    tls_psp.reply = Reply(body=b"", trickle_seconds=0.05)
    proxy = f"https://127.0.0.1:{tls_psp.server_port}"
    monkeypatch.setattr(bounded, "proxies_for", lambda _url: {"https": proxy})
    session = bounded.BoundedSession("https://psp.example", 1, 1)
    started = time.monotonic()
    with pytest.raises(requests.ConnectionError):
        session.get("https://psp.example", verify=str(made.root))
    assert tls_psp.last().method == "CONNECT"
    assert time.monotonic() - started < 5


def test_a_call_by_tls_within_tls_is_cut_off(tls_psp: Service, made: Certificate) -> None:
    """So is urllib3's transport through an https proxy, whatever ended another call before."""
    trusting = ssl.create_default_context(cafile=str(made.root))
    session = bounded.BoundedSession("https://psp.example", 0.1, 1)
    broken = threading.Thread(target=session.watch, args=(object(),))
    broken.start()
    broken.join()
    with socket.create_connection(("127.0.0.1", tls_psp.server_port), 10) as below:
        transport = SSLTransport(below, trusting, "127.0.0.1")
        started = time.monotonic()
        session.watch(transport)
        with suppress(OSError):
            transport.recv(1)
        assert time.monotonic() - started < 5
