import pytest

from bench import stacks
from bench.results import MeasureError


def test_the_floor_is_the_stack_with_two_empty_apps() -> None:
    """The floor differs from the stack's own file in the commands of two services only."""
    shipped = stacks.COMPOSE_FILE.read_text()
    lines = zip(shipped.splitlines(), stacks.floor_file(shipped).splitlines(), strict=True)
    differing = [(a, b) for a, b in lines if a != b]
    assert [a.rpartition(".")[2] for a, _ in differing] == ["auth_api", "core_api"]
    assert all("exec python -m bench.empty " in b for _, b in differing)


def test_a_service_with_an_unknown_command_has_no_floor() -> None:
    """An unknown command is an error: with the real app as floor the ratio would be 1."""
    shipped = stacks.COMPOSE_FILE.read_text().replace("python -m services.core_api", "other")
    with pytest.raises(MeasureError, match="does not start core_api"):
        stacks.floor_file(shipped)
