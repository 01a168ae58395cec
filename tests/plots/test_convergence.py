"""The convergence picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxcvx.errors import InvalidInputError, JaxcvxError, MissingExtraError
from jaxcvx.plots import convergence, plot_convergence
from jaxcvx.solvers.core.solution import History
from tests.helpers import read_picture

pytest.importorskip("matplotlib")


def history(objective: Any, bound: Any, step: Any = None, dtype: Any = np.float64) -> History:
    objective, bound = np.asarray(objective, dtype), np.asarray(bound, dtype)
    step = np.arange(len(objective)) * 20 if step is None else np.asarray(step)
    return History(step.astype(np.int32), objective, bound, np.asarray(len(objective), np.int32))


def png_size(path: Path) -> tuple[int, int]:
    height, width, _ = read_picture(path).shape
    return width, height


FALLING = np.array([30.0, 9.0, 4.0, 2.0, 5.0, 1.5, 1.5])
RISING = np.array([-np.inf, 0.01, 0.5, 1.2, 0.3, 1.49, 1.5 - 1e-9])
RUN = [(0.1 * k, 1.6 + 40 * 0.5**k) for k in range(20)]
CASES = {
    "plain": history(FALLING, RISING),
    "float32": history(FALLING, RISING, dtype=np.float32),
    "no bound": history(FALLING, np.full(7, -np.inf)),
    "nan bound": history(FALLING, np.full(7, np.nan)),
    "bound above": history(FALLING, np.full(7, 1.5 + 1e-9)),
    "negative bounds": history(FALLING, RISING - 40),
    "negative objective": history(FALLING - 40, RISING - 40),
    "zero": history(np.zeros(3), np.zeros(3)),
    "constant": history(np.full(3, 7.0), np.full(3, 6.999999)),
    "one check": history([3.0], [1.0], step=[0]),
    "equal steps": history(FALLING, RISING, step=[0, 20, 40, 40, 40, 41, 42]),
    "early": history(1 + 0.5 ** np.arange(300), 1 - 0.5 ** np.arange(300)),
    "infinite start": history([np.inf, np.nan, 2.0, 1.0], [-np.inf, 0.0, 0.1, 0.9]),
    "large": history(FALLING * 1e200, RISING * 1e200),
    "small": history(FALLING * 1e-200, RISING * 1e-200),
}


@pytest.mark.parametrize("name", CASES)
def test_two_panels(tmp_path: Path, name: str) -> None:
    plot_convergence(tmp_path / "a.png", history=CASES[name], title="A title with $ and _")
    assert png_size(tmp_path / "a.png") == (1200, 570)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("upper", "lower"),
    [(1.5, 1.5), (1.5, 1.4), (1.5, 0.3), (1.5, 1e-9), (1.5, -3.0), (1.5, -np.inf), (1.5, None), (None, None)],
)
@pytest.mark.parametrize("name", ["plain", "no bound"])
def test_baseline_panel(tmp_path: Path, name: str, upper: float | None, lower: float | None) -> None:
    bounds = {"upper_bound": upper, "lower_bound": lower}
    plot_convergence(tmp_path / "a.png", history=CASES[name], title="", **bounds, baseline=RUN)
    width, height = png_size(tmp_path / "a.png")
    assert width == 1725 and height == 570


def test_texts_of_the_third_panel_do_not_overlap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = []
    monkeypatch.setattr(convergence, "save_png", lambda figure, path: kept.append(figure))
    for lower in (1.5, 1.45, 1.2, 0.8, 0.1, -1.0):
        plot_convergence(tmp_path / "a.png", history=CASES["plain"], upper_bound=1.5, lower_bound=lower, baseline=RUN)
        figure = kept[-1]
        figure.canvas.draw()
        frames = [text.get_window_extent() for text in figure.axes[2].texts]
        assert len(frames) in (
            2,
            3,
        )  # the heading gives the lower bound if the axis shows the excess over it
        for i, a in enumerate(frames):
            assert figure.bbox.containsx(a.x0) and figure.bbox.containsx(a.x1)
            assert not any(a.overlaps(b) for b in frames[:i]), lower


@pytest.mark.parametrize(
    ("run", "shown"),
    [
        (np.array(RUN), RUN),
        ([list(pair) for pair in RUN], RUN),
        ([*RUN, (3.0, np.nan)], RUN),
        (RUN[:1], RUN[:1]),
        ([(0.0, 2.0)], [(0.0, 2.0)]),
    ],
    ids=["array", "lists", "nan", "one", "time zero"],
)
def test_baseline_of_every_form_is_drawn_as_its_points(monkeypatch, tmp_path: Path, run: Any, shown: Any) -> None:
    kept = []
    monkeypatch.setattr(convergence, "save_png", lambda figure, path: kept.append(figure))
    plot_convergence(tmp_path / "a.png", history=CASES["plain"], upper_bound=1.5, baseline=run)
    lines = [line.get_xydata() for line in kept[0].axes[2].lines]
    print([line.tolist()[:4] for line in lines])
    assert any(_equal_points(line, shown) for line in lines)


def _equal_points(line: np.ndarray, points: Any) -> bool:
    line = line[np.isfinite(line).all(axis=1)]
    return line.shape == np.shape(points) and np.allclose(line, points)


def test_best_so_far() -> None:
    trace = convergence._trace(CASES["plain"])
    assert (np.diff(trace.best_objective) <= 0).all() and (np.diff(trace.best_bound[1:]) >= 0).all()
    assert np.isnan(trace.gap[0])
    assert trace.best_gap[-1] == pytest.approx(1e-9 / 1.5, rel=1e-6)


def test_only_counted_entries_are_shown() -> None:
    padded = History(np.arange(9), np.r_[3.0, 2.0, np.zeros(7)], np.zeros(9), np.asarray(2))
    assert convergence._trace(padded).objective.tolist() == [3.0, 2.0]


def test_no_gap_below_the_precision() -> None:
    for dtype in (np.float32, np.float64):
        trace = convergence._trace(history([2.0, 1.0], [0.5, 1.0], dtype=dtype))
        assert trace.best_gap[-1] == np.finfo(dtype).eps


@pytest.mark.parametrize(
    "bad",
    [history([], []), history([np.nan], [0.0]), History(np.arange(2), np.ones(3), np.ones(3), np.asarray(3))],
)
def test_bad_history(tmp_path: Path, bad: History) -> None:
    with pytest.raises(InvalidInputError, match="history: got"):
        plot_convergence(tmp_path / "a.png", history=bad)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [[], [1.0, 2.0], [(0.0, np.nan)], [("a", "b")], [(0.0,)]])
def test_bad_baseline(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(InvalidInputError, match="baseline: got"):
        plot_convergence(tmp_path / "a.png", history=CASES["plain"], baseline=bad)


@pytest.mark.parametrize("bad", ["missing/a.png", "", ".", "a\0b.png", 3.5, None])
def test_bad_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JaxcvxError):
        plot_convergence(bad, history=CASES["plain"])
    assert not list(tmp_path.iterdir())


def test_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    def fail(self: Any, stream: Any, **kwargs: Any) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(JaxcvxError, match="No space left"):
        plot_convergence(tmp_path / "a.png", history=CASES["plain"])
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"jaxcvx\[plots\]"):
        plot_convergence(tmp_path / "a.png", history=CASES["plain"])


def test_global_state_is_left_alone(tmp_path: Path) -> None:
    script = """
import sys
import numpy as np
from jaxcvx.plots import plot_convergence, plot_regions
from jaxcvx.solvers.core.solution import History
from tests.helpers import read_picture
assert "matplotlib" not in sys.modules
history = History(np.arange(3), np.array([3.0, 2.0, 1.5]), np.array([-np.inf, 1.0, 1.4]), np.asarray(3))
run = [(0.0, 2.0), (1.0, 1.6)]
plot_convergence(sys.argv[1], history=history, upper_bound=1.5, lower_bound=1.4, baseline=run)
X = np.eye(2)
plot_regions(sys.argv[1], predict=lambda Z: (Z[:, 0] > 0).astype(int), hidden_lines=[[1, 0, 0]], X=X,
             labels=np.array([0, 1]), classes=("a", "b"))
assert "matplotlib.pyplot" not in sys.modules
import matplotlib
assert matplotlib.rcParams == matplotlib.rcParamsOrig
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "a.png"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
