"""Our prox and gated solver against jaxopt's, through the one module that imports it."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import ProximalGradient, make_problem, solve
from jaxcvx.proximal.norms import shrink_groups
from tests.helpers import distinct_cells, gaussian_data, targets_for
from tests.oracle import jaxopt_reference as compat

pytestmark = pytest.mark.oracle


@pytest.mark.routine(2)
@pytest.mark.parametrize("threshold", [1e-3, 0.5, 2.0, 10.0])
def test_prox(threshold):
    W = jnp.asarray(np.random.default_rng(0).standard_normal((8, 3, 2)))
    np.testing.assert_allclose(shrink_groups(W, threshold), compat.shrink_groups(W, threshold), atol=1e-14)


def test_our_prox_has_a_gradient_at_zero_blocks():
    W = jnp.zeros((2, 3, 2)).at[0].set(1.0)
    gradient = jax.grad(lambda W: jnp.sum(shrink_groups(W, 0.5) ** 2))(W)
    assert bool(jnp.isfinite(gradient).all()) and bool((gradient[1] == 0).all())


@pytest.mark.routine(1)
@pytest.mark.parametrize(("loss", "c"), [("squared", 1), ("squared", 3), ("logistic", 1)])
def test_gated_program(loss, c):
    n, d, num = 20, 3, 12
    X, raw = gaussian_data(1, n, d, c)
    problem = make_problem(X, targets_for(loss, raw), 1.0, loss=loss, arrangements=distinct_cells(1, X, num))
    problem = problem.replace(beta=0.1 * problem.beta_max())
    reference = compat.reference_gated(problem)
    solution = solve(problem, ProximalGradient(tol=1e-9))
    value = problem.loss.value(problem.operator.forward(reference), problem.Y)
    value = value + problem.beta * np.linalg.norm(np.asarray(reference).reshape(num, -1), axis=1).sum()
    assert solution.objective == pytest.approx(float(value), rel=1e-8)
    predictions = [problem.operator.forward(W) for W in (solution.params, reference)]
    np.testing.assert_allclose(*predictions, atol=1e-4)


def test_jaxopt_is_not_imported_with_the_package():
    code = "import sys, jaxcvx; sys.exit('jaxopt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
