"""Progress: its lines of text, its bar, and the cases without any output."""

import sys

import jax
import numpy as np
import pytest

import jaxcvx
from tests.helpers import gaussian_data


def _problem():
    X, Y = gaussian_data(0, 8, 2)
    cells = jaxcvx.enumerate_arrangements(X)
    return jaxcvx.make_problem(X, Y, 0.1, arrangements=cells)


def test_text_shows_steps_and_the_end(capsys):
    solver = jaxcvx.ProximalGradient(tol=1e-6, max_steps=300, phases="accelerated")
    solution = jaxcvx.solve(_problem(), solver, callback=jaxcvx.Progress("text", seconds=0))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(solution.history.step) + 1
    assert lines[1].startswith("ProximalGradient step 20/300  objective ")
    name = jaxcvx.Status(int(solution.status)).name
    assert lines[-1].startswith(f"ProximalGradient {name} after {int(solution.num_steps)} steps")


def test_text_is_limited_in_time(capsys):
    solver = jaxcvx.ProximalGradient(tol=1e-6, max_steps=300, phases="accelerated")
    jaxcvx.solve(_problem(), solver, callback=jaxcvx.Progress("text", seconds=1e6))
    assert len(capsys.readouterr().err.splitlines()) == 2  # the first line and the last


@pytest.mark.parametrize("kind", ["silent", "auto"])
def test_nothing_is_printed_without_a_terminal(capsys, kind):
    assert jaxcvx.Progress(kind).kind == "silent"
    jaxcvx.solve(_problem(), jaxcvx.ProximalGradient(), callback=jaxcvx.Progress(kind))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_rich_bar_ends_with_the_solve(capsys):
    pytest.importorskip("rich")
    progress = jaxcvx.Progress("rich")
    jaxcvx.solve(_problem(), jaxcvx.ProximalGradient(tol=1e-4), callback=progress)
    assert "residual" in capsys.readouterr().err
    assert progress._bar is None

    def fail(info):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        jaxcvx.solve(_problem(), jaxcvx.ProximalGradient(), callback=[progress, fail])
    assert progress._bar is None  # the bar is stopped also after a failure


def test_auto_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert jaxcvx.Progress().kind == "text"


def test_bad_arguments():
    with pytest.raises(jaxcvx.InvalidInputError, match="kind"):
        jaxcvx.Progress("loud")
    with pytest.raises(jaxcvx.InvalidInputError, match="seconds"):
        jaxcvx.Progress("text", seconds=-1)
    with pytest.raises(jaxcvx.InvalidTypeError, match="callback"):
        jaxcvx.solve(_problem(), jaxcvx.ProximalGradient(), callback=[3])


def test_several_callbacks_all_see_every_block_and_any_can_stop():
    seen: list[list[int]] = [[], []]

    def first(info):
        seen[0].append(info.step)
        return info.step >= 20

    def second(info):
        seen[1].append(info.step)

    solution = jaxcvx.solve(_problem(), jaxcvx.ProximalGradient(tol=0, phases="accelerated"), callback=(first, second))
    assert seen[0] == seen[1] == [0, 20]
    assert jaxcvx.Status(int(solution.status)) is jaxcvx.Status.STOPPED


def test_callbacks_are_refused_under_jit():
    problem = _problem()
    with pytest.raises(jaxcvx.InvalidInputError, match="callback"):
        jax.jit(lambda b: jaxcvx.solve(problem.replace(beta=b), jaxcvx.ProximalGradient(), callback=print).gap)(
            np.float64(0.1)
        )
