import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import report
from bench.results import Failure, Result, Row, Run, Sample

MORE = Row("a", "the row a", "/s", 0.5, 0.65)
AT_MOST_2 = Row("a", "the row a", "/s", 2, 1.5, at_most=True)


def result(figure: float, row: Row = MORE) -> Result:
    return row.result([Sample(value=figure * 2400, floor=2400)], {"p50_ms": 4.25, "best": "x"})


def run(*results: Result) -> Run:
    return Run(mode="full", started_at="now", machine={"cores": "2"}, results=list(results))


def test_the_table() -> None:
    """A row has value, floor, figure, goals, verdict and the change since the previous run.

    Rows that could not be measured are named.
    """
    measured = run(result(0.6), result(2.5, AT_MOST_2))
    measured.failures.append(Failure(name="b", reason="no time was left"))
    text = report.table(measured, {"a": result(0.5)})
    rows = [line.split() for line in text.splitlines() if line.startswith("the row a")]
    assert rows[0][3:7] == ["1,440", "/s", "2,400", "0.60"]
    assert rows[0][-4:] == ["0.50", "0.65", "+", "+20%"]
    assert rows[1][-6:-1] == ["<=", "2.00", "<=", "1.50", "MISSED"]
    assert "a: 1 rounds; p50_ms 4.25, best x" in text
    assert "b: not measured: no time was left" in text


@pytest.mark.parametrize(
    ("figure", "row", "score"),
    [
        (0.6, MORE, 1.2), (9, MORE, 2.5),
        (1, AT_MOST_2, 2), (0.1, AT_MOST_2, 2.5), (-1, AT_MOST_2, 2.5),
    ],
)  # fmt: skip
def test_scores(figure: float, row: Row, score: float) -> None:
    """A score is the figure by its goal; more is better for every row, at most 2.5."""
    assert report.score(result(figure, row)) == score


def test_the_chart_is_self_contained(tmp_path: Path) -> None:
    """The chart is valid SVG, loads nothing, and labels each row with figure and goal."""
    report.chart(run(result(1, AT_MOST_2)), tmp_path / "chart.svg")
    text = (tmp_path / "chart.svg").read_text()
    assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314  our own
    assert "the row a" in text
    assert "1.00 (at most 2.00)" in text
    assert not re.search(r"src=|href=|@import|url\(", text)
