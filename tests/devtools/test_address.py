"""The router's port and URL: from the caller, the last start, or the default."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devtools.address import (
    HIGHEST,
    AddressError,
    chosen_port,
    derived_port,
    noted_port,
    router_url,
    running_port,
)


def test_auto_derives_a_block_from_the_folder(tmp_path: Path) -> None:
    """The block is below outgoing ports and the same for all paths of a folder."""
    folders = [tmp_path / str(number) for number in range(50)]
    ports = [derived_port(folder) for folder in folders]
    (tmp_path / "link").symlink_to(tmp_path / "0")
    assert derived_port(tmp_path / "link") == ports[0]
    assert all(20_000 <= port <= 31_950 and port % 50 == 0 for port in ports)
    assert len(set(ports)) > 35  # of 240 blocks; 45 by chance


def test_a_start_takes_the_number_or_auto_or_8000(tmp_path: Path) -> None:
    """The record of the last start has no effect."""
    (tmp_path / "environment").write_text("export PLATFORM_PORT=9000\n")
    environ = {"PLATFORM_STATE": str(tmp_path)}
    assert chosen_port(environ | {"PLATFORM_PORT": "8100"}) == 8100
    assert chosen_port(environ | {"PLATFORM_PORT": "auto"}) == derived_port(tmp_path)
    assert chosen_port(environ | {"PLATFORM_PORT": ""}) == 8000


def test_a_client_takes_its_variables_then_the_last_start(tmp_path: Path) -> None:
    """PLATFORM_URL, a number in PLATFORM_PORT, the record, the default."""
    environ = {"PLATFORM_STATE": str(tmp_path)}
    assert running_port(environ) == 8000
    assert running_port(environ | {"PLATFORM_PORT": "auto"}) == derived_port(tmp_path)
    (tmp_path / "environment").write_text("export PLATFORM_PORT=9000\n")
    assert running_port(environ) == 9000
    assert running_port(environ | {"PLATFORM_PORT": "auto"}) == 9000
    assert running_port(environ | {"PLATFORM_PORT": "8100"}) == 8100
    elsewhere = {"PLATFORM_URL": "https://pay.test", "PLATFORM_PORT": "8100"}
    assert router_url(environ | elsewhere) == "https://pay.test"
    assert router_url(environ) == "http://127.0.0.1:9000"


@pytest.mark.parametrize("text", ["", "abc", "0", "99999", "-8000", "8000 9000", "\udcff" * 3])
def test_an_invalid_record_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "environment").write_text(
        f"export PLATFORM_PORT={text}", "utf-8", errors="surrogateescape"
    )
    assert noted_port(tmp_path) is None


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
