"""Checkpoint: a solve that was cut short goes on where it was; other problems do not."""

import dataclasses
import os

import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx.resume import fingerprint
from tests.helpers import gaussian_data


def _problem(seed=0, beta=0.05):
    X, Y = gaussian_data(seed, 10, 3)
    cells = jaxcvx.enumerate_arrangements(X)
    return jaxcvx.make_problem(X, Y, beta, arrangements=cells)


def _steps_seen(problem, solver, path, **options):
    seen = []

    def watch(info):
        seen.append((info.step, info.objective))

    return jaxcvx.solve(problem, solver, callback=[jaxcvx.Checkpoint(path, **options), watch]), seen


def _interrupted(problem, solver, path, after, **options):
    def interrupt(info):
        if info.step >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jaxcvx.solve(problem, solver, callback=[jaxcvx.Checkpoint(path, **options), interrupt])


SLOW = jaxcvx.ProximalGradient(tol=1e-8, phases="accelerated", max_steps=50_000)


def test_an_interrupted_solve_goes_on_from_the_last_block(tmp_path):
    path, problem = tmp_path / "run.npz", _problem()
    whole = jaxcvx.solve(problem, SLOW)
    assert int(whole.num_steps) > 60
    _interrupted(problem, SLOW, path, after=40)
    saved = jaxcvx.load(path)
    assert np.any(np.asarray(saved) != 0)
    resumed, seen = _steps_seen(problem, SLOW, path)
    assert seen[0][1] < float(problem.loss.value(0 * problem.Y, problem.Y))  # not from zero, where it began
    np.testing.assert_allclose(resumed.objective, whole.objective, rtol=1e-8)
    assert resumed.converged
    again, seen = _steps_seen(problem, dataclasses.replace(SLOW, tol=1e-8), path)
    assert [step for step, _ in seen] == [0]  # done already: the final params were saved
    np.testing.assert_allclose(again.objective, whole.objective, rtol=1e-8)


def test_nothing_but_the_final_params_before_every_steps(tmp_path):
    path, problem = tmp_path / "run.npz", _problem()
    _interrupted(problem, SLOW, path, after=20, every=1000)
    assert not path.exists()
    solution, _ = _steps_seen(problem, SLOW, path, every=1000)
    np.testing.assert_array_equal(jaxcvx.load(path), solution.params)
    assert os.listdir(tmp_path) == ["run.npz"]  # no temporary files left


@pytest.mark.parametrize("change", ["data", "beta", "solver"])
def test_other_problems_start_anew(tmp_path, change):
    path, problem, solver = tmp_path / "run.npz", _problem(), SLOW
    jaxcvx.solve(problem, solver, callback=jaxcvx.Checkpoint(path))
    if change == "data":
        problem = problem.replace(Y=2 * problem.Y)
    elif change == "beta":
        problem = problem.replace(beta=0.06)
    else:
        solver = dataclasses.replace(solver, switch_gap=1e-2)
    _, seen = _steps_seen(problem, solver, path)
    np.testing.assert_allclose(seen[0][1], problem.loss.value(0 * problem.Y, problem.Y), rtol=1e-12)


def test_limits_are_not_part_of_the_fingerprint():
    problem = _problem()
    assert fingerprint(problem, SLOW) == fingerprint(problem, dataclasses.replace(SLOW, max_steps=5, tol=0.1))
    assert fingerprint(problem, SLOW) != fingerprint(problem, jaxcvx.ConeADMM())
    assert fingerprint(problem, SLOW) == fingerprint(_problem(), SLOW)


def test_networks_are_resumed_too(tmp_path):
    path, problem = tmp_path / "run.npz", _problem().replace(arrangements=None)
    solver = jaxcvx.GradientDescent(width=5, max_steps=100)
    first = jaxcvx.solve(problem, solver, key=jax.random.key(0), callback=jaxcvx.Checkpoint(path))
    second, seen = _steps_seen(problem, solver, path)  # no key: the start comes from the file
    saved = jaxcvx.training_objective(first.params, problem.X, problem.Y, problem.beta)
    np.testing.assert_allclose(seen[0][1], saved, rtol=1e-12)
    assert second.objective <= first.objective * (1 + 1e-12)


def test_column_generation_is_resumed(tmp_path):
    path, problem = tmp_path / "run.npz", _problem().replace(arrangements=None)
    solver = jaxcvx.ColumnGeneration(tol=1e-6)
    whole = jaxcvx.solve(problem, solver, callback=jaxcvx.Checkpoint(path))
    assert isinstance(jaxcvx.load(path), jaxcvx.Network)
    resumed, seen = _steps_seen(problem, solver, path)
    np.testing.assert_allclose(seen[0][1], whole.upper_bound, rtol=1e-5)
    np.testing.assert_allclose(resumed.upper_bound, whole.upper_bound, rtol=1e-5)


def test_bad_arguments(tmp_path):
    with pytest.raises(jaxcvx.InvalidInputError, match="every"):
        jaxcvx.Checkpoint(tmp_path / "run.npz", every=0)
    path = tmp_path / "notes.txt"
    path.write_text("not a checkpoint")
    with pytest.raises(jaxcvx.errors.FileFormatError):
        jaxcvx.solve(_problem(), SLOW, callback=jaxcvx.Checkpoint(path))
    assert path.read_text() == "not a checkpoint"
    with pytest.raises(jaxcvx.InvalidInputError, match="FrankWolfe"):
        jaxcvx.solve(_problem(), jaxcvx.FrankWolfe(radius=1.0), callback=jaxcvx.Checkpoint(tmp_path / "f.npz"))
