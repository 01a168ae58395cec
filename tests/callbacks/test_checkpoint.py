"""Checkpoint: an interrupted solve resumes from the file; other problems ignore the file."""

import dataclasses
import os

import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx import serialisation
from jaxcvx.callbacks.checkpoint import fingerprint
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


def test_an_interrupted_solve_resumes_from_the_last_block(tmp_path):
    path, problem = tmp_path / "run.npz", _problem()
    whole = jaxcvx.solve(problem, SLOW)
    assert int(whole.num_steps) > 60
    _interrupted(problem, SLOW, path, after=40)
    saved = jaxcvx.load(path)["params"]
    assert np.any(np.asarray(saved) != 0)
    resumed, seen = _steps_seen(problem, SLOW, path)
    assert seen[0][1] < float(problem.loss.value(0 * problem.Y, problem.Y))  # the solve did not start from zero again
    np.testing.assert_allclose(resumed.objective, whole.objective, rtol=1e-8)
    assert resumed.converged
    again, seen = _steps_seen(problem, dataclasses.replace(SLOW, tol=1e-8), path)
    assert seen == [] and again.num_steps == resumed.num_steps  # the solve had ended before
    np.testing.assert_array_equal(again.objective, resumed.objective)


def test_only_the_last_state_is_written_if_every_is_large(tmp_path):
    path, problem = tmp_path / "run.npz", _problem()

    def interrupt(info):
        assert not path.exists()
        if info.step >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jaxcvx.solve(problem, SLOW, callback=[jaxcvx.Checkpoint(path, every=10**6), interrupt])
    solution, seen = _steps_seen(problem, SLOW, path, every=10**6)
    assert seen[0][0] == 40  # the block after the one where the solve was interrupted
    np.testing.assert_array_equal(jaxcvx.load(path)["params"], solution.params)
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
    noise = [jaxcvx.AnnealedNoise(radius={"hidden": size}) for size in (0.1, 0.2)]
    assert fingerprint(problem, noise[0]) != fingerprint(problem, noise[1])


def test_networks_are_resumed_too(tmp_path):
    path, problem = tmp_path / "run.npz", _problem().replace(arrangements=None)
    solver = jaxcvx.GradientDescent(width=5, max_steps=100)
    interrupted = jaxcvx.solve(problem, solver, key=jax.random.key(0), callback=jaxcvx.Checkpoint(path))
    longer = dataclasses.replace(solver, max_steps=200)
    resumed, seen = _steps_seen(problem, longer, path)  # no key is needed: the state comes from the file
    assert [step for step, _ in seen] == [150, 200] and resumed.num_steps == 200
    assert resumed.objective < interrupted.objective
    whole = jaxcvx.solve(problem, longer, key=jax.random.key(0), callback=lambda info: False)
    np.testing.assert_array_equal(whole.params.hidden, resumed.params.hidden)
    assert whole.history.step.tolist() == resumed.history.step.tolist() == [0, 50, 100, 150, 200]


def test_smaller_limits_end_a_resumed_solve_at_once(tmp_path):
    path, problem = tmp_path / "run.npz", _problem()
    _interrupted(problem, SLOW, path, after=40)
    for change, status in (({"max_steps": 30}, jaxcvx.Status.MAX_STEPS), ({"tol": 0.9}, jaxcvx.Status.CONVERGED)):
        solution, seen = _steps_seen(problem, dataclasses.replace(SLOW, **change), path)
        assert solution.status == status and seen == [] and solution.num_steps == 40


def test_a_file_with_params_only_gives_the_start(tmp_path):
    path, problem = tmp_path / "run.npz", _problem()
    whole = jaxcvx.solve(problem, SLOW)
    header = {"kind": "solve-checkpoint", "fingerprint": fingerprint(problem, SLOW)}
    serialisation.save(path, whole.params, header)
    again, seen = _steps_seen(problem, SLOW, path)
    assert [step for step, _ in seen] == [0] and again.converged


def test_an_unknown_state_gives_the_start(tmp_path):
    path, problem = tmp_path / "run.npz", _problem()
    whole = jaxcvx.solve(problem, SLOW, callback=jaxcvx.Checkpoint(path))
    saved, metadata = serialisation.load_with_metadata(path)
    other = ({".state.other": saved["state"][".status"]}, {".phase": np.int32(7)}, {".status": np.zeros(2, np.int32)})
    for change in other:
        serialisation.save(path, saved | {"state": saved["state"] | change}, metadata)
        again, seen = _steps_seen(problem, SLOW, path)
        assert [step for step, _ in seen] == [0]
        np.testing.assert_allclose(again.objective, whole.objective, rtol=1e-8)
    serialisation.save(path, [1], metadata)
    with pytest.raises(jaxcvx.errors.FileFormatError, match="damaged"):
        jaxcvx.solve(problem, SLOW, callback=jaxcvx.Checkpoint(path))


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    path, problem = tmp_path / "run.npz", _problem()
    kept = tmp_path / "run.npz.notes.tmp"
    for name in (kept, tmp_path / "run.npz.0123456789abcdef.tmp"):
        name.write_text("")
    jaxcvx.solve(problem, SLOW, callback=jaxcvx.Checkpoint(path))
    assert sorted(os.listdir(tmp_path)) == ["run.npz", kept.name]


def test_hooks_end_even_if_one_of_them_fails(tmp_path):
    class Broken(jaxcvx.Progress):
        def end(self, solution):
            raise RuntimeError("mine")

    path, problem = tmp_path / "run.npz", _problem()
    with pytest.raises(RuntimeError, match="mine"):
        jaxcvx.solve(problem, SLOW, callback=[Broken("silent"), jaxcvx.Checkpoint(path, every=10**6), Broken("silent")])
    assert path.exists()


def test_column_generation_is_resumed(tmp_path):
    path, problem = tmp_path / "run.npz", _problem().replace(arrangements=None)
    solver = jaxcvx.ColumnGeneration(tol=1e-6)
    whole = jaxcvx.solve(problem, solver, callback=jaxcvx.Checkpoint(path))
    assert isinstance(jaxcvx.load(path)["params"], jaxcvx.Network)
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
