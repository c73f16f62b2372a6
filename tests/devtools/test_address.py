from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devtools.address import (
    BLOCK,
    AddressError,
    chosen_port,
    derived_port,
    noted_port,
    router_url,
    running_port,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_auto_is_a_block_of_the_folders_own(tmp_path: Path) -> None:
    """The same each time and by every name of the folder; two folders rarely share one."""
    folders = [tmp_path / str(number) for number in range(50)]
    first = [derived_port(folder) for folder in folders]
    (tmp_path / "link").symlink_to(tmp_path / "0")
    assert first == [derived_port(folder) for folder in folders]
    assert first[0] == derived_port(tmp_path / "link")
    assert len(set(first)) > 35  # of 240 blocks; 45 is what chance makes of it


def test_auto_stays_clear_of_ports_for_outgoing_connections(tmp_path: Path) -> None:
    """From 20000 to 31999, with room for five connectors in each block."""
    for number in range(500):
        port = derived_port(tmp_path / str(number))
        assert 20_000 <= port <= 31_950
        assert port % 50 == 0


def test_the_stack_takes_the_number_or_auto_or_8000(tmp_path: Path) -> None:
    """What was written down before has no say in where a stack starts."""
    (tmp_path / "environment").write_text("export PLATFORM_PORT=9000\n")
    environ = {"PLATFORM_STATE": str(tmp_path)}
    assert chosen_port(environ | {"PLATFORM_PORT": "8100"}) == 8100
    assert derived_port(tmp_path) == chosen_port(environ | {"PLATFORM_PORT": "auto"})
    assert chosen_port(environ) == 8000
    assert chosen_port(environ | {"PLATFORM_PORT": ""}) == 8000


def test_a_client_takes_what_it_was_told_then_what_was_written_down(tmp_path: Path) -> None:
    """PLATFORM_URL, a number in PLATFORM_PORT, the running stack's, the default."""
    environ = {"PLATFORM_STATE": str(tmp_path)}
    assert running_port(environ) == 8000
    assert derived_port(tmp_path) == running_port(environ | {"PLATFORM_PORT": "auto"})
    (tmp_path / "environment").write_text("export PLATFORM_PORT=9000\n")
    assert running_port(environ) == 9000
    assert running_port(environ | {"PLATFORM_PORT": "auto"}) == 9000
    assert running_port(environ | {"PLATFORM_PORT": "8100"}) == 8100
    elsewhere = {"PLATFORM_URL": "https://pay.test", "PLATFORM_PORT": "8100"}
    assert router_url(environ | elsewhere) == "https://pay.test"
    assert router_url(environ) == "http://127.0.0.1:9000"


@pytest.mark.parametrize("text", ["", "abc", "0", "99999", "-8000", "8000 9000", "\udcff" * 3])
def test_a_spoilt_note_is_no_note(tmp_path: Path, text: str) -> None:
    """Whatever stands in the file, it is a port or nothing."""
    (tmp_path / "environment").write_text(
        f"export PLATFORM_PORT={text}", "utf-8", errors="surrogateescape"
    )
    assert noted_port(tmp_path) is None


@pytest.mark.parametrize("text", ["AUTO", "auto ", "eighty", "0", str(65_537 - BLOCK)])
def test_what_is_neither_a_port_nor_auto_is_refused(tmp_path: Path, text: str) -> None:
    """By whoever asks, in the same words."""
    environ = {"PLATFORM_STATE": str(tmp_path), "PLATFORM_PORT": text}
    for ask in (chosen_port, running_port):
        with pytest.raises(AddressError, match=f"a number from 1024 to {65_536 - BLOCK}, or auto"):
            ask(environ)
