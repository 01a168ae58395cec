"""Spike-freeness: whether {(X u)_+ : ||u|| <= 1} lies within {X u : ||u|| <= 1} (Ergen and Pilanci, JMLR 2021).

On spike-free data every neuron can be replaced by one that is active on all samples, at no cost, so the training
problem reduces to the cell D = I. An exact test: rows that are positive multiples of one another count once, and
zero rows not at all, as neither changes the inclusion. If the remaining rows are linearly dependent the data are
not spike-free: their rectified values have kinks in different places and obey no linear relation. Otherwise,
with G = X X^T and s = X u, the inclusion reads s_+^T G^-1 s_+ <= s^T G^-1 s for all s, that is

    2 s_+^T G^-1 s_- <= s_-^T G^-1 s_-,

and since s_- may be scaled down it holds if and only if no off-diagonal entry of G^-1 is positive: G is an
inverse M-matrix. Orthogonal rows (whitened data) and rank one with coefficients of one sign are the known cases.
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
    """``max_{||u|| <= 1} ||X^+ (X u)_+||``, estimated from below by projected ascent from many starts.

    At most 1 for spike-free data of full row rank. For Gaussian data it falls to 1 from above as d grows, so
    it never says that such data are spike-free exactly.

    Args:
      X: (n, d) rows, linearly independent.
      key: random key of the starts.
      num_starts, num_steps: effort.
    """
    inverse = jnp.linalg.pinv(X)

    def value(u):
        return jnp.linalg.norm(inverse @ jax.nn.relu(X @ u))

    def normalise(u):
        size = jnp.linalg.norm(u)
        return u / jnp.where(size > 0, size, 1.0)

    def ascend(u):
        def body(i, carry):
            u, best = carry
            size, gradient = jax.value_and_grad(value)(u)
            step = normalise(jnp.where(size > 0, gradient, 0.0)) / (1 + i / 20)
            return normalise(u + step), jnp.maximum(best, size)

        return jax.lax.fori_loop(0, num_steps, body, (normalise(u), jnp.zeros((), X.dtype)))[1]

    random = jax.random.normal(key, (num_starts, X.shape[1]), X.dtype) @ (X.T @ inverse.T)
    return jnp.max(jax.vmap(ascend)(random))


@with_full_precision
def is_spike_free(X: object, tolerance: float = 0.0, *, key: PRNGKeyArray | None = None) -> bool:
    """Whether data are spike-free: exactly, or up to a tolerance on the statistic.

    Args:
      X: (n, d) feature rows (with their column of ones, if there is a bias).
      tolerance: 0 gives the exact test, which holds up to rounding. Otherwise data that fail it pass all the
        same if the statistic found by :func:`spike_free_statistic` is at most ``1 + tolerance``: a
        heuristic, as the ascent can miss the maximum. Gaussian data want a tolerance of order sqrt(n / d).
      key: random key for the statistic; default ``jax.random.key(0)``.

    Returns:
      A bool; for use outside jit.

    Raises:
      InvalidInputError, InvalidTypeError: X is not a finite matrix; tolerance is negative.
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
    """A neuron that shows data not to be spike-free, or None if they are.

    Returns:
      A unit vector u for which no w with ``||w|| <= 1`` has ``X w = (X u)_+``; for independent rows
      ``||X^+ (X u)_+|| > 1``. A certificate that anyone can check by least squares.

    Raises:
      InvalidInputError, InvalidTypeError: X is not a finite matrix.
    """
    X = as_real_matrix("X", X)
    host = np.asarray(X, np.float64)
    eps = max(X.shape) * float(jnp.finfo(X.dtype).eps)
    rows = distinct_rays(host, eps)
    if spike_free(host, eps):
        return None
    found = inverse_gram(rows, eps)
    if found is None:
        # Dependent rows: rectified values leave the range of the rows for almost every u.
        trial = np.random.default_rng(0).standard_normal((256, rows.shape[1])) @ rows.T @ rows
        values = np.maximum(trial @ rows.T, 0).T
        missing = np.linalg.norm(values - rows @ np.linalg.lstsq(rows, values, rcond=None)[0], axis=0)
        u = trial[np.argmax(missing / np.linalg.norm(trial, axis=1))]
    else:
        pair = worst_pair(*found)
        assert pair is not None, "not spike-free"
        i, j = pair
        s = np.zeros(len(rows))
        s[i], s[j] = 1.0, -found[0][i, j] / found[0][j, j]
        u = np.linalg.lstsq(rows, s, rcond=None)[0]
    return jnp.asarray(u / np.linalg.norm(u), X.dtype)


@with_full_precision
def spike_free_solution(problem: Problem, solver: ConeADMM | None = None) -> Solution:
    """The exact convex program of two neurons for spike-free data and one output.

        min_{w, w'}  loss(Z (w - w'), Y) + beta (||w|| + ||w'||)    subject to    Z w >= 0, Z w' >= 0

    Its optimum is that of training a network of any width, so the bound's scope is "global".

    Args:
      problem: its rows spike-free, no skip connection, no free bias; arrangements are not used.
      solver: the ConeADMM to solve it with, default ``ConeADMM(tol=1e-8)``.

    Raises:
      InvalidInputError: the data are not spike-free, or there are several output weights per neuron.

    Source: T. Ergen and M. Pilanci, JMLR 22 (2021), equation 22.
    """
    if problem.num_columns > 1:
        raise invalid("problem", f"{problem.num_columns} output weights per neuron", "one")
    solution = positive_cell(problem, solver or ConeADMM(tol=1e-8))
    return dataclasses.replace(solution, scope="global")


def positive_cell(problem: Problem, solver: ConeADMM) -> Solution:
    """The cone program of the one cell Z u >= 0, over which spike-free data need not go."""
    Z = problem.rows
    if problem.features.skip or problem.features.free_bias:
        raise invalid("features", f"{problem.features}", "no skip connection and no free bias")
    if not is_spike_free(Z):
        raise invalid("problem.X", "data that are not spike-free", "spike-free data")
    ones = jnp.ones(Z.shape[0], Z.dtype)
    gate = least_norm_shift(Z, ones, ones * jnp.any(Z != 0, axis=1))
    cell = Arrangements(jnp.ones((1, Z.shape[0]), bool), gate[None])
    return solve(problem.replace(arrangements=cell), solver)
