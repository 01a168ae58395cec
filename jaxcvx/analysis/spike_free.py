"""Spike-freeness: data X are spike-free if {(X u)_+ : ||u|| <= 1} lies within {X u : ||u|| <= 1}.

On spike-free data every neuron can be replaced, at no cost, by a neuron that is active on all samples. Therefore the
training problem reduces to the single cell D = I.

The exact test works as follows. Rows that are positive multiples of one another count once, and zero rows are dropped:
neither changes the inclusion. If the remaining rows are linearly dependent, the data are not spike-free: their
rectified values have kinks in different places and obey no linear relation. If the rows are independent, let
G = X X^T and s = X u. The inclusion says s_+^T G^-1 s_+ <= s^T G^-1 s for all s, that is

    2 s_+^T G^-1 s_- <= s_-^T G^-1 s_-.

Since s_- may be scaled down, this holds if and only if no off-diagonal entry of G^-1 is positive: G is an inverse
M-matrix. Known cases are orthogonal rows (whitened data) and rank-one data with coefficients of one sign.

Source: T. Ergen and M. Pilanci, "Convex geometry and duality of over-parameterized neural networks", JMLR 22 (2021).
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxcvx.arrangements.cells import Arrangements
from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.numerics.safe import norm, unit_rows
from jaxcvx.numerics.validation import as_real_matrix
from jaxcvx.pricing.spike_free import distinct_rays, inverse_gram, spike_free, worst_pair
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.polyhedral_cone import least_norm_shift
from jaxcvx.solvers.cone.admm import ConeADMM
from jaxcvx.solvers.core.driver import solve
from jaxcvx.solvers.core.solution import Solution


@functools.partial(jax.jit, static_argnames=("num_starts", "num_steps"))
def spike_free_statistic(
    X: Float[Array, "n d"], key: PRNGKeyArray, *, num_starts: int = 256, num_steps: int = 500
) -> Float[Array, ""]:
    """Estimate ``max_{||u|| <= 1} ||X^+ (X u)_+||`` from below, by projected gradient ascent from many starts.

    The maximum is at most 1 for spike-free data of full row rank. For Gaussian data it falls to 1 from above as d
    grows. It stays above 1, so such data are never exactly spike-free.

    Args:
      X: (n, d) rows, linearly independent.
      key: random key of the starts.
      num_starts: number of starts.
      num_steps: steps from each start.
    """
    inverse = jnp.linalg.pinv(X)

    def value(u):
        return norm(inverse @ jax.nn.relu(X @ u))

    def ascend(u):
        def body(i, carry):
            u, best = carry
            size, gradient = jax.value_and_grad(value)(u)
            return unit_rows(u + unit_rows(gradient) / (1 + i / 20)), jnp.maximum(best, size)

        return jax.lax.fori_loop(0, num_steps, body, (unit_rows(u), jnp.zeros((), X.dtype)))[1]

    random = jax.random.normal(key, (num_starts, X.shape[1]), X.dtype) @ (X.T @ inverse.T)
    return jnp.max(jax.vmap(ascend)(random))


@with_full_precision
def is_spike_free(X: object, tolerance: float = 0.0, *, key: PRNGKeyArray | None = None) -> bool:
    """Test if data are spike-free, either exactly or up to a tolerance on :func:`spike_free_statistic`.

    Works only outside jit.

    Args:
      X: (n, d) feature rows (with their column of ones, if there is a bias).
      tolerance: 0 gives the exact test, which holds up to rounding. With a positive tolerance, data also pass if the
        estimated statistic is at most ``1 + tolerance``. This is a heuristic, since the ascent can miss the maximum.
        Gaussian data need a tolerance of order sqrt(n / d).
      key: random key for the statistic; default ``jax.random.key(0)``.

    Returns:
      True if the data pass.

    Raises:
      InvalidInputError, InvalidTypeError: X is not a finite matrix, or tolerance is negative.

    Example:
      >>> import jaxcvx
      >>> jaxcvx.is_spike_free([[1.0, 0.0], [0.0, 1.0]]), jaxcvx.is_spike_free([[1.0, 0.0], [-1.0, 1.0]])
      (True, False)
    """
    if isinstance(X, jax.core.Tracer):
        raise InvalidTypeError("is_spike_free: got traced arrays, expected concrete ones.")
    if not tolerance >= 0:
        raise invalid("tolerance", tolerance, "a number >= 0")
    X = as_real_matrix("X", X)
    eps = max(X.shape) * float(jnp.finfo(X.dtype).eps)
    host = np.asarray(X, np.float64)
    if spike_free(host, eps):
        return True
    rows = distinct_rays(host, eps)
    if tolerance == 0 or inverse_gram(rows, eps) is None:
        return False
    key = jax.random.key(0) if key is None else key
    return float(spike_free_statistic(jnp.asarray(rows, X.dtype), key)) <= 1 + tolerance


@with_full_precision
def spike_free_witness(X: object) -> Float[Array, d] | None:
    """Compute a neuron that proves that data are not spike-free, or None if they are spike-free.

    Args:
      X: (n, d) feature rows.

    Returns:
      A unit vector u such that no w with ``||w|| <= 1`` satisfies ``X w = (X u)_+``. For independent rows this means
      ``||X^+ (X u)_+|| > 1``. Anyone can check it by least squares.

    Raises:
      InvalidInputError, InvalidTypeError: X is not a finite matrix.

    Example:
      >>> import numpy as np
      >>> import jaxcvx
      >>> X = np.array([[1.0, 0.0], [-1.0, 1.0]])
      >>> u = jaxcvx.spike_free_witness(X)
      >>> bool(np.linalg.norm(np.linalg.solve(X, np.maximum(X @ u, 0))) > 1)
      True
    """
    X = as_real_matrix("X", X)
    host = np.asarray(X, np.float64)
    eps = max(X.shape) * float(jnp.finfo(X.dtype).eps)
    rows = distinct_rays(host, eps)
    if spike_free(host, eps):
        return None
    independent = inverse_gram(rows, eps)
    if independent is None:
        # The rows are dependent: for almost every u the rectified values are not in the range of the rows.
        trial = np.random.default_rng(0).standard_normal((256, rows.shape[1])) @ rows.T @ rows
        values = np.maximum(trial @ rows.T, 0).T
        missing = np.linalg.norm(values - rows @ np.linalg.lstsq(rows, values, rcond=None)[0], axis=0)
        u = trial[np.argmax(missing / np.linalg.norm(trial, axis=1))]
    else:
        pair = worst_pair(*independent)
        assert pair is not None, "not spike-free"
        i, j = pair
        inverse = independent[0]
        s = np.zeros(len(rows))
        s[i], s[j] = 1.0, -inverse[i, j] / inverse[j, j]
        u = np.linalg.lstsq(rows, s, rcond=None)[0]
    return jnp.asarray(u / np.linalg.norm(u), X.dtype)


@with_full_precision
def spike_free_solution(problem: Problem, solver: ConeADMM | None = None) -> Solution:
    """Solve the exact convex program of two neurons for spike-free data and one output.

        min_{w, w'}  loss(Z (w - w'), Y) + beta (||w|| + ||w'||)    subject to    Z w >= 0, Z w' >= 0

    Its optimum is the optimal training objective over networks of any width. Therefore the bound's scope is "global".

    Args:
      problem: its rows must be spike-free; no skip connection, no output bias. Arrangements are not used.
      solver: the ConeADMM that solves the program, default ``ConeADMM(tol=1e-8)``.

    Raises:
      InvalidInputError: the data are not spike-free, or there are several output weights per neuron.

    Source: T. Ergen and M. Pilanci, JMLR 22 (2021), equation 22.

    Example:
      >>> import jaxcvx
      >>> problem = jaxcvx.make_problem([[1.0, 0.0], [0.0, 1.0]], [3.0, -1.0], beta=0.5)
      >>> solution = jaxcvx.spike_free_solution(problem)
      >>> solution.scope, round(float(solution.upper_bound), 3)
      ('global', 1.75)
    """
    if problem.num_columns > 1:
        raise invalid("problem", f"{problem.num_columns} output weights per neuron", "one")
    solution = positive_cell(problem, solver or ConeADMM(tol=1e-8))
    return dataclasses.replace(solution, scope="global")


def positive_cell(problem: Problem, solver: ConeADMM) -> Solution:
    """Solve the cone program of the single cell Z u >= 0. Spike-free data need no other cell."""
    Z = problem.rows
    if problem.features.skip or problem.features.output_bias:
        raise invalid("features", f"{problem.features}", "no skip connection and no output bias")
    if not is_spike_free(Z):
        raise invalid("problem.X", "data that are not spike-free", "spike-free data")
    ones = jnp.ones(Z.shape[0], Z.dtype)
    gate = least_norm_shift(Z, ones, ones * jnp.any(Z != 0, axis=1))
    cell = Arrangements(jnp.ones((1, Z.shape[0]), bool), gate[None])
    return solve(problem.replace(arrangements=cell), solver)
