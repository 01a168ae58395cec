"""The picture of a proof: lines of the running best bounds, labels, and bad traces."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcvx import plots
from jaxcvx.errors import InvalidInputError
from jaxcvx.plots.figure import BLUE, VERMILLION
from tests.helpers import has_color, read_picture

pytest.importorskip("matplotlib")

TRACE = [(0.5, 10.0, -np.inf), (1.0, 10.0, 6.0), (2.0, 9.5, 5.5), (9.0, 9.5, 9.4)]


def test_the_lines_are_the_best_bounds_so_far(tmp_path):
    figure = plots.proof(TRACE, tmp_path / "proof.png", title="t")
    upper, lower = (line.get_xydata() for line in figure.axes[0].lines)
    np.testing.assert_allclose(upper, [(0.5, 10), (1, 10), (2, 9.5), (9, 9.5)])
    np.testing.assert_allclose(lower, [(1, 6), (2, 6), (9, 9.4)])
    assert figure.axes[0].get_title(loc="left") == "No two-layer ReLU network is better by more than 1.1 %."
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["this network: 9.5", "no network of any width is below this line, 9.4 in the end"]
    image = read_picture(tmp_path / "proof.png")
    assert has_color(image, BLUE) and has_color(image, VERMILLION)


SHORT = [[(1.0, 2.0, 1.0)], [(1.0, 2.0, 2.0)] * 2, [(0.0, 0.0, 0.0)], [(1.0, -3.0, -4.0)], [(0.0, -3.0, -99.0)]]
LATE = [(0.1, 10.0, 1.0), (60.0, 10.0, 9.5)]
EARLY = [(0.1, 10.0, -500.0), (0.2, 10.0, 9.0), (60.0, 10.0, 9.5)]


@pytest.mark.parametrize("trace", [*SHORT, TRACE, LATE, EARLY])
def test_texts_are_inside_and_off_the_lines(trace):
    figure = plots.proof(trace)
    figure.draw_without_rendering()
    ax = figure.axes[0]
    assert len(ax.texts) == 2
    for text in ax.texts:
        box = text.get_window_extent().transformed(ax.transAxes.inverted())
        assert 0 <= box.x0 and box.x1 <= 1 and 0 <= box.y0 and box.y1 <= 1
        for line in ax.lines:
            x, y = line.get_xydata().T
            over = np.linspace(*ax.transData.inverted().transform(text.get_window_extent().get_points())[:, 0], 50)
            k = np.searchsorted(x, over, side="right") - 1  # as a step holds until the next one
            at = np.stack([over[k >= 0], y[k[k >= 0]]], axis=1)
            heights = ax.transAxes.inverted().transform(ax.transData.transform(at))[:, 1]
            assert ((heights < box.y0) | (heights > box.y1)).all(), text.get_text()


def test_the_axis_of_seconds_shows_where_the_gap_closes():
    assert plots.proof(EARLY).axes[0].get_xscale() == "log"
    assert plots.proof(LATE).axes[0].get_xscale() == "linear"
    assert plots.proof(EARLY).axes[0].get_xlim() == (0.1, 60.0)
    assert -5 < plots.proof(EARLY).axes[0].get_ylim()[0]  # the first bound does not flatten the others


@pytest.mark.parametrize(
    ("lower", "share"),
    [(9.9401, "0.6 %"), (9.906, "0.94 %"), (9.9053, "0.95 %"), (9.9, "1 %"), (8.76, "13 %"),
     (-5.0, "150 %"), (10 - 2.31e-6, "2.4e-05 %")],
)  # fmt: skip
def test_the_gap_is_rounded_up(lower, share):
    sentence = plots.proof([(1.0, 10.0, lower)]).axes[0].get_title(loc="left")
    assert sentence == f"No two-layer ReLU network is better by more than {share}."


def test_a_closed_gap_and_no_bound_are_said():
    assert plots.proof(SHORT[1]).axes[0].get_title(loc="left") == "No two-layer ReLU network is better."
    figure = plots.proof([(1.0, 2.0, -np.inf), (2.0, 2.0, -np.inf)])
    assert figure.axes[0].get_title(loc="left") == "Nothing is proved about other networks."
    assert [text.get_text() for text in figure.axes[0].texts] == ["this network: 2"]


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        ([], "shape"),
        ([(1.0, 2.0)], "shape"),
        ([(1.0, np.inf, 0.0)], "finite objective"),
        ([(2.0, 1.0, 0.0), (1.0, 1.0, 0.0)], "seconds in order"),
        ([(1.0, 1.0, 0.0), (2.0,)], "different kinds"),
    ],
)
def test_bad_traces(trace, words):
    with pytest.raises(InvalidInputError, match=f"^trace: .*{words}"):
        plots.proof(trace)
