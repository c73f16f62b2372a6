from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import pytest

from bench.plan import QUICK
from bench.rows import Bench, OutOfTime

if TYPE_CHECKING:
    from pathlib import Path


def bench(folder: Path, deadline: float = math.inf) -> Bench:
    return Bench(QUICK, folder, lambda _text: None, deadline)


def test_all_rounds_when_there_is_time(tmp_path: Path) -> None:
    """Numbered from 1."""
    assert list(bench(tmp_path).rounds(3)) == [1, 2, 3]


def test_a_round_that_would_not_fit_is_not_begun(tmp_path: Path) -> None:
    """Fewer rounds are better than a run that does not end when it has to."""
    began = []
    for number in bench(tmp_path, time.monotonic() + 0.5).rounds(5):
        began.append(number)
        time.sleep(0.3)
    assert began == [1]


def test_not_one_round_is_no_result(tmp_path: Path) -> None:
    """A row without a single round is one that was not measured."""
    with pytest.raises(OutOfTime):
        list(bench(tmp_path, time.monotonic() - 1).rounds(5))


def test_what_several_rows_share_is_measured_once(tmp_path: Path) -> None:
    """Its failure is shared too, and not tried again for each of them."""
    tries = []

    def measure() -> int:
        tries.append(1)
        if len(tries) == 2:
            raise OutOfTime
        return 7

    one = bench(tmp_path)
    assert [one.once("good", measure) for _row in range(2)] == [7, 7]
    for _row in range(2):
        with pytest.raises(OutOfTime):
            one.once("bad", measure)
    assert len(tries) == 2
