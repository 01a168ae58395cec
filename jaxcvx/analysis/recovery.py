"""Certified recovery: a proof that a low-rank matrix is the unique nuclear-norm minimiser with its observations.

Let X = U S V^T have tangent space T = {P V^T + U Q^T}, and let Y = A*(lambda) satisfy

    ||P_T(Y) - U V^T||_F <= eps,     ||P_T'(Y)|| <= c  (spectral norm; T' is the complement of T),
    ||A(H)|| >= sigma ||H||_F  for H in T.

Every H with A(H) = 0 satisfies ``||H_T||_F <= kappa ||H_T'||_F``, where kappa = ||A|| / sigma, and ``<Y, H> = 0``. The
subgradient inequality then gives

    ||X + H||_* - ||X||_*  >=  (1 - c - eps kappa) ||H_T'||_*.

If the margin 1 - c - eps kappa is positive, every other matrix with the observations A(X) has a larger nuclear norm
than X (Candes and Recht 2009; Gross 2011). The multipliers lambda used here are those of least norm with
P_T(Y) = U V^T.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.errors import InvalidTypeError, wrong_type
from jaxcvx.numerics.precision import double_precision, to_double, with_full_precision
from jaxcvx.operators.entries import Entries
from jaxcvx.problems.low_rank import LowRankProblem
from jaxcvx.problems.matrix_sensing import SquaredProblem

_MAX_DENSE = 3000  # order of the largest matrix of which all eigenvalues are computed


@dataclasses.dataclass(frozen=True)
class RecoveryCertificate:
    """Result of :func:`recovery_certificate` for X = L R^T. It holds up to rounding in float64.

    If ``certified``, two statements are proved. First, X is the unique minimiser of the nuclear norm among all matrices
    with the observations A(X) (among the symmetric ones for a symmetric problem). Second, the minimiser among the
    matrices with the given observations y is within ``error_bound`` of X.

    Attributes:
      margin: ``1 - off_tangent - on_tangent * condition``; positive if X is certified.
      off_tangent: spectral norm c of the part of Y outside the tangent space.
      on_tangent: Frobenius distance eps of the tangent part of Y from U V^T.
      injectivity: smallest singular value sigma of A on the tangent space.
      condition: kappa = ||A|| / sigma.
      exact: True if sigma was computed from all eigenvalues. Otherwise it is a Ritz value, and nothing is certified.
      residual: ``||A(X) - y||``.
      error_bound: bound on the Frobenius distance of X from the nuclear-norm minimiser that fits y exactly; inf if
        unknown.
      dual: the multipliers lambda, shaped like the observations.
    """

    margin: float
    off_tangent: float
    on_tangent: float
    injectivity: float
    condition: float
    exact: bool
    residual: float
    error_bound: float
    dual: np.ndarray

    @property
    def certified(self) -> bool:
        """True if recovery is proved."""
        return self.exact and self.margin > 0


@with_full_precision
def recovery_certificate(problem: LowRankProblem, params: Any, *, max_steps: int = 1000) -> RecoveryCertificate:
    """Try to prove that nuclear-norm minimisation recovers the matrix X of ``params`` from its observations A(X).

    The function stores a d1 x d2 matrix. Up to 3000 degrees of freedom the injectivity is computed exactly. Beyond that
    it is only estimated, and nothing is certified.

    Args:
      problem: MatrixCompletion or MatrixSensing.
      params: factors of X, as the problem's solution gives them.
      max_steps: largest number of conjugate gradient steps for the multipliers.

    Raises:
      InvalidTypeError: the problem's loss is not the squared loss, or arrays are traced.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxcvx
      >>> rows, cols = [0, 0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 0, 2]
      >>> problem = jaxcvx.MatrixCompletion(rows, cols, [1.0] * 7, (3, 3), 1)
      >>> ones = jnp.ones((3, 1))
      >>> certificate = jaxcvx.recovery_certificate(problem, (ones, ones))
      >>> certificate.certified, certificate.residual
      (True, 0.0)
    """
    if not isinstance(problem, SquaredProblem):
        raise wrong_type("problem", problem, "MatrixCompletion or MatrixSensing")
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((problem, params))):
        raise InvalidTypeError("recovery_certificate: got traced arrays, expected concrete ones.")
    with double_precision():
        work, factors = to_double((problem, params))
        return _certificate(work, factors, max_steps)


class _Tangent:
    """The operator A on the tangent space at X. Coordinates (P, Q) stand for ``H = P V^T + U Q^T``, with ``U^T P = 0``.

    The map from (P, Q) to H is an isometry.
    """

    def __init__(self, problem: SquaredProblem, U: Any, V: Any):
        self.operator, self.symmetric, self.U, self.V = problem.operator, problem.symmetric, U, V

    def observe(self, h: tuple[Any, Any]) -> Any:
        (P, Q), operator = h, self.operator
        L, R = jnp.hstack([P, self.U]), jnp.hstack([self.V, Q])
        z = operator.apply(L, R)
        return 0.5 * (z + operator.apply(R, L)) if self.symmetric else z

    def adjoint(self, z: Any) -> tuple[Any, Any]:
        times, transposed = self.operator.times, self.operator.transposed_times
        right, left = times(z, self.V), transposed(z, self.U)
        if self.symmetric:
            right, left = 0.5 * (right + transposed(z, self.V)), 0.5 * (left + times(z, self.U))
        return right - self.U @ (self.U.T @ right), left

    def gram(self, h: tuple[Any, Any]) -> tuple[Any, Any]:
        """``P_T A* A P_T``."""
        return self.adjoint(self.observe(h))

    def skew(self, h: tuple[Any, Any]) -> tuple[Any, Any]:
        """Take the skew-symmetric part of H, project it on the tangent space, and return its coordinates (if U = V)."""
        (P, Q), U = h, self.U
        H = P @ U.T + U @ Q.T
        K = 0.5 * (H - H.T)
        right = K @ U
        return right - U @ (U.T @ right), K.T @ U


def _certificate(problem: SquaredProblem, params: Any, max_steps: int) -> RecoveryCertificate:
    U, V = _singular_vectors(*problem.factors(params))
    V = U if problem.symmetric else V
    dual, distance, outside = _least_dual(problem, U, V, max_steps)
    on_tangent, off_tangent = np.inf, np.inf
    if np.isfinite(outside).all():  # otherwise A is not injective on the tangent space, and there are no multipliers
        on_tangent, off_tangent = float(distance), float(np.linalg.norm(np.asarray(outside), 2))
    sigma, exact = _injectivity(problem, U, V)
    norm, least = _operator_extremes(problem)
    condition = norm / sigma if sigma > 0 else np.inf
    margin = 1 - off_tangent - on_tangent * condition if sigma > 0 else -np.inf
    residual = float(jnp.linalg.norm(problem.measure(params)["z"] - problem.targets))
    error = np.inf
    if margin > 0 and least > 0:
        # The minimiser's nuclear norm is at most that of X corrected to fit y, and <Y, H> <= ||lambda|| ||A(H)||.
        correction = min(problem.shape) ** 0.5 * residual / least
        dual_term = (float(jnp.linalg.norm(dual)) + on_tangent / sigma) * residual
        error = (correction + dual_term) / margin * (1 + condition) + residual / sigma
    return RecoveryCertificate(
        margin, off_tangent, on_tangent, sigma, condition, exact, residual, float(error), np.asarray(dual)
    )


@jax.jit
def _least_dual(problem: SquaredProblem, U: Any, V: Any, max_steps: Any) -> tuple[Any, Any, Any]:
    """Compute the multipliers of least norm with P_T(Y) = U V^T, the remaining distance of P_T(Y), and P_T'(Y)."""
    tangent, target = _Tangent(problem, U, V), (jnp.zeros_like(U), V)
    coordinates, _ = jax.scipy.sparse.linalg.cg(tangent.gram, target, tol=1e-13, maxiter=max_steps)
    dual = tangent.observe(coordinates)
    attained = tangent.adjoint(dual)
    distance = jnp.sqrt(sum(jnp.sum((a - b) ** 2) for a, b in zip(attained, target, strict=True)))
    Y = problem.operator.adjoint(dual)
    Y = 0.5 * (Y + Y.T) if problem.symmetric else Y
    Y = Y - U @ (U.T @ Y)
    return dual, distance, Y - (Y @ V) @ V.T


def _singular_vectors(L: Any, R: Any) -> tuple[Any, Any]:
    """Left and right singular vectors of L R^T whose singular values are above rounding."""
    (Q1, R1), (Q2, R2) = jnp.linalg.qr(L), jnp.linalg.qr(R)
    left, size, right = jnp.linalg.svd(R1 @ R2.T)
    kept = np.asarray(size > 1e-12 * size[0])
    return (Q1 @ left)[:, kept], (Q2 @ right.T)[:, kept]


def _injectivity(problem: SquaredProblem, U: Any, V: Any) -> tuple[float, bool]:
    """Smallest singular value of A on the tangent space, and True if it is exact."""
    count = U.size + V.size
    if count <= _MAX_DENSE:
        M = np.asarray(_dense_gram(problem, U, V))
        values = np.linalg.eigvalsh(0.5 * (M + M.T))
        rounding = 1e-13 * count * abs(values[-1])
        return float(np.sqrt(max(values[0] - rounding, 0.0))), True
    from scipy.sparse.linalg import LinearOperator, eigsh

    def multiply(x):
        return np.asarray(_extended_gram(problem, U, V, jnp.asarray(x.ravel())))

    linear = LinearOperator((count, count), matvec=multiply, dtype=float)
    smallest = eigsh(linear, k=1, which="SA", tol=1e-3, return_eigenvectors=False, maxiter=300)[0]
    return float(np.sqrt(max(smallest, 0.0))), False


@jax.jit
def _extended_gram(problem: SquaredProblem, U: Any, V: Any, x: Any) -> Any:
    """The Gram operator extended to all coordinates (P, Q).

    It is a multiple of the identity on the part of P that violates ``U^T P = 0``. For symmetric problems it also has
    such a term on the skew-symmetric part of H. These parts do not change the smallest eigenvalue.
    """
    tangent, complement = _Tangent(problem, U, V), 10 * problem.operator.mean_square()
    P, Q = x[: U.size].reshape(U.shape), x[U.size :].reshape(V.shape)
    inside = P - U @ (U.T @ P)
    image = tangent.gram((inside, Q))
    if problem.symmetric:
        image = jax.tree.map(lambda a, b: a + complement * b, image, tangent.skew((inside, Q)))
    return jnp.concatenate([(image[0] + complement * (P - inside)).ravel(), image[1].ravel()])


@jax.jit
def _dense_gram(problem: SquaredProblem, U: Any, V: Any) -> Any:
    columns = jnp.eye(U.size + V.size, dtype=U.dtype)
    return jax.lax.map(lambda x: _extended_gram(problem, U, V, x), columns, batch_size=64)


def _operator_extremes(problem: SquaredProblem) -> tuple[float, float]:
    """Largest and smallest singular value of A as a map onto its observations.

    For symmetric problems A acts on symmetric matrices. The smallest value is given as 0 if it is too costly.
    """
    operator = problem.operator
    if isinstance(operator, Entries):
        return 1.0, 1.0
    if operator.count > _MAX_DENSE:
        return float(np.sqrt(operator.mean_square() * operator.shape[0] * operator.shape[1])), 0.0

    def column(z):
        X = operator.adjoint(z)
        return operator.full(0.5 * (X + X.T) if problem.symmetric else X)

    values = np.linalg.eigvalsh(np.asarray(jax.lax.map(column, jnp.eye(operator.count), batch_size=64)))
    return float(np.sqrt(max(values[-1], 0.0))), float(np.sqrt(max(values[0], 0.0)))
