from __future__ import annotations

import pytest

from bench import compose, stacks
from bench.errors import MeasureError
from devtools.address import PORT_OFFSETS


def test_the_floor_is_the_stack_with_two_apps_emptied() -> None:
    """Everything else about it is as it is in the stack's own file."""
    shipped = stacks.COMPOSE_FILE.read_text()
    floor = stacks.floor_file(shipped)
    differing = [
        (a, b) for a, b in zip(shipped.splitlines(), floor.splitlines(), strict=True) if a != b
    ]
    assert [a.rpartition(".")[2] for a, _ in differing] == ["auth_api", "core_api"]
    assert all("exec python -m bench.empty " in b for _, b in differing)


def test_a_service_that_is_started_in_another_way_is_no_floor() -> None:
    """Better no figure than one beside a floor that is none."""
    shipped = stacks.COMPOSE_FILE.read_text().replace("python -m services.core_api", "other")
    with pytest.raises(MeasureError, match="does not start core_api"):
        stacks.floor_file(shipped)


def test_expansion_is_that_of_process_compose() -> None:
    """Braced variables, their defaults, and a doubled dollar; the rest is the shell's."""
    text = "$${A:-b} ${SET} ${UNSET:-c} ${UNSET} $((${PORT:-8000} + 5)) $X"
    assert compose.expand(text, {"SET": "yes", "PORT": "9"}) == "${A:-b} yes c  $((9 + 5)) $X"


def test_each_process_with_a_probe_can_be_started_alone() -> None:
    """The rows about starting know all of them."""
    assert set(PORT_OFFSETS) == set(compose.processes(stacks.COMPOSE_FILE))
