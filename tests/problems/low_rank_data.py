"""Low-rank problems that several test files look at."""

import jax.numpy as jnp
import numpy as np

import jaxcvx

D1, D2, RANK = 40, 30, 2
DOF = RANK * (D1 + D2 - RANK)
RNG = np.random.default_rng(0)
TRUTH = RNG.standard_normal((D1, RANK)) @ RNG.standard_normal((D2, RANK)).T
OBSERVED = RNG.choice(D1 * D2, 4 * DOF, replace=False)
ROWS, COLS = np.divmod(OBSERVED, D2)
PARAMS = tuple(RNG.standard_normal((d, RANK)) for d in (D1, D2))


def completion(**options):
    return jaxcvx.MatrixCompletion(ROWS, COLS, TRUTH[ROWS, COLS], (D1, D2), RANK, **options)


def one_bit(link="probit", **options):
    signs = np.where(TRUTH[ROWS, COLS] > 0, 1, -1)
    return jaxcvx.OneBitCompletion(ROWS, COLS, signs, (D1, D2), RANK, link, 0.7, **options)


def sensing(m=60, n=10, rank=2, seed=0, **options):
    rng = np.random.default_rng(seed)
    U = rng.standard_normal((n, rank)) / n**0.5
    A = rng.standard_normal((m, n, n))
    return jaxcvx.MatrixSensing(A, np.einsum("mij,ij->m", A, U @ U.T), rank, **options), U @ U.T, A


def error(problem, solution, truth):
    return float(np.linalg.norm(problem.matrix(solution.params) - truth) / np.linalg.norm(truth))


def given():
    """Some params, in the test's precision."""
    return tuple(map(jnp.asarray, PARAMS))
