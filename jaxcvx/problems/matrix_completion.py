"""Matrix completion: a low-rank matrix is estimated from some of its entries, or from signs of noisy entries."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.numerics.arrays import plain_array
from jaxcvx.numerics.trees import is_traced, register_validated
from jaxcvx.numerics.validation import as_real_matrix, check_number
from jaxcvx.operators.entries import Entries, observe_entries
from jaxcvx.problems.low_rank import Factors, LowRankProblem, as_row_bounds, as_shape
from jaxcvx.problems.matrix_sensing import SquaredProblem


def _draw(problem: Any, params: Factors, key: PRNGKeyArray, batch_size: int) -> tuple[Float[Array, b], Float[Array, b]]:
    """Draw observed places at random, and return the entries of X there and their targets."""
    operator, (L, R) = problem.operator, problem.factors(params)
    slots = operator.slot[jax.random.randint(key, (batch_size,), 0, operator.count)]
    rows, cols = operator.places(slots)
    return jnp.sum(L[rows] * R[cols], axis=1), problem.targets.reshape(-1)[slots]


@register_validated
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class MatrixCompletion(SquaredProblem):
    """``min 1/2 sum over observed (i, j) of (X_ij - value_ij)^2`` over matrices X = U V^T of rank at most r.

    The params are the pair (U, V). For n observations an iteration takes O(n r) operations and O(n + (d1 + d2) r)
    memory.

    >>> import jax.numpy as jnp, jaxcvx
    >>> problem = jaxcvx.MatrixCompletion(rows=[0, 0, 1], cols=[0, 1, 0], values=[1.0, 2.0, 3.0], shape=(2, 2), rank=1)
    >>> U, V = jnp.array([[1.0], [3.0]]), jnp.array([[1.0], [2.0]])
    >>> float(problem.objective((U, V))), float(problem.matrix((U, V))[1, 1])
    (0.0, 6.0)
    """

    shrinkage = 1.0

    def __init__(
        self,
        rows: Any,
        cols: Any,
        values: Any,
        shape: tuple[int, int],
        rank: int,
        *,
        row_bound: Any = None,
        balance: float = 0.0,
    ):
        """Observed entries.

        Args:
          rows: (n,) row of each entry. Rows and columns may be traced, which takes O(d1 d2) memory.
          cols: (n,) column of each entry. The places must be distinct.
          values: (n,) the entries.
          shape: (d1, d2) of the matrix.
          rank: number r of columns of the factors.
          row_bound: bound on the norms of the rows of both factors (incoherence), or a pair of bounds.
          balance: weight of the balancing term.

        Raises:
          InvalidInputError: an argument has a bad value or shape.
          InvalidTypeError: an argument has a bad type.
        """
        observed = _observed(rows, cols, as_real_matrix("values", values, 1), shape, row_bound)
        self._set(**observed, rank=rank, symmetric=False, balance=balance)

    @property
    def num_samples(self) -> int:
        """Number of observed entries n."""
        return self.operator.count

    def sampled_objective(self, params: Factors, key: PRNGKeyArray, batch_size: int) -> Float[Array, ""]:
        z, y = _draw(self, params, key, batch_size)
        return self.estimate(0.5 * (z - y) ** 2, params)


@register_validated
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class OneBitCompletion(LowRankProblem):
    """``min -sum over observed (i, j) of log F(sign_ij X_ij / scale)`` over X = U V^T with bounded rows.

    The observations are the signs of X_ij plus noise. F is the distribution function of the noise: normal for the link
    "probit", logistic for the link "logistic". Without bounds on the rows of U and V the likelihood may have no
    maximum.

    Attributes:
      targets: the signs in the operator's slots, 0 in empty slots.
      scale: scale of the noise.
      link: static; "probit" or "logistic".

    Source: M. Davenport, Y. Plan, E. van den Berg and M. Wootters, "1-bit matrix completion" (2014).

    >>> import jax.numpy as jnp, jaxcvx
    >>> problem = jaxcvx.OneBitCompletion(rows=[0, 1], cols=[0, 1], signs=[1, -1], shape=(2, 2), rank=1, row_bound=1.0)
    >>> print(problem.probabilities(jnp.zeros((2, 2))))
    [[0.5 0.5]
     [0.5 0.5]]
    """

    targets: Float[Array, "K C"]
    scale: Float[Array, ""]
    link: str = dataclasses.field(metadata={"static": True})

    def __init__(
        self,
        rows: Any,
        cols: Any,
        signs: Any,
        shape: tuple[int, int],
        rank: int,
        link: str = "probit",
        scale: Any = 1.0,
        row_bound: Any = None,
        *,
        balance: float = 0.0,
    ):
        """Observed signs.

        Args:
          rows: (n,) row of each sign.
          cols: (n,) column of each sign. The places must be distinct.
          signs: (n,) numbers -1 and +1, or 0 and 1.
          shape: (d1, d2) of the matrix.
          rank: number r of columns of the factors.
          link: "probit" or "logistic".
          scale: scale of the noise, positive.
          row_bound: bound on the norms of the rows of both factors, or a pair of bounds. By default the bounds are 1.5
            times the longest rows of the spectral estimate.
          balance: weight of the balancing term.

        Raises:
          InvalidInputError: an argument has a bad value or shape.
          InvalidTypeError: an argument has a bad type.
        """
        if link not in ("probit", "logistic"):
            raise invalid("link", repr(link), "'probit' or 'logistic'")
        y = _signs(signs)
        check_number("scale", scale, positive=True, dtype=y.dtype)
        observed = _observed(rows, cols, y, shape, row_bound)
        scale = jnp.asarray(scale, y.dtype)
        self._set(**observed, rank=rank, symmetric=False, balance=balance, scale=scale, link=link)
        if row_bound is None:
            self._set(**self.__dict__ | {"row_bounds": self.estimated_row_bounds()})

    @property
    def num_samples(self) -> int:
        """Number of observed signs n."""
        return self.operator.count

    def _pointwise(self, z: Array, signs: Array) -> Array:
        log_cdf = jax.scipy.special.log_ndtr if self.link == "probit" else jax.nn.log_sigmoid
        return jnp.where(signs == 0, 0.0, -log_cdf(signs * z / self.scale))

    def loss(self, z: Float[Array, "K C"]) -> Float[Array, ""]:
        return jnp.sum(self._pointwise(z, self.targets))

    @property
    def loss_curvature(self) -> Any:
        """The Fisher information at 0, which is ``F'(0)^2 / (F(0) (1 - F(0)))``."""
        density = (2 * np.pi) ** -0.5 if self.link == "probit" else 0.25
        return 4 * density**2 / self.scale**2

    def sampled_objective(self, params: Factors, key: PRNGKeyArray, batch_size: int) -> Float[Array, ""]:
        return self.estimate(self._pointwise(*_draw(self, params, key, batch_size)), params)

    def probabilities(self, X: Float[Array, "d1 d2"]) -> Float[Array, "d1 d2"]:
        """The probability of the sign +1 for each entry of X."""
        cdf = jax.scipy.special.ndtr if self.link == "probit" else jax.nn.sigmoid
        return cdf(X / self.scale)

    def lower_bound(self) -> Float[Array, ""]:
        return jnp.zeros((), self.dtype)


def _signs(signs: Any) -> Float[Array, n]:
    """Return signs as -1 and +1, or raise. Traced signs are not checked."""
    y = as_real_matrix("signs", signs, 1)
    if is_traced(y):
        return y
    values = set(np.unique(np.asarray(y)).tolist())
    if values <= {0.0, 1.0} and 0.0 in values:
        return 2 * y - 1
    if not values <= {-1.0, 1.0}:
        raise invalid("signs", f"values {sorted(values)[:5]}", "-1 and +1, or 0 and 1")
    return y


def _observed(rows: Any, cols: Any, targets: Array, shape: Any, row_bound: Any) -> dict[str, Any]:
    """The fields of a problem that depend on the observations, checked."""
    operator = _entries(rows, cols, targets.shape[0], as_shape(shape))
    bounds = as_row_bounds(row_bound, targets.dtype)
    return {"operator": operator, "targets": operator.spread(targets), "row_bounds": bounds}


def _entries(rows: Any, cols: Any, count: int, shape: tuple[int, int]) -> Entries:
    """The operator of the observed entries, after a check of their places."""
    for name, value, limit in (("rows", rows, shape[0]), ("cols", cols, shape[1])):
        if not is_traced(value):
            host = plain_array(name, value)
            if host.dtype.kind not in "iu":
                raise InvalidTypeError(f"{name}: got {host.dtype}, expected integers.")
            if host.ndim == 1 and host.size and not 0 <= int(host.min()) <= int(host.max()) < limit:
                raise invalid(name, f"{host.min()}..{host.max()}", f"indices in 0..{limit - 1}")
        if np.shape(value) != (count,):
            raise invalid(name, f"shape {np.shape(value)}", f"{(count,)}, one index for each entry")
    if not is_traced(rows, cols):
        rows, cols = (a if isinstance(a, jax.Array) else plain_array("rows", a) for a in (rows, cols))
        flat = np.asarray(rows, np.int64) * shape[1] + np.asarray(cols, np.int64)
        sorted_flat = np.sort(flat)
        twice = sorted_flat[1:][sorted_flat[1:] == sorted_flat[:-1]]
        if twice.size:
            raise invalid("rows, cols", f"the place {divmod(int(twice[0]), shape[1])} twice", "distinct places")
    return observe_entries(rows, cols, shape)
