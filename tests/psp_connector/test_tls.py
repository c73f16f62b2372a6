import ssl
from pathlib import Path

import httpx
import pytest

from services.psp_connector.psp import Transient
from tests.cluster import certificate
from tests.http_service import Service
from tests.psp_connector.http_psp import CHARGE, client


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")  # which would hide a failure
def test_a_psp_that_cannot_be_verified_is_sent_nothing(psp: Service, tmp_path: Path) -> None:
    """TLS is always verified, so neither payment nor key goes to an unverified server."""
    made = certificate(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.path, made.key)
    psp.socket = server.wrap_socket(psp.socket, server_side=True)
    url = f"https://127.0.0.1:{psp.server_port}"
    assert client(url).charge(CHARGE) == Transient("no response", is_unseen=True)
    assert psp.seen == []
    trusting = ssl.create_default_context(cafile=str(made.root))
    assert httpx.get(url, verify=trusting).status_code == 200, "so it was the authority"
