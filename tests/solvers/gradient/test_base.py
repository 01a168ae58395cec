"""Smooth problems: everything that gradients alone can solve goes through the same driver."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcvx
from jaxcvx.numerics.trees import all_finite
from jaxcvx.problems.smooth import SmoothProblem, unit

MATRIX = np.diag([3.0, 2.0, 1.0])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LeastEigenvector(SmoothProblem):
    """``1/2 w^T A w + 1/2 (s - 1)^2`` over unit vectors w and numbers s >= 2."""

    A: jax.Array

    def objective(self, params):
        return 0.5 * params["w"] @ self.A @ params["w"] + 0.5 * (params["s"] - 1) ** 2

    def initial_params(self, key):
        return {"w": unit(jnp.ones(self.A.shape[0], self.A.dtype)), "s": jnp.asarray(5.0, self.A.dtype)}

    def sphere(self, params):
        return {"w": True, "s": False}

    def project(self, params):
        return params | {"s": jnp.maximum(params["s"], 2)}

    def lower_bound(self):
        return 0.5 * jnp.linalg.eigvalsh(self.A)[0]


SGD = jaxcvx.GradientDescent(optimizer=optax.sgd(0.1), max_steps=2000)


def test_spheres_and_constraints_are_kept():
    problem = LeastEigenvector(jnp.asarray(MATRIX))
    solution = jaxcvx.solve(problem, SGD)
    np.testing.assert_allclose(np.abs(solution.params["w"]), [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(solution.params["w"]), 1, rtol=1e-14)
    assert float(solution.params["s"]) == 2
    np.testing.assert_allclose(solution.upper_bound, 0.5 + 0.5, rtol=1e-9)


def test_numbers_are_computed_from_the_params():
    problem = LeastEigenvector(jnp.asarray(MATRIX))
    solution = jaxcvx.solve(problem, SGD)
    assert solution.network is None and solution.scope == "global" and solution.program_gap == np.inf
    assert solution.objective == solution.upper_bound == float(problem.objective(solution.params))
    np.testing.assert_allclose(solution.lower_bound, 0.5)
    np.testing.assert_allclose(solution.gap, 0.5, rtol=1e-6)


def test_vmap_equals_a_loop():
    batch = jnp.stack([jnp.asarray(MATRIX), jnp.asarray(MATRIX[::-1, ::-1] + 0.5)])
    both = jax.vmap(lambda A: jaxcvx.solve(LeastEigenvector(A), SGD).params["w"])(batch)
    for A, w in zip(batch, both, strict=True):
        np.testing.assert_allclose(w, jaxcvx.solve(LeastEigenvector(A), SGD).params["w"], atol=1e-9)


def test_invalid_data_are_a_status():
    solution = jaxcvx.solve(LeastEigenvector(jnp.full((3, 3), jnp.nan)), SGD)
    assert solution.status == jaxcvx.Status.INVALID_INPUT
    assert solution.num_steps == 0


def test_convex_solvers_refuse_by_name():
    with pytest.raises(jaxcvx.InvalidTypeError, match="LeastEigenvector.*ProximalGradient"):
        jaxcvx.solve(LeastEigenvector(jnp.asarray(MATRIX)), jaxcvx.ProximalGradient())


def test_batch_size_is_refused_without_samples():
    with pytest.raises(jaxcvx.InvalidInputError, match="batch_size"):
        solver = dataclasses.replace(SGD, batch_size=2)
        jaxcvx.solve(LeastEigenvector(jnp.asarray(MATRIX)), solver, key=jax.random.key(0))


def test_tangent_is_orthogonal_and_leaves_the_rest():
    problem = LeastEigenvector(jnp.asarray(MATRIX))
    params = problem.initial_params(None)
    tangent = problem.tangent(params, {"w": jnp.array([1.0, 2.0, 5.0]), "s": jnp.asarray(4.0)})
    np.testing.assert_allclose(tangent["w"] @ params["w"], 0, atol=1e-14)
    assert tangent["s"] == 4


def test_all_finite_sees_every_floating_leaf():
    assert bool(all_finite({"a": jnp.ones(2), "b": jnp.arange(3)}))
    assert not bool(all_finite({"a": jnp.ones(2), "b": jnp.array([1.0, jnp.inf])}))
    assert bool(all_finite({"b": jnp.arange(3)}))


@pytest.mark.float32
def test_unit_of_zero_is_zero_and_has_a_gradient():
    assert float(jnp.abs(unit(jnp.zeros(3))).sum()) == 0
    assert np.isfinite(jax.grad(lambda w: unit(w).sum())(jnp.zeros(3))).all()
