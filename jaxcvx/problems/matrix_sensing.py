"""Matrix sensing: a low-rank matrix is estimated from linear measurements ``y = A(X)`` by least squares."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.numerics.trees import is_traced, register_validated
from jaxcvx.numerics.validation import as_real_matrix
from jaxcvx.operators.observation import Matrices, MatrixFree
from jaxcvx.problems.low_rank import Factors, LowRankProblem, as_row_bounds, as_shape


@dataclasses.dataclass(frozen=True, init=False, eq=False)
class SquaredProblem(LowRankProblem):
    """Base class of low-rank problems with the squared loss, ``min 1/2 ||A(X) - y||^2``.

    Attributes:
      targets: the measurements y, an array of the shape of ``operator``'s values.
    """

    targets: Float[Array, ...]

    def loss(self, z: Float[Array, ...]) -> Float[Array, ""]:
        return 0.5 * jnp.sum((z - self.targets) ** 2)

    def quartic(self, z: dict[str, Array], a: dict[str, Array], b: dict[str, Array]) -> list[Array] | None:
        if z.keys() - {"z", "imbalance"}:
            return None
        terms = [(1.0, z["z"] - self.targets, a["z"], b["z"])]
        if self.balance:
            weight = 0.5 * self.balance * self.curvature
            terms.append((weight, z["imbalance"], a["imbalance"], b["imbalance"]))
        total = [jnp.zeros((), self.dtype)] * 5
        for weight, e, p, q in terms:
            ee, ep, pp, eq, pq, qq = (jnp.vdot(x, y) for x, y in ((e, e), (e, p), (p, p), (e, q), (p, q), (q, q)))
            parts = (ee / 2, ep, pp / 2 + eq, pq, qq / 2)
            total = [coefficient + weight * part for coefficient, part in zip(total, parts, strict=True)]
        return total

    def lower_bound(self) -> Float[Array, ""]:
        return jnp.zeros((), self.dtype)


@register_validated
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class MatrixSensing(SquaredProblem):
    """``min 1/2 ||A(X) - y||^2`` over matrices X of rank at most r.

    If ``symmetric``, the params are U (n, r) with X = U U^T. Otherwise they are the pair (U, V) with X = U V^T. Every
    local minimum is global if A is nearly an isometry on low-rank matrices. It suffices that its restricted isometry
    constant of rank 2r is below 1/5; for rank one, below 1/2.

    Sources: S. Bhojanapalli, B. Neyshabur and N. Srebro, "Global optimality of local search for low rank matrix
    recovery" (2016); R. Zhang, S. Sojoudi and J. Lavaei, "Sharp restricted isometry bounds for the inexistence of
    spurious local minima in nonconvex matrix recovery" (2019), for rank one.

    >>> import jax.numpy as jnp, jaxcvx
    >>> operators = jnp.eye(4).reshape(4, 2, 2)  # the four entries of a 2 x 2 matrix
    >>> problem = jaxcvx.MatrixSensing(operators, measurements=[4.0, 2.0, 2.0, 1.0], rank=1)
    >>> float(problem.objective(jnp.array([[2.0], [1.0]])))
    0.0
    """

    def __init__(
        self,
        operators: Any,
        measurements: Any,
        rank: int,
        shape: tuple[int, int] | None = None,
        symmetric: bool = True,
        *,
        row_bound: Any = None,
        balance: float = 0.0,
    ):
        """Measurements of an unknown matrix.

        Args:
          operators: (m, d1, d2) the matrices A_i of the measurements ``A(X)_i = <A_i, X>``. Or a pair of functions: A
            on matrices (d1, d2), and its adjoint on vectors (m,).
          measurements: (m,) the numbers y.
          rank: number r of columns of the factors.
          shape: (d1, d2); required only if ``operators`` are functions.
          symmetric: True for a single factor, with X = U U^T.
          row_bound: bound on the norms of the rows of the factors, or a pair of bounds.
          balance: weight of the balancing term of two factors.

        Raises:
          InvalidInputError: an argument has a bad value or shape.
          InvalidTypeError: an argument has a bad type, or the second function is not the adjoint of the first.
        """
        y = as_real_matrix("measurements", measurements, 1)
        operator = _observation(operators, y, shape)
        d1, d2 = operator.shape
        if symmetric and d1 != d2:
            raise invalid("symmetric", f"True with matrices of shape {(d1, d2)}", "square matrices, or False")
        if symmetric and balance:
            raise invalid("balance", balance, "0 for a symmetric problem, which has one factor")
        bounds = as_row_bounds(row_bound, y.dtype)
        self._set(
            operator=operator, targets=y, row_bounds=bounds, rank=rank, symmetric=bool(symmetric), balance=balance
        )

    @property
    def num_samples(self) -> int:
        """Number of measurements m."""
        return self.operator.count

    def sampled_objective(self, params: Factors, key: PRNGKeyArray, batch_size: int) -> Float[Array, ""]:
        if not isinstance(self.operator, Matrices):
            raise invalid("batch_size", batch_size, "None for measurements given by functions")
        chosen = jax.random.randint(key, (batch_size,), 0, self.num_samples)
        L, R = self.factors(params)
        z = Matrices(self.operator.stack[chosen]).apply(L, R)
        return self.estimate(0.5 * (z - self.targets[chosen]) ** 2, params)


def _observation(operators: Any, y: Array, shape: Any) -> Matrices | MatrixFree:
    if isinstance(operators, tuple) and len(operators) == 2 and all(callable(f) for f in operators):
        if shape is None:
            raise invalid("shape", None, "(d1, d2) for measurements given by functions")
        forward, backward = operators
        operator = MatrixFree(forward, backward, (*as_shape(shape), y.shape[0]))
        _check_adjoint(operator, y)
        return operator
    stack = as_real_matrix("operators", operators, 3).astype(y.dtype)
    if stack.shape[0] != y.shape[0]:
        raise invalid("measurements", f"{y.shape[0]} numbers", f"{stack.shape[0]}, one for each operator")
    if shape is not None and as_shape(shape) != stack.shape[1:]:
        raise invalid("shape", tuple(shape), f"{stack.shape[1:]}, that of the operators")
    return Matrices(stack)


def _check_adjoint(operator: MatrixFree, y: Array) -> None:
    """Raise unless ``<A(X), z> = <X, A*(z)>`` for a random X and z."""
    X = jax.random.normal(jax.random.key(0), operator.shape, y.dtype)
    z = jax.random.normal(jax.random.key(1), y.shape, y.dtype)
    forward, backward = (jax.eval_shape(f, x) for f, x in ((operator.forward, X), (operator.backward, z)))
    if (forward.shape, backward.shape) != (z.shape, X.shape):
        got = f"functions with values of shapes {forward.shape} and {backward.shape}"
        raise invalid("operators", got, f"{z.shape} and {X.shape}")
    left, right = jnp.vdot(operator.forward(X), z), jnp.vdot(X, operator.backward(z))
    size = jnp.linalg.norm(operator.forward(X)) * jnp.linalg.norm(z)
    if not is_traced(left, right, size) and not abs(left - right) <= 1e-3 * size:
        raise InvalidTypeError("operators: the second function is not the adjoint of the first.")
