import math
import time
from pathlib import Path

import pytest

from bench.rows import QUICK, Bench, OutOfTimeError


def test_rounds_end_at_the_deadline() -> None:
    """No round starts after the deadline; a row without any round is not measured."""
    bench = Bench(QUICK, Path(), math.inf)
    assert list(bench.rounds()) == [1, 2, 3]
    for _number in bench.rounds():
        bench.deadline = time.monotonic() - 1
    with pytest.raises(OutOfTimeError):
        next(bench.rounds())
