from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.new.tree import with_each_kind

if TYPE_CHECKING:
    from tests.new.tree import Tree


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A copy with a service of each kind; the tests leave it so."""
    return with_each_kind(tmp_path_factory.mktemp("grown") / "tree")
