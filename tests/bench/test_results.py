from pathlib import Path

import pytest

from bench.results import Kind, Row, Run, Sample, Spread, previous, save


def row(name: str = "a", kind: Kind = "ratio") -> Row:
    return Row(name, f"the row {name}", "/s", 1, kind=kind)


def run(started_at: str, **figures: float) -> Run:
    results = [row(name).result([Sample(value=f, floor=1)], {}) for name, f in figures.items()]
    return Run(mode="full", started_at=started_at, machine={}, results=results)


@pytest.mark.parametrize(
    ("values", "spread"),
    [
        ([5, 1, 4, 2, 3], Spread(median=3, low=1, q1=2, q3=4, high=5)),
        ([7], Spread(median=7, low=7, q1=7, q3=7, high=7)),
    ],
)
def test_spread_of_unsorted_values(values: list[float], spread: Spread) -> None:
    """The spread has median, quartiles and extremes, also for unsorted or single values."""
    assert Spread.of(values) == spread


@pytest.mark.parametrize(
    ("kind", "samples", "value", "floor", "figures"),
    [
        ("ratio", [(50, 100), (5, 10), (30, 60)], 30, 60, (0.5, 0.5)),
        ("difference", [(12, 10), (105, 101)], 58.5, 55.5, (2, 4)),
        ("amount", [(200, None), (210, None)], 205, None, (200, 210)),
    ],
)
def test_a_figure_is_taken_round_by_round(
    kind: Kind, samples: list[tuple[float, float | None]], value: float, floor: float | None,
    figures: tuple[float, float],
) -> None:  # fmt: skip
    """Noise that affects a value and its floor alike does not change the figure."""
    result = row(kind=kind).result([Sample(value=v, floor=f) for v, f in samples], {})
    assert (result.value, result.floor) == (value, floor)
    assert (result.figure.low, result.figure.high) == figures


MORE = Row("a", "a", "/s", 0.5, 0.65)
LESS = Row("a", "a", "MB", 250, 180, at_most=True, kind="amount")


@pytest.mark.parametrize(
    ("row", "figure", "verdict"),
    [
        (MORE, 0.49, "missed"), (MORE, 0.5, "goal"), (MORE, 0.64, "goal"), (MORE, 0.65, "beyond"),
        (LESS, 251, "missed"), (LESS, 250, "goal"), (LESS, 181, "goal"), (LESS, 180, "beyond"),
        (Row("a", "a", "/s", 0.9), 5, "goal"),
    ],
)  # fmt: skip
def test_a_goal_is_a_bound(row: Row, figure: float, verdict: str) -> None:
    """A figure that equals a bound reaches it, whether more is better or less."""
    assert row.result([Sample(value=figure, floor=None)], {}).verdict == verdict


def test_previous_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run is compared with the newest result of each row in its mode; other files are ignored."""
    assert previous(tmp_path / "missing", "full") == {}
    (tmp_path / "other.json").write_text('{"some": "thing"}')
    save(run("2026-01-02T00:00:00Z", a=0.3), tmp_path)
    save(run("2026-01-01T00:00:00Z", a=0.1, b=0.2), tmp_path)
    save(run("2026-01-03T00:00:00Z", b=9).model_copy(update={"mode": "quick"}), tmp_path)
    medians = {name: r.figure.median for name, r in previous(tmp_path, "full").items()}
    assert medians == {"a": 0.3, "b": 0.2}
    assert "other.json is not a result of this benchmark" in capsys.readouterr().err
