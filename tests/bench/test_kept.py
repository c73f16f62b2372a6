from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from bench import chart, report
from bench.figures import Failure, Goal, Result, Run, Spread
from bench.kept import keep, previous

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

AT_MOST_2 = Goal(goal=2, beyond=1.5, at_most=True)


def result(name: str, figure: float, goal: Goal | None = None) -> Result:
    return Result(
        name=name, title=f"the row {name}", against="a floor", unit="/s", kind="ratio", value=1200,
        floor=2400, figure=Spread.of([figure]), rounds=5, goal=goal, details={"p50_ms": 4.25},
    )  # fmt: skip


def run(started_at: str, *results: Result, mode: str = "full") -> Run:
    machine = {"cores": "2"}
    return Run(mode=mode, started_at=started_at, machine=machine, results=list(results))


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    """The newest result of each row is what the next run compares with."""
    keep(run("2026-01-01T00:00:00Z", result("a", 0.1), result("b", 0.2)), tmp_path)
    keep(run("2026-01-02T00:00:00Z", result("a", 0.3)), tmp_path)
    assert {"a": result("a", 0.3), "b": result("b", 0.2)} == previous(tmp_path, "full")


def test_a_quick_look_is_not_compared_with_a_full_run(tmp_path: Path) -> None:
    """Their sizes differ, and so may their figures."""
    keep(run("2026-01-01T00:00:00Z", result("a", 0.1), mode="quick"), tmp_path)
    assert previous(tmp_path, "full") == {}


def test_what_is_no_result_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that somebody else left there, or an older form, stops nothing."""
    (tmp_path / "other.json").write_text('{"some": "thing"}')
    assert previous(tmp_path, "full") == {}
    assert "other.json is no result of this benchmark" in capsys.readouterr().err


def test_no_results_yet(tmp_path: Path) -> None:
    """The first run has nothing to compare with."""
    assert previous(tmp_path / "missing", "full") == {}


def test_the_table_shows_figure_goal_and_change() -> None:
    """A row reads from what was measured to what it had to be."""
    now = result("a", 0.6, Goal(goal=0.5, beyond=0.65))
    text = report.table(run("now", now), {"a": result("a", 0.5)})
    row = next(line for line in text.splitlines() if line.startswith("the row a")).split()
    assert row[3:7] == ["1,200", "/s", "2,400", "0.60"]
    assert row[-4:] == ["0.50", "0.65", "+", "+20%"]


def test_the_table_shows_what_was_missed_and_what_was_not_measured() -> None:
    """Bad news is plain to see."""
    told = run("now", result("a", 2.5, AT_MOST_2))
    told.failures.append(Failure(name="b", reason="no time was left"))
    text = report.table(told, {})
    assert "<= 2.00  <= 1.50  MISSED" in text
    assert "b: not measured: no time was left" in text


def test_scores_point_the_same_way() -> None:
    """In the chart more is better for every row: 1 is the goal."""
    assert chart.score(result("a", 0.6, Goal(goal=0.5))) == 1.2
    assert chart.score(result("a", 1, AT_MOST_2)) == 2
    assert chart.label(result("a", 1, AT_MOST_2)) == "1.00 (at most 2.00)"


def test_a_score_has_an_end() -> None:
    """A row far beyond its goal leaves room for the others, a figure below nothing included."""
    assert chart.score(result("a", 9, Goal(goal=0.5))) == 2.5
    assert [chart.score(result("a", figure, AT_MOST_2)) for figure in (0.1, -1)] == [2.5, 2.5]


def test_the_chart_is_an_image_in_itself(tmp_path: Path) -> None:
    """It is valid SVG and loads nothing from elsewhere."""
    keep(run("2026-01-01T00:00:00Z", result("a", 0.6, Goal(goal=0.5))), tmp_path)
    text = next(tmp_path.glob("*.svg")).read_text()
    assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314  our own
    assert "the row a" in text
    assert not re.search(r"src=|href=|@import|url\(", text)
