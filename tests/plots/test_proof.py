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
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "gap 1.1 %" in texts and "no network of any width is below" in texts
    image = read_picture(tmp_path / "proof.png")
    assert has_color(image, BLUE) and has_color(image, VERMILLION)


@pytest.mark.parametrize("trace", [[(1.0, 2.0, 1.0)], [(1.0, 2.0, 2.0)] * 2, [(0.0, 0.0, 0.0)], [(1.0, -3.0, -4.0)]])
def test_short_and_closed_proofs_are_drawn(trace, tmp_path):
    plots.proof(trace, tmp_path / "proof.png")
    read_picture(tmp_path / "proof.png")


def test_without_a_bound_the_picture_says_so():
    figure = plots.proof([(1.0, 2.0, -np.inf), (2.0, 2.0, -np.inf)])
    assert [text.get_text() for text in figure.axes[0].texts] == ["this network", "nothing is proved"]


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
