"""Convolutional programs against CVXPY and Clarabel, written from the definition, and against trained networks."""

from __future__ import annotations

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import ConeADMM, ConvFlatten, ConvPool, GradientDescent, ProximalGradient
from tests.helpers import loss_value

pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(0)
X = RNG.standard_normal((8, 4, 4))
y = RNG.standard_normal((8, 1))
POOL = jaxcvx.restrict_filters(ConvPool((2, 2), stride=2), X, 2)
FLATTEN = jaxcvx.restrict_filters(ConvFlatten((2, 2), stride=2), X, 2)
EACH = pytest.mark.parametrize("features", [POOL, FLATTEN], ids=["pool", "flatten"])


def optimum(features, masks, beta: float, *, cones: bool, grouping: str = "shared") -> float:
    """Optimum of the gated (or cone-constrained) program over filters, one term per sample and patch."""
    Z = features.matrix(X)
    n, K, pool = len(X), len(Z) // len(X), isinstance(features, ConvPool)
    blocks, constraints, rows = [], [], 0
    for gate in np.asarray(masks, float):
        for sign in (1, -1) if cones else (1,):
            B = cp.Variable((Z.shape[1], 1 if pool else K))
            blocks.append(B)
            rows = rows + sign * (gate[:, None] * Z) @ B
            if cones:
                constraints.append(((2 * gate - 1)[:, None] * Z) @ B >= 0)
    F = 0
    for k in range(K):
        take = np.eye(n * K)[k::K]  # patch k of every sample
        F = F + (take @ rows / K if pool else (take @ rows)[:, k : k + 1])
    if grouping == "shared":
        penalty = sum(cp.norm(cp.vec(B, order="F"), 2) for B in blocks)
    else:
        penalty = sum(cp.norm(B[:, k], 2) for B in blocks for k in range(B.shape[1]))
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(F - y) + beta * penalty), constraints)
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    return float(problem.value)


def problem_of(features, beta: float, num: int = 12) -> jaxcvx.Problem:
    cells = jaxcvx.enumerate_arrangements(X, features=features)
    some = jaxcvx.Arrangements(cells.masks[::3][:num], cells.gates[::3][:num])
    return jaxcvx.make_problem(X, y, beta, features=features, arrangements=some)


@pytest.mark.long
@EACH
def test_gated_program(features):
    problem = problem_of(features, 0.1)
    solution = jaxcvx.solve(problem, ProximalGradient(tol=1e-9))
    expected = optimum(features, problem.arrangements.masks, 0.1, cones=False)
    assert float(solution.objective) == pytest.approx(expected, rel=1e-6)
    assert solution.program_gap <= 1e-9 and solution.scope == "sampled-cells"
    assert solution.lower_bound <= expected * (1 + 1e-6) <= solution.upper_bound * (1 + 2e-6)
    network = jaxcvx.gated_to_relu(problem, solution.params)
    np.testing.assert_allclose(network(X), problem.operator.forward(solution.params), atol=1e-8)


@pytest.mark.routine(1)
@pytest.mark.parametrize(("features", "grouping"), [(POOL, "shared"), (FLATTEN, "shared"), (FLATTEN, "per-output")])
def test_cone_program(features, grouping):
    problem = problem_of(features, 0.03)
    solution = jaxcvx.solve(problem, ConeADMM(tol=1e-8, grouping=grouping))
    expected = optimum(features, problem.arrangements.masks, 0.03, cones=True, grouping=grouping)
    assert float(solution.objective) == pytest.approx(expected, rel=1e-6)
    assert solution.program_gap <= 1e-8 and solution.scope == "sampled-cells"
    if features is POOL or grouping == "per-output":
        assert solution.upper_bound <= solution.objective * (1 + 1e-7)
    assert solution.lower_bound <= solution.upper_bound


ADAM = GradientDescent(width=10, max_steps=2000, check_every=100, schedule="cosine", learning_rate=0.03)


@jax.jit
def _train(problem, keys):
    return jax.vmap(lambda key: jaxcvx.solve(problem, ADAM, key=key).upper_bound)(keys)


def trained(problem: jaxcvx.Problem) -> np.ndarray:
    """Training objectives of Adam runs, none of which may pass a lower bound."""
    return np.asarray(_train(problem.replace(arrangements=None), jax.random.split(jax.random.key(0), 6)))


@pytest.mark.long
def test_the_global_optimum_of_a_pooled_network():
    beta = 0.03
    cells = jaxcvx.enumerate_arrangements(X, features=POOL)
    problem = jaxcvx.make_problem(X, y, beta, features=POOL, arrangements=cells)
    solution = jaxcvx.solve(problem, ConeADMM(tol=1e-9))
    assert solution.scope == "global" and solution.gap <= 1e-6
    certificate = jaxcvx.certify(solution.network, X, y, beta)
    assert certificate.scope == "global" and certificate.gap <= 1e-6
    reached = trained(problem)
    assert reached.min() >= certificate.lower
    assert reached.min() <= 1.05 * certificate.lower  # and the bound is not far below them
    value = loss_value("squared", np.asarray(solution.network(X)), y)
    value += beta / 2 * float(jnp.sum(solution.network.hidden**2) + jnp.sum(solution.network.output**2))
    assert float(solution.upper_bound) == pytest.approx(value, rel=1e-12)


@pytest.mark.long
def test_one_output_weight_per_position_is_bounded_exactly_and_by_a_relaxation():
    beta = 0.1
    cells = jaxcvx.enumerate_arrangements(X, features=FLATTEN)
    problem = jaxcvx.make_problem(X, y, beta, features=FLATTEN, arrangements=cells)
    solution = jaxcvx.solve(problem, ConeADMM(tol=1e-7))
    assert solution.scope == "relaxation" and solution.lower_bound > 0
    certificate = jaxcvx.certify(solution.network, X, y, beta)  # by the faces of all cells
    relaxed = jaxcvx.certify(solution.network, X, y, beta, method="relaxed")
    assert certificate.scope == "global" and relaxed.scope == "relaxation"
    assert certificate.lower >= relaxed.lower * (1 - 1e-6)
    reached = trained(problem)
    assert max(float(solution.lower_bound), float(certificate.lower)) <= reached.min()
    polished = jaxcvx.polish(solution.network, X, y, beta)
    assert float(jaxcvx.training_objective(polished, X, y, beta)) <= float(solution.upper_bound) * (1 + 1e-12)
    exact = jaxcvx.certify(solution.network, X, y, beta, method="exact")
    assert exact.scope == "global" and exact.lower == pytest.approx(float(certificate.lower), rel=1e-12)


@pytest.mark.long
@EACH
def test_bounds_without_cells(features):
    problem = jaxcvx.make_problem(X, y, 0.5, features=features)
    reached = trained(problem)
    network = jaxcvx.solve(problem, ADAM, key=jax.random.key(0)).network
    certificate = jaxcvx.certify(network, X, y, 0.5, method="relaxed")
    assert certificate.scope == "relaxation" and 0 < certificate.lower <= reached.min()
    top = float(jaxcvx.beta_max(problem))
    assert float(trained(problem.replace(beta=top)).min()) == pytest.approx(0.5 * float((y**2).sum()))
