"""The picture of a path of betas."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import plots
from tests.helpers import read_picture

pytest.importorskip("matplotlib")

K = 6
BETAS = np.geomspace(10.0, 0.1, K)


def solution(betas: Any = BETAS, **changes: Any) -> jaxcvx.Solution:
    upper = 5 * np.sqrt(BETAS)
    size = np.minimum(np.arange(K), 3)[:, None, None]
    weights = jnp.where(jnp.arange(4)[:, None] < size, 1.0, 0.0)
    nothing = np.full(K, -np.inf)
    made = jaxcvx.Solution(
        None,
        jaxcvx.Network(weights, weights),
        upper,
        nothing,
        upper,
        nothing,
        nothing,
        0.95 * upper,
        nothing,
        nothing,
        None,
    )
    return dataclasses.replace(made, betas=betas, **changes)


def validated(best: int = 4, sparse: int = 2, **changes: Any) -> jaxcvx.CrossValidation:
    mean = -(((np.arange(K) - best) / K) ** 2)
    scores = mean + np.array([[-0.1], [0.0], [0.1]])
    made = jaxcvx.CrossValidation(
        BETAS,
        scores,
        mean,
        np.full(K, 0.06),
        np.array(best),
        np.array(sparse),
        solution(),
        scores + 0.2,
        None,
        None,
        None,
        "r2",
    )  # type: ignore[arg-type]
    return dataclasses.replace(made, **changes)


def lines(ax: Any) -> dict[str, np.ndarray]:
    return {line.get_label(): np.asarray(line.get_ydata(), float) for line in ax.lines}


def test_three_panels(tmp_path: Any) -> None:
    result = validated()
    figure = plots.path(result, tmp_path / "a.png", title="A title with $ and _")
    assert read_picture(tmp_path / "a.png").shape[:2] == (570, 1800)
    objective, neurons, scores = figure.axes
    assert all(ax.get_xscale() == "log" for ax in figure.axes)
    np.testing.assert_allclose(lines(objective)["objective"], result.path.upper_bound)
    assert objective.get_title(loc="left") == "Objective and estimated bound"  # nothing is proved here
    np.testing.assert_allclose(lines(objective)["heuristic bound"], 0.95 * np.asarray(result.path.upper_bound))
    assert "proved bound" not in lines(objective)
    assert [0, 1, 2, 3, 3, 3] in [list(line.get_ydata()) for line in neurons.lines]
    np.testing.assert_allclose(lines(scores)["training"], result.train_scores.mean(axis=0))
    assert any(np.array_equal(line.get_ydata(), result.mean) for line in scores.lines)
    marks = [{float(line.get_xdata()[0]) for line in ax.lines if len(line.get_xdata()) == 2} for ax in figure.axes]
    assert marks == [{BETAS[4], BETAS[2]}] * 3
    shown = [text.get_text().replace("\n", " ") for text in scores.texts]
    assert shown == [f"best {BETAS[4]:.3g}", f"one standard error {BETAS[2]:.3g}"]
    assert "R²" in scores.get_title(loc="left")


def test_texts_are_inside_the_panel_wherever_the_marks_are() -> None:
    for best, sparse in ((0, 0), (K - 1, 0), (K - 1, K - 1), (3, 3), (1, 0)):
        figure = plots.path(validated(best, sparse))
        figure.draw_without_rendering()
        ax = figure.axes[2]
        assert len(ax.texts) == (1 if best == sparse else 2)
        for text in ax.texts:
            box = text.get_window_extent().transformed(ax.transAxes.inverted())
            assert -0.01 <= box.x0 and box.x1 <= 1.01


def test_a_path_without_scores_has_two_panels(tmp_path: Any) -> None:
    path = solution(lower_bound=0.9 * 5 * np.sqrt(BETAS))
    figure = plots.path(path, tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").shape[:2] == (570, 1200)
    assert len(figure.axes) == 2 and "proved bound" in lines(figure.axes[0])


def test_bad_scores_do_not_hide_the_good_ones() -> None:
    result = validated()
    result.mean[0], result.mean[1] = -1e6, np.nan
    low, high = plots.path(result).axes[2].get_ylim()
    assert -5 < low < high < 1


def test_one_fold_and_a_beta_of_zero() -> None:
    one = validated(scores=np.zeros((1, K)), train_scores=np.zeros((1, K)), standard_error=np.zeros(K), scoring="")
    assert plots.path(one).axes[2].get_title(loc="left").startswith("Score")
    zero = solution(betas=np.r_[BETAS[:-1], 0.0])
    assert plots.path(zero).axes[0].get_xscale() == "linear"


def test_errors() -> None:
    with pytest.raises(jaxcvx.InvalidTypeError, match="result: got int"):
        plots.path(3)  # type: ignore[arg-type]
    with pytest.raises(jaxcvx.InvalidInputError, match="result: got a solution at one beta"):
        plots.path(solution(betas=None))
