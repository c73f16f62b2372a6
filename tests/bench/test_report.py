"""Results, the table, the chart, and saved runs."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import report
from bench.results import Result, Row, Run, Sample, previous, save

MORE = Row("a", "the row a", "/s", 0.5, 0.65)
AT_MOST_2 = Row("a", "the row a", "/s", 2, 1.5, at_most=True)


def result(figure: float, row: Row = MORE) -> Result:
    """A result of five rounds around the figure."""
    samples: list[Sample] = [(figure * 2400 + more, 2400) for more in (240, -480, 0, 480, -240)]
    return row.result(samples, {"p50_ms": 4.25, "best": "x"})


def run(*results: Result, at: str = "now", mode: str = "full") -> Run:
    return Run(mode=mode, started_at=at, machine={"cores": "2"}, results=list(results))


@pytest.mark.parametrize(
    ("row", "samples", "value", "floor", "figures"),
    [
        (MORE, [(50, 100), (5, 10), (30, 60)], 30, 60, [0.5, 0.5, 0.5]),
        (Row("a", "a", "ms", 5, kind="difference"), [(12, 10), (105, 101)], 58.5, 55.5, [2, 4]),
        (MORE, [(200, None), (210, None)], 205, None, [200, 210]),
    ],
)
def test_a_figure_is_taken_round_by_round(
    row: Row, samples: list[Sample], value: float, floor: float | None, figures: list[float]
) -> None:
    """Noise that affects a value and its floor alike does not change the figure."""
    found = row.result(samples, {})
    assert (found.value, found.floor, found.figures) == (value, floor, figures)


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.startswith("the row a")]


def test_the_table() -> None:
    """A row has value, floor, figure, its spread, goals, verdict and the change since the last run.

    Rows that could not be measured are named.
    """
    measured = run(result(0.6), result(2.5, AT_MOST_2))
    measured.failures["b"] = "no time was left"
    text = report.table(measured, {"a": result(0.5)})
    rows = cells(text)
    assert rows[0][3:9] == ["1,440", "/s", "2,400", "0.60", "0.50..0.70", "0.40..0.80"]
    assert rows[0][-4:] == ["0.50", "0.65", "+", "+20%"]
    assert rows[1][-6:-1] == ["<=", "2.00", "<=", "1.50", "MISSED"]
    assert "a: 5 rounds; p50_ms 4.25, best x" in text
    assert "b: not measured: no time was left" in text


@pytest.mark.parametrize(
    ("row", "figure", "verdict", "score"),
    [
        (MORE, 0.49, "MISSED", 0.98), (MORE, 0.5, "+", 1), (MORE, 0.64, "+", 1.28),
        (MORE, 0.65, "++", 1.3), (MORE, 9, "++", 2.5),
        (Row("a", "the row a", "/s", 2), 5, "+", 2.5),
        (AT_MOST_2, 2.5, "MISSED", 0.8), (AT_MOST_2, 2, "+", 1), (AT_MOST_2, 1.6, "+", 1.25),
        (AT_MOST_2, 1.25, "++", 1.6), (AT_MOST_2, 0.1, "++", 2.5), (AT_MOST_2, -1, "++", 2.5),
    ],
)  # fmt: skip
def test_verdict_and_score(row: Row, figure: float, verdict: str, score: float) -> None:
    """A figure that equals a bound reaches it, whether more is better or less.

    The score is the figure by its goal; more is better for every row, at most 2.5.
    """
    found = result(figure, row)
    assert cells(report.table(run(found), {}))[0][-1] == verdict
    assert report.score(found) == pytest.approx(score)


def test_the_chart_is_self_contained(tmp_path: Path) -> None:
    """The chart is valid SVG, loads nothing, and labels each row with figure and goal."""
    report.chart(run(result(1, AT_MOST_2)), tmp_path / "chart.svg")
    text = (tmp_path / "chart.svg").read_text()
    assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314  our own
    assert "the row a" in text
    assert "1.00 (at most 2.00)" in text
    assert not re.search(r"src=|href=|@import|url\(", text)


def test_previous_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run is compared with the newest result of each row in its mode; other files are ignored."""
    assert previous(tmp_path / "missing", "full") == {}
    (tmp_path / "other.json").write_text('{"some": "thing"}')
    a, b = Row("a", "", "", 1), Row("b", "", "", 1)
    save(run(result(0.3, a), at="2026-01-02T00:00:00Z"), tmp_path)
    save(run(result(0.1, a), result(0.2, b), at="2026-01-01T00:00:00Z"), tmp_path)
    save(run(result(9, b), at="2026-01-03T00:00:00Z", mode="quick"), tmp_path)
    figures = {name: one.figure for name, one in previous(tmp_path, "full").items()}
    assert figures == {"a": 0.3, "b": 0.2}
    assert "other.json is not a result of this benchmark" in capsys.readouterr().err
