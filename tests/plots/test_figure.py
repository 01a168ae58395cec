"""Figures: files are written completely or not at all, no global state changes, titles are readable."""

import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from jaxcvx.errors import FileFormatError, InvalidTypeError, MissingExtraError
from jaxcvx.plots.figure import BLUE, DPI, label, new_figure, save_png, shorten, style


def picture():
    figure = new_figure(3, 2, "A title")
    ax = figure.subplots()
    style(ax)
    ax.plot([0, 1], [0, 1], color=BLUE)
    label(ax, 0.5, 0.5, "half$", "black")
    return figure


def test_a_png_of_the_size_asked_for(tmp_path):
    save_png(picture(), tmp_path / "a.png")
    pixels = imread(tmp_path / "a.png")
    assert pixels.shape[:2] == (2 * DPI, 3 * DPI)
    blue = np.array([int(BLUE[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    assert (np.abs(pixels[..., :3] - blue).max(axis=2) < 0.02).sum() > 100  # the line is visible
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_no_pyplot_and_no_settings_are_touched(tmp_path):
    before = dict(matplotlib.rcParams)
    loaded = "matplotlib.pyplot" in sys.modules
    save_png(picture(), tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before and ("matplotlib.pyplot" in sys.modules) == loaded


def test_the_old_picture_survives_a_failure(tmp_path):
    target = tmp_path / "a.png"
    save_png(picture(), target)
    before, broken = target.read_bytes(), picture()
    broken.savefig = lambda *args, **kwargs: (_ for _ in ()).throw(RuntimeError("no ink"))
    with pytest.raises(RuntimeError, match="no ink"):
        save_png(broken, target)
    assert target.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("path", "error"), [("missing/a.png", FileFormatError), (7.5, InvalidTypeError), ("a\0b", InvalidTypeError)]
)
def test_bad_paths_are_named(tmp_path, monkeypatch, path, error):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match="missing/a.png" if error is FileFormatError else "path"):
        save_png(picture(), path)


def test_only_axes_with_numbers_are_drawn():
    spines = picture().axes[0].spines
    assert [side for side in ("left", "bottom", "top", "right") if spines[side].get_visible()] == ["left", "bottom"]


def test_long_titles_are_cut():
    assert shorten("a  b\nc", 9) == "a b c"
    assert shorten("abcdef", 6) == "abcdef" and shorten("abcdefg", 6) == "abcde…"
    title = new_figure(2, 2, 100 * "x").get_suptitle()
    assert len(title) == 22 and title.endswith("…")


def test_missing_matplotlib_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'jaxcvx\[plots\]'"):
        new_figure(1, 1)
