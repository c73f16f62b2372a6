"""The router's port and URL: from the caller, the last start, or the default."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devtools.address import (
    AUTO,
    HIGHEST,
    AddressError,
    chosen_port,
    clashes,
    derived_port,
    router_url,
    running_port,
)
from devtools.catalog import SERVICES


def test_auto_derives_a_block_from_the_folder(tmp_path: Path) -> None:
    """The block is below outgoing ports and the same for all paths of a folder."""
    folders = [tmp_path / str(number) for number in range(50)]
    ports = [derived_port(folder) for folder in folders]
    (tmp_path / "link").symlink_to(tmp_path / "0")
    assert derived_port(tmp_path / "link") == ports[0]
    assert all(20_000 <= port <= 31_950 and port % 50 == 0 for port in ports)
    assert len(set(ports)) > 35  # of 240 blocks; 45 by chance


@pytest.mark.parametrize(
    ("typed", "chosen", "running"),
    [("", 8000, 9000), ("8100", 8100, 8100), (AUTO, AUTO, 9000)],
)
def test_only_a_client_takes_the_port_of_the_last_start(
    tmp_path: Path, typed: str, chosen: int | str, running: int
) -> None:
    """A number in PLATFORM_PORT has priority; a start takes `auto` or 8000 else."""
    chosen = derived_port(tmp_path) if chosen == AUTO else chosen
    environ = {"PLATFORM_STATE": str(tmp_path), "PLATFORM_PORT": typed}
    assert running_port(environ) == chosen, "before the first start"
    (tmp_path / "environment").write_text("export PLATFORM_PORT=9000\n")
    assert (chosen_port(environ), running_port(environ)) == (chosen, running)
    assert router_url(environ) == f"http://127.0.0.1:{running}"
    assert router_url(environ | {"PLATFORM_URL": "https://pay.test"}) == "https://pay.test"


@given(st.text(max_size=12).filter(lambda text: text not in ("", "auto")))
@example("80")
@example(str(HIGHEST + 1))
@example("-1")
@example("٨٠٠٠")
@example("9" * 5000)
def test_any_other_port_is_accepted_or_refused(text: str) -> None:
    """PLATFORM_PORT leaves room for all ports and needs no root."""
    for port_of in (chosen_port, running_port):
        try:
            assert 1024 <= port_of({"PLATFORM_PORT": text}) == int(text) <= HIGHEST
        except AddressError as error:
            assert f"must be a number from 1024 to {HIGHEST}, or auto" in str(error)  # noqa: PT017


@pytest.mark.parametrize(("route", "other"), [("auth", "auth-api"), ("health", "router")])
def test_services_that_share_a_route_are_named(
    monkeypatch: pytest.MonkeyPatch, route: str, other: str
) -> None:
    """The router would refuse its configuration, or never forward to the service."""
    assert clashes(8000, {}) == []
    monkeypatch.setitem(SERVICES, "core-api", replace(SERVICES["core-api"], route=route))
    [fault] = clashes(8000, {})
    assert fault.startswith(f"{other} and core-api have the same route, /{route}: ")
    assert "change route in the service.toml" in fault
