import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.address import CLUSTER_BLOCK
from tests import support
from tests.stack.stack import Stack, environment, killed, platform, running


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One stack for all tests that restore its state."""
    with running() as started:
        yield started


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    """A difficult environment for a stack that `platform` starts; nothing remains of it.

    The state folder's path is over the 100 characters of a Unix socket, and has what means
    something in YAML and sh. There is no HOME. Ports are free for the nodes of a cluster, too.
    """
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
        state = Path(folder, "it's a #1 folder: " + "long " * 20, "state")
        values = environment(state, support.free_ports(CLUSTER_BLOCK))
        values.pop("HOME", None)
        try:
            yield values
        finally:
            platform(values, "down")
            assert killed(state) == []
