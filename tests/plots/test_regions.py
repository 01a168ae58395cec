"""The picture of decision regions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxcvx.errors import InvalidInputError, JaxcvxError
from jaxcvx.plots import plot_regions, regions
from tests.helpers import read_picture

pytest.importorskip("matplotlib")

X = np.random.default_rng(0).standard_normal((30, 2))
LABELS = (X[:, 0] > 0).astype(int)
LINES = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.3], [0.0, 2.0, 1.0]])


def halves(Z: np.ndarray) -> np.ndarray:
    return (Z[:, 0] > 0).astype(int)


def draw(path: Any, **changes: Any) -> None:
    given = {"predict": halves, "hidden_lines": LINES, "X": X, "labels": LABELS, "classes": ("no", "yes")}
    plot_regions(path, **{**given, "title": "Half planes", **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hidden_lines": np.zeros((0, 3))},
        {"hidden_lines": []},
        {"hidden_lines": np.c_[LINES, [0.0, 2.0, 5.0]]},
        {"hidden_lines": np.c_[LINES, np.zeros(3)]},
        {"hidden_lines": [[0.0, 0.0, 1.0], [1.0, 0.0, 99.0]]},
        {"X": X[:1], "labels": LABELS[:1]},
        {"X": X * [1, 0]},
        {"X": X * [1e-8, 1e8] + [0, 1e9]},
        {"labels": np.zeros(30, int)},
        {"classes": [f"class {k} with a very long name" for k in range(12)], "labels": np.arange(30) % 12},
        {"classes": ("_a $x", "b_{"), "title": "$ \\frac _ ^", "axis_labels": ("cost $", "a $ b $")},
    ],
)
def test_picture(tmp_path: Path, changes: dict[str, Any]) -> None:
    draw(tmp_path / "a.png", **changes)
    assert read_picture(tmp_path / "a.png").shape == (900, 1200, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_background_is_the_prediction() -> None:
    codes = regions._codes_on_grid(halves, np.array([-1.0, -1.0]), np.array([3.0, 1.0]), 2)
    assert codes.shape == (480, 480)
    assert (codes[:, :120] == 0).all() and (codes[:, 120:] == 1).all()


def test_legend_names_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    monkeypatch.setattr(regions, "save_png", lambda figure, path: kept.append(figure))
    draw(tmp_path / "a.png", classes=("_hidden", "yes"))
    assert [text.get_text() for text in kept[0].legends[0].get_texts()] == ["_hidden", "yes", "neurons (3)"]


def test_clipped_lines() -> None:
    low, high = np.array([-1.0, 0.0]), np.array([3.0, 1.0])
    rows = np.array(
        [
            [2.0, 0.0, -2.0, 0.1],  # x = 1
            [0.0, -1.0, 0.25, 0.2],  # y = 1/4
            [1.0, -1.0, 0.0, 0.3],  # y = x: from corner side to top
            [1.0, 0.0, 5.0, 0.4],  # x = -5: outside
            [0.0, 1.0, -9.0, 0.5],  # y = 9: outside
            [0.0, 0.0, 1.0, 0.6],  # no line
            [1.0, 1.0, 1e6, 0.7],  # far away
        ]
    )
    segments, strength = regions.clip_lines(rows, low, high)
    assert strength.tolist() == [0.1, 0.2, 0.3]
    expected = [[[1, 0], [1, 1]], [[-1, 0.25], [3, 0.25]], [[0, 0], [1, 1]]]
    for segment, ends in zip(segments, expected, strict=True):
        np.testing.assert_allclose(sorted(segment.tolist()), ends, atol=1e-12)


def test_clipped_lines_at_random() -> None:
    rng = np.random.default_rng(1)
    low, high = np.array([-3.0, 1.0]), np.array([2.0, 400.0])
    rows = np.c_[rng.standard_normal((500, 2)) * [80, 1], 80 * rng.standard_normal(500), np.arange(500.0)]
    segments, which = regions.clip_lines(rows, low, high)
    assert 0 < len(segments) < 500
    kept = rows[which.astype(int)]
    values = np.einsum("kej,kj->ke", segments, kept[:, :2]) + kept[:, 2:3]
    np.testing.assert_allclose(values, 0, atol=1e-9 * np.abs(rows).max() * 400)
    assert (segments > low - 1e-9 * (high - low)).all() and (segments < high + 1e-9 * (high - low)).all()
    # A line crosses the box exactly if its corners lie on both sides.
    corners = np.array([[x, y] for x in (low[0], high[0]) for y in (low[1], high[1])])
    sides = rows[:, :2] @ corners.T + rows[:, 2:3]
    crosses = (sides.min(axis=1) < 0) & (sides.max(axis=1) > 0)
    assert which.tolist() == np.flatnonzero(crosses).tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": X[:, :1]}, "X: got shape"),
        ({"X": X[:0], "labels": LABELS[:0]}, "X: got shape"),
        ({"X": np.full((30, 2), np.nan)}, "X: got NaN"),
        ({"labels": LABELS[:3]}, "labels: got shape"),
        ({"labels": LABELS * 1.0}, "labels: got dtype"),
        ({"labels": LABELS + 1}, "labels: got codes"),
        ({"hidden_lines": LINES[:, :2]}, "hidden_lines: got shape"),
        ({"hidden_lines": np.full((2, 3), np.inf)}, "hidden_lines: got NaN"),
        ({"hidden_lines": np.c_[LINES, [1.0, -1.0, 0.0]]}, "hidden_lines: got strength"),
        ({"predict": lambda Z: halves(Z) + 1}, "predict: got codes"),
        ({"predict": lambda Z: halves(Z)[1:]}, "predict: got an answer"),
        ({"predict": lambda Z: Z[:, 0]}, "predict: got dtype"),
    ],
)
def test_bad_input(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        draw(tmp_path / "a.png", **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", ["missing/a.png", "", 3.5])
def test_bad_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JaxcvxError):
        draw(bad)
