"""Files that earlier versions wrote load, hold the values of then, and let a solve resume (see tests/data)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import serialisation
from tests.data import make_old_files

DATA = Path(__file__).parent / "data"
# The types that version 0.1.0 could save.
OLD_TYPES = {
    *("Arrangements", "Blocks", "Certificate", "ConvFlatten", "ConvPool", "Cuts", "Dense", "FreeBias", "Hinge"),
    *("History", "Huber", "Interpolation", "Logistic", "Network", "PathBound", "PathReport", "Problem"),
    *("SoftmaxCrossEntropy", "Solution", "Squared", "StudentWeights", "TeacherCNN"),
}


@pytest.fixture
def old() -> dict[str, Any]:
    return jaxcvx.load(DATA / "objects.npz")


def types_in(tree: Any) -> set[str]:
    """Names of the types that a file's header lists."""
    if isinstance(tree, list):
        return set().union(*map(types_in, tree))
    if not isinstance(tree, dict):
        return set()
    own = {tree["type"]} if tree.get("kind") == "object" else set()
    return own.union(*map(types_in, tree.values()))


def test_old_file_holds_every_old_type_and_all_are_still_known() -> None:
    with np.load(DATA / "objects.npz", allow_pickle=False) as archive:
        header = json.loads(archive["__jaxcvx__"].tobytes())
    assert types_in(header["tree"]) == OLD_TYPES
    assert OLD_TYPES <= serialisation._MODULES.keys()


def test_data_and_problems_equal_those_of_the_recipe(old: dict[str, Any]) -> None:
    X, Y, rng = make_old_files.data()
    rng.standard_normal(6)
    problem, cells = old["problem"], old["cells"]
    chex.assert_trees_all_equal(
        (problem.X, problem.Y, problem.beta), (jnp.asarray(X), jnp.asarray(Y), jnp.asarray(0.5))
    )
    np.testing.assert_array_equal(cells.masks, cells.gates @ X.T >= 0)
    chex.assert_trees_all_equal(problem.arrangements, cells)
    chex.assert_trees_all_equal(old["problems"], make_old_files.other_problems(X, Y, rng))
    teacher = old["teacher"]
    np.testing.assert_array_equal(teacher.w_star, [0.6, 0.8, 0, 0])
    np.testing.assert_array_equal(teacher.a_star, [1, 2, 3])
    np.testing.assert_array_equal(jax.tree.leaves(old["path_bound"]), [0, 1])


@pytest.mark.parametrize("name", ["gated", "cone", "copositive", "cuts"])
def test_upper_bound_of_old_solutions_is_the_objective_of_their_network(old: dict[str, Any], name: str) -> None:
    problem, solution = old["problem"], old[name]
    value = jaxcvx.training_objective(solution.network, problem.X, problem.Y, 0.5)
    np.testing.assert_allclose(value, solution.upper_bound, rtol=1e-12)
    assert solution.converged and solution.lower_bound <= solution.upper_bound


@pytest.mark.parametrize(
    ("name", "solver"), [("gated", jaxcvx.ProximalGradient()), ("cone", jaxcvx.ConeADMM())], ids=["gated", "cone"]
)
def test_solving_again_gives_the_old_objective(old: dict[str, Any], name: str, solver: Any) -> None:
    again = jaxcvx.solve(old["problem"], solver)
    np.testing.assert_allclose(again.objective, old[name].objective, rtol=2 * solver.tol)
    from_params = jaxcvx.solve(old["problem"], solver, init=old[name].params)
    assert from_params.converged and from_params.num_steps <= again.num_steps
    assert again.scope == old[name].scope and jax.tree.structure(again) == jax.tree.structure(old[name])


def test_student_certificate_and_path_report_hold_the_values_of_the_recipe(old: dict[str, Any]) -> None:
    teacher, student, problem = old["teacher"], old["student"], old["problem"]
    np.testing.assert_allclose(teacher.objective(student.params), student.objective, rtol=1e-12)
    path = jaxcvx.trajectory(teacher, jaxcvx.GradientDescent(), 10, key=jax.random.key(0))
    chex.assert_trees_all_close(jaxcvx.path_report(path), old["report"], rtol=1e-9)
    certificate = old["certificate"]
    value = jaxcvx.training_objective(old["gated"].network, problem.X, problem.Y, 0.5)
    np.testing.assert_allclose(certificate.upper, value, rtol=1e-9)
    assert certificate.balanced == certificate.upper  # a field that the file does not have
    fresh = jaxcvx.certify(old["gated"].network, problem.X, problem.Y, 0.5, method="relaxed")
    np.testing.assert_allclose(certificate.lower, fresh.lower, rtol=1e-3)
    assert certificate.scope == "relaxation"


@pytest.mark.parametrize("name", ["gated", "adam"])
def test_solve_resumes_from_old_checkpoint(old: dict[str, Any], tmp_path: Path, name: str) -> None:
    """The file holds two blocks of 20 steps, or one of 50. The resumed solve ends where an uninterrupted one ends."""
    problem, solver, further = {
        "gated": (old["problem"], jaxcvx.ProximalGradient(tol=1e-12, phases="accelerated", max_steps=80), [60, 80]),
        "adam": (
            jaxcvx.make_problem(old["problem"].X, old["problem"].Y, 0.5),
            jaxcvx.GradientDescent(width=4, max_steps=150, tol=0.0),
            [100, 150],
        ),
    }[name]
    path, steps = tmp_path / "run.npz", []
    shutil.copy(DATA / f"checkpoint_{name}.npz", path)
    watch = [jaxcvx.Checkpoint(path), lambda info: steps.append(info.step)]
    resumed = jaxcvx.solve(problem, solver, key=jax.random.key(0), callback=watch)
    assert steps == further and resumed.num_steps == further[-1]
    whole = jaxcvx.solve(problem, solver, key=jax.random.key(0))
    chex.assert_trees_all_close(resumed.params, whole.params, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(resumed.objective, whole.objective, rtol=1e-12)
