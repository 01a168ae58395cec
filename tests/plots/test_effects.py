"""The picture of effects: partial dependence by hand, the order of features, classes, and features of two values."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcvx import plots
from jaxcvx.errors import InvalidInputError
from tests.helpers import read_picture

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

RNG = np.random.default_rng(0)
X = np.column_stack([RNG.standard_normal((80, 3)), RNG.integers(2, size=80), np.ones(80)])
NAMES = ["weak", "strong", "none", "two", "constant"]


def model(X):
    return 0.2 * X[:, 0] + np.abs(X[:, 1]) + 0.5 * X[:, 3] * X[:, 0]


def test_curves_are_means_over_the_rows(tmp_path):
    figure = plots.effects(model, X, NAMES, tmp_path / "e.png", y_label="y")
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[0] == "strong" and sorted(titles) == sorted(NAMES)
    for ax, name in zip(figure.axes, titles, strict=True):
        k = NAMES.index(name)
        for value, height in ax.lines[0].get_xydata():
            replaced = X.copy()
            replaced[:, k] = value
            assert height == pytest.approx(model(replaced).mean())
    two = figure.axes[titles.index("two")].lines[0]
    np.testing.assert_array_equal(two.get_xdata(), [0, 1])
    assert two.get_marker() == "o"
    read_picture(tmp_path / "e.png")


def test_every_class_has_a_line_and_of_two_the_second():
    three = np.stack([X[:, 0], -X[:, 0], X[:, 1]], axis=1)

    def scores(rows):
        return np.exp(rows[:, :2] @ np.ones((2, 3))) if rows.shape != X.shape else np.resize(three, (len(rows), 3))

    figure = plots.effects(scores, X, NAMES, classes=["p", "q", "r"], num=2)
    assert len(figure.axes) == 2 and len(figure.axes[0].lines) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["p", "q", "r"]
    pair = plots.effects(
        lambda rows: np.stack([-model(rows), model(rows)], axis=1), X, NAMES, classes=["no", "yes"], y_label="chance"
    )
    assert pair.axes[0].get_ylabel() == "chance of yes" and len(pair.axes[0].lines) == 1
    alone = plots.effects(model, X, NAMES)
    np.testing.assert_allclose(pair.axes[0].lines[0].get_ydata(), alone.axes[0].lines[0].get_ydata())


def test_a_given_order_is_kept_and_other_features_are_not_evaluated():
    seen = []

    def watched(rows):
        seen.append(np.asarray(rows))
        return model(rows)

    figure = plots.effects(watched, X, NAMES, order=[3, 0, 1], num=2)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["two", "weak"]
    assert all(np.array_equal(rows[:80, 1], X[:, 1]) for rows in seen)


def test_outputs_without_names_and_names_with_signs(tmp_path):
    figure = plots.effects(lambda rows: rows[:, :3], X, ["a $x_", *NAMES[1:]], tmp_path / "e.png", y_label="$ of $x_")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["output 1", "output 2", "output 3"]
    assert figure.axes[0].get_ylabel() == "$ of $x_"
    read_picture(tmp_path / "e.png")


def test_an_additive_function_is_found_again():
    """The effect of a term is that term plus the mean of the other ones."""
    figure = plots.effects(lambda rows: np.sin(rows[:, 0]) + 3 * rows[:, 1] ** 2, X, NAMES, order=[0, 1])
    first, second = (ax.lines[0].get_xydata().T for ax in figure.axes)
    np.testing.assert_allclose(first[1], np.sin(first[0]) + 3 * (X[:, 1] ** 2).mean())
    np.testing.assert_allclose(second[1], 3 * second[0] ** 2 + np.sin(X[:, 0]).mean())


def test_large_tables_are_thinned_evenly():
    rows = np.arange(2000.0)[:, None]
    sizes = []
    plots.effects(lambda X: sizes.append(len(X)) or np.asarray(X)[:, 0], rows, ["a"])
    assert set(sizes) == {500}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": NAMES[1:]}, "^names"),
        ({"num": 0}, "^num"),
        ({"classes": ["a", "b", "c"]}, "^classes"),
        ({"order": [0, 0]}, "^order"),
        ({"order": [5]}, "^order"),
        ({"order": []}, "^order"),
        ({"X": [["a"] * 5]}, "^X"),
        ({"X": np.full((2, 5), np.nan)}, "^X"),
    ],
)
def test_bad_arguments(change, words):
    options = {"X": X, "names": NAMES} | change

    def both(rows):
        return np.stack([model(rows)] * 2, axis=1)

    with pytest.raises(InvalidInputError, match=words):
        plots.effects(both, **options)
