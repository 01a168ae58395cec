"""Low-rank matrix problems ``min loss(A(L R^T))`` over factors: their base class, and the problem of any given loss.

The params are the factors. A symmetric problem has one factor U (n, r), with X = U U^T. Otherwise params are the pair
(U, V) of factors (d1, r) and (d2, r), with X = U V^T. The objective is a function of measurements: the observations,
and the imbalance of the factors. All measurements are quadratic forms of params. So along a line of params they are ``z
+ t a + t^2 b``, and line searches are exact.
"""

from __future__ import annotations

import abc
import dataclasses
from operator import index as as_index
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxcvx.errors import invalid, wrong_type
from jaxcvx.numerics.arrays import plain_array
from jaxcvx.numerics.safe import divide, divisor
from jaxcvx.numerics.trees import register_validated
from jaxcvx.numerics.validation import check_number
from jaxcvx.operators.observation import Observation, Whole
from jaxcvx.problems.smooth import SmoothProblem
from jaxcvx.transforms.scaled_descent import conjugate_descent, constant_descent

Factors = Any  # U, or (U, V)
_OVERSAMPLING, _POWER_STEPS = 5, 5  # of the randomised subspace iteration


@dataclasses.dataclass(frozen=True, init=False, eq=False)
class LowRankProblem(SmoothProblem):
    """``min loss(A(X)) + balance h/4 ||U^T U - V^T V||_F^2`` with X = U V^T.

    Here h is the loss's mean curvature.

    Attributes:
      operator: the observation A.
      row_bounds: (2,) bounds on the norms of the rows of U and of V, or None.
      rank: static; number r of columns of the factors.
      symmetric: static; True if there is one factor, with X = U U^T.
      balance: static; weight of the second term, which keeps the two factors equally large. 0 for none.
    """

    operator: Observation
    row_bounds: Float[Array, 2] | None
    rank: int = dataclasses.field(metadata={"static": True})
    symmetric: bool = dataclasses.field(metadata={"static": True})
    balance: float = dataclasses.field(metadata={"static": True})

    def _set(self, **fields: Any) -> None:
        """Check the arguments that all problems have, and set the fields. For use in ``__init__``."""
        rank, (d1, d2) = fields["rank"], fields["operator"].shape
        if isinstance(rank, bool) or not isinstance(rank, int):
            raise wrong_type("rank", rank, "an integer")
        if not 1 <= rank <= min(d1, d2):
            raise invalid("rank", rank, f"1..{min(d1, d2)}, the smaller side of a matrix of shape {(d1, d2)}")
        check_number("balance", fields["balance"])
        self.__dict__.update(fields)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed. The changes are not validated."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, **changes)
        return copy

    shrinkage: ClassVar[float] = 0.0  # argument of the default optimiser

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (d1, d2) of X."""
        return self.operator.shape

    @property
    def degrees_of_freedom(self) -> int:
        """Dimension of the set of matrices of this rank."""
        r, (d1, d2) = self.rank, self.shape
        return d1 * r - r * (r - 1) // 2 if self.symmetric else r * (d1 + d2 - r)

    @abc.abstractmethod
    def loss(self, z: Float[Array, ...]) -> Float[Array, ""]:
        """The loss as a function of the observations ``z = A(X)``."""

    @property
    def loss_curvature(self) -> Any:
        """The curvature of the loss at z = 0, per observation."""
        return 1.0

    @property
    def curvature(self) -> Any:
        """The mean curvature h of ``loss(A(X))`` at X = 0 over all directions with Frobenius norm 1."""
        return self.loss_curvature * jnp.asarray(self.operator.mean_square(), self.dtype)

    def factors(self, params: Factors) -> tuple[Float[Array, "d1 r"], Float[Array, "d2 r"]]:
        """The pair (L, R) with X = L R^T."""
        return (params, params) if self.symmetric else tuple(params)

    def matrix(self, params: Factors) -> Float[Array, "d1 d2"]:
        """The matrix X as a dense array."""
        L, R = self.factors(params)
        return L @ R.T

    def measure(self, params: Factors) -> dict[str, Array]:
        """The measurements from which the objective is computed. Each array is a quadratic form of ``params``."""
        L, R = self.factors(params)
        measured = {"z": self.operator.apply(L, R)}
        return measured | {"imbalance": L.T @ L - R.T @ R} if self.balance else measured

    def line(self, params: Factors, direction: Factors) -> tuple[dict[str, Array], ...]:
        """The coefficients z, a, b of ``measure(params + t direction) = z + t a + t^2 b``."""
        (L, R), (P, Q) = self.factors(params), self.factors(direction)
        coefficients = tuple({"z": c} for c in self.operator.line(L, R, P, Q))
        if self.balance:
            half = L.T @ P - R.T @ Q
            imbalances = (L.T @ L - R.T @ R, half + half.T, P.T @ P - Q.T @ Q)
            return tuple(c | {"imbalance": i} for c, i in zip(coefficients, imbalances, strict=True))
        return coefficients

    def energy(self, measured: dict[str, Array]) -> Float[Array, ""]:
        """The objective as a function of the measurements."""
        value = self.loss(measured["z"])
        return value + self._imbalance_energy(measured["imbalance"]) if self.balance else value

    def _imbalance_energy(self, imbalance: Float[Array, "r r"]) -> Float[Array, ""]:
        return 0.25 * self.balance * self.curvature * jnp.sum(imbalance**2)

    def estimate(self, losses: Float[Array, b], params: Factors) -> Float[Array, ""]:
        """An unbiased estimate of the objective from the losses of b observations that are drawn at random."""
        value = self.operator.count * jnp.mean(losses)
        if not self.balance:
            return value
        L, R = self.factors(params)
        return value + self._imbalance_energy(L.T @ L - R.T @ R)

    def quartic(self, z: dict[str, Array], a: dict[str, Array], b: dict[str, Array]) -> list[Array] | None:
        """Coefficients of the polynomial ``energy(z + t a + t^2 b)`` in t. None if it is not a polynomial."""
        return None

    def objective(self, params: Factors) -> Float[Array, ""]:
        return self.energy(self.measure(params))

    def gradient_scale(self, params: Factors, largest: Float[Array, ""]) -> Float[Array, ""]:
        """The norm of the gradient of the loss's linear part at X = 0, or ``largest`` if that is larger."""
        L, R = self.factors(params)
        z = self.pull()
        linear = jnp.sum(self.operator.times(z, R) ** 2) + jnp.sum(self.operator.transposed_times(z, L) ** 2)
        return jnp.maximum(largest, jnp.sqrt(linear))

    def pull(self) -> Float[Array, ...]:
        """The negative gradient of the loss at z = 0."""
        zero = jax.eval_shape(lambda: self.operator.full(jnp.zeros(self.shape, self.dtype)))
        return -jax.grad(self.loss)(jnp.zeros(zero.shape, self.dtype))

    def project(self, params: Factors) -> Factors:
        if self.row_bounds is None:
            return params
        clipped = tuple(clip_rows(F, b) for F, b in zip(self.factors(params), self.row_bounds, strict=True))
        return clipped[0] if self.symmetric else clipped

    def tangent(self, params: Factors, gradient: Factors) -> Factors:
        """The gradient without the components that would lengthen a row whose norm is at its bound."""
        if self.row_bounds is None:
            return gradient
        parts = zip(self.factors(params), self.factors(gradient), self.row_bounds, strict=True)
        kept = tuple(_along_bound(F, G, bound) for F, G, bound in parts)
        return kept[0] if self.symmetric else kept

    def estimated_row_bounds(self, slack: float = 1.5) -> Float[Array, 2]:
        """``row_bounds``. If they are None, ``slack`` times the longest rows of the spectral estimate's factors."""
        if self.row_bounds is not None:
            return self.row_bounds
        rows = [jnp.max(jnp.sum(F**2, axis=1)) for F in self.factors(self.spectral_params())]
        return slack * jnp.sqrt(jnp.stack(rows))

    def spectral_params(self) -> Factors:
        """The spectral estimate: factors of the best rank-r approximation of the negative gradient at 0, divided by h.

        For matrix sensing it approximates ``A*(y) / h``. For completion it approximates the matrix of observed entries
        divided by their share. The factors are balanced. They come from a randomised subspace iteration with a fixed
        key, so the result is deterministic.
        """
        return _spectral_params(self)

    def random_params(self, key: PRNGKeyArray, scale: float = 0.3) -> Factors:
        """Gaussian factors, with columns about ``scale`` times as long as the spectral estimate's longest one."""
        spectral = self.factors(self.spectral_params())
        sizes = [jnp.sqrt(jnp.max(jnp.sum(F**2, axis=0))) for F in spectral]
        keys = jax.random.split(key)
        L, R = (
            scale * size / d**0.5 * jax.random.normal(k, (d, self.rank), self.dtype)
            for k, d, size in zip(keys, self.shape, sizes, strict=True)
        )
        return L if self.symmetric else (L, R)

    def initial_params(self, key: PRNGKeyArray | None) -> Factors:
        """The spectral estimate if the key is None, otherwise random factors. They satisfy the constraints."""
        return self.project(self.spectral_params() if key is None else self.random_params(key))

    def adopt(self, init: Any) -> Factors:
        """Turn a list of two factors into a pair."""
        return tuple(init) if isinstance(init, list) and not self.symmetric else init

    def default_optimizer(self, batch_size: int | None = None) -> Any:
        """Conjugate descent with exact steps. With mini-batches or constraints, descent with a constant step."""
        if batch_size is None and self.row_bounds is None:
            return conjugate_descent(self, self.shrinkage)
        return constant_descent(self, batch_size)


@jax.jit
def _spectral_params(problem: LowRankProblem) -> Factors:
    z, operator, rank = problem.pull() / problem.curvature, problem.operator, problem.rank
    count = min(rank + _OVERSAMPLING, min(problem.shape))
    start = jax.random.normal(jax.random.key(0), (problem.shape[1], count), problem.dtype)
    if problem.symmetric:

        def times(Q):
            return 0.5 * (operator.times(z, Q) + operator.transposed_times(z, Q))

        Q = jax.lax.fori_loop(0, 2 * _POWER_STEPS, lambda _, Q: _orthonormal(times(Q)), start)
        values, vectors = jnp.linalg.eigh(Q.T @ times(Q))
        size = jnp.sqrt(jnp.maximum(values[::-1], 0))[:rank]
        return Q @ vectors[:, ::-1][:, :rank] * size

    def step(_, Q):
        return _orthonormal(operator.transposed_times(z, _orthonormal(operator.times(z, Q))))

    Q = jax.lax.fori_loop(0, _POWER_STEPS, step, start)
    left, size, right = jnp.linalg.svd(operator.times(z, Q), full_matrices=False)
    size = jnp.sqrt(size[:rank])
    return left[:, :rank] * size, Q @ right[:rank].T * size


def clip_rows(F: Float[Array, "d r"], bound: Float[Array, ""]) -> Float[Array, "d r"]:
    """Scale the rows that are longer than ``bound`` to this norm."""
    square = jnp.sum(F**2, axis=1, keepdims=True)
    long = square > bound**2
    return F * jnp.where(long, bound / jnp.sqrt(jnp.where(long, square, 1.0)), 1.0)


def _along_bound(F: Float[Array, "d r"], G: Float[Array, "d r"], bound: Float[Array, ""]) -> Float[Array, "d r"]:
    """Remove G's component along a row of F if the row has norm ``bound`` and a step along -G would lengthen it."""
    outward = jnp.sum(F * G, axis=1, keepdims=True)
    square = jnp.sum(F**2, axis=1, keepdims=True)
    held = (square >= bound**2 * (1 - 64 * jnp.finfo(F.dtype).eps)) & (outward < 0)
    return G - jnp.where(held, divide(outward, square), 0.0) * F


def _orthonormal(A: Float[Array, "d k"]) -> Float[Array, "d k"]:
    return jnp.linalg.qr(A)[0]


@register_validated
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class LowRankLoss(LowRankProblem):
    """Minimisation of any smooth function f over the matrices of rank at most r: ``min f(U V^T)``.

    Attributes:
      function: f as a ``jax.tree_util.Partial``. Arrays that it holds are leaves.

    >>> import jax.numpy as jnp, jaxcvx
    >>> problem = jaxcvx.LowRankLoss(lambda X: jnp.sum((X - 1.0) ** 2), shape=(2, 3), rank=1)
    >>> float(problem.objective((jnp.ones((2, 1)), jnp.ones((3, 1)))))
    0.0
    """

    function: jax.tree_util.Partial

    def __init__(
        self,
        f: Any,
        shape: tuple[int, int],
        rank: int,
        *,
        symmetric: bool = False,
        row_bound: Any = None,
        balance: float = 0.0,
    ):
        """A function on matrices.

        Args:
          f: function of X (d1, d2) that returns a scalar. If it holds arrays, give a ``jax.tree_util.Partial``.
          shape: (d1, d2).
          rank: number r of columns of the factors.
          symmetric: True for a single factor, with X = U U^T.
          row_bound: bound on the norms of the rows of both factors, or a pair of bounds.
          balance: weight of the balancing term.

        Raises:
          InvalidInputError: an argument has a bad value, or f does not return a scalar.
          InvalidTypeError: an argument has a bad type.
        """
        if not callable(f):
            raise wrong_type("f", f, "a function of a matrix")
        self._set(
            operator=Whole(as_shape(shape)),
            row_bounds=as_row_bounds(row_bound, jnp.result_type(float)),
            rank=rank,
            symmetric=symmetric,
            balance=balance,
            function=f if isinstance(f, jax.tree_util.Partial) else jax.tree_util.Partial(f),
        )
        value = jax.eval_shape(self.loss, jax.ShapeDtypeStruct(self.shape, self.dtype))
        if value.shape != ():
            raise invalid("f", f"a function with values of shape {value.shape}", "a scalar function")

    @property
    def dtype(self) -> Any:
        return jnp.result_type(float, *jax.tree.leaves(self.function))

    def loss(self, z: Float[Array, "d1 d2"]) -> Float[Array, ""]:
        return self.function(z)

    @property
    def loss_curvature(self) -> Any:
        """An estimate of the mean curvature at 0 from a few random directions. It is positive."""
        zero = jnp.zeros(self.shape, self.dtype)
        directions = jax.random.rademacher(jax.random.key(0), (8, *self.shape), self.dtype)

        def curvature(D):
            return jnp.sum(D * jax.jvp(jax.grad(self.loss), (zero,), (D,))[1]) / D.size

        mean = jnp.mean(jnp.abs(jax.vmap(curvature)(directions)))
        return divisor(mean)


def as_shape(shape: Any) -> tuple[int, int]:
    """Return a pair of positive integers, or raise."""
    try:
        d1, d2 = (as_index(d) for d in shape)
    except (TypeError, ValueError) as err:
        raise wrong_type("shape", shape, "a pair of integers (d1, d2)") from err
    if d1 < 1 or d2 < 1:
        raise invalid("shape", (d1, d2), "two positive integers")
    return d1, d2


def as_row_bounds(bound: Any, dtype: Any) -> Float[Array, 2] | None:
    """Return one bound for both factors, or a pair of bounds, as an array (2,). None stays None."""
    if bound is None:
        return None
    try:
        given = bound if isinstance(bound, jax.Array) else plain_array("row_bound", bound)
        if given.dtype.kind not in "fiub":
            raise TypeError
        with np.errstate(over="ignore"):
            bounds = jnp.broadcast_to(jnp.asarray(given, dtype), (2,))
    except (TypeError, ValueError) as err:
        raise wrong_type("row_bound", bound, "a positive number, or two") from err
    if not isinstance(bounds, jax.core.Tracer) and not bool(jnp.all((bounds > 0) & jnp.isfinite(bounds))):
        raise invalid("row_bound", bound, "a positive number, or two")
    return bounds
