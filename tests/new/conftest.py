import pytest

from tests.new.tree import KINDS, Tree, copy


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A copy with a service of each kind, unchanged by the tests."""
    tree = copy(tmp_path_factory.mktemp("grown") / "a $x")  # a path that programs may expand
    for name, words in KINDS.items():
        done = tree.new("service", name, *words)
        assert (done.returncode, done.stderr) == (0, "")
        tree.commit()
    return tree
