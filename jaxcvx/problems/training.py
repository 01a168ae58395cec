"""The training problem of two-layer ReLU networks, as a frozen pytree.

    min over networks of any width   loss(F, Y) + (beta/2) sum_j (||u_j||^2 + ||v_j||^2)
    where F = lower(sum_j (Z u_j)_+ v_j^T)

Here Z = features.matrix(X), and ``lower`` is the readout's linear map from rows to samples, the identity for dense
networks. The loss is a sum over samples, without a factor 1/n. At an optimum ||u_j|| = ||v_j|| for every neuron, so the
penalty equals ``beta * sum_j ||u_j|| ||v_j||`` there.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcvx.arrangements.cells import Arrangements, validate_arrangements
from jaxcvx.errors import invalid, wrong_type
from jaxcvx.features.dense import Dense, Features, resolve_features
from jaxcvx.features.readout import Readout
from jaxcvx.losses.base import Loss
from jaxcvx.losses.entrywise import Squared, resolve_loss
from jaxcvx.losses.targets import as_targets
from jaxcvx.losses.weighted import Weighted, WeightedTargets, as_sample_weight
from jaxcvx.numerics.safe import unit_rows
from jaxcvx.numerics.trees import all_finite
from jaxcvx.numerics.validation import as_beta, as_real_matrix
from jaxcvx.operators.cells import CellOperator


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """A training problem: data, targets, loss, weight decay and features.

    Build it with :func:`jaxcvx.make_problem`, which validates the data.

    Attributes:
      X: (n, d) inputs, or the shape that the features expect, such as (n, H, W, channels) or (n, L, channels).
      Y: (n, c) targets in the form that the loss expects: real numbers, +-1, or one-hot rows.
      beta: scalar weight decay. It is absolute, because the loss is a sum over samples.
      arrangements: the cells of the convex programs, or None.
      loss: static; the loss.
      features: static; the first layer of the architecture, including biases and skip connection.
      max_bytes: static; limit on the intermediate arrays of products over cells, which are formed in blocks of rows.
        None for no limit, for example if the rows are distributed over devices.
      sample_weight: (n,) weights >= 0 of the samples' losses, or None for weights of 1. With weights, ``loss`` is a
        :class:`jaxcvx.losses.weighted.Weighted` loss, and it compares predictions with ``targets``.

    >>> import jaxcvx
    >>> problem = jaxcvx.make_problem([[1.0], [2.0]], [1.0, 2.0], beta=0.1)
    >>> print(problem.X.shape, problem.Y.shape, problem.replace(beta=0.2).beta)
    (2, 1) (2, 1) 0.2
    """

    X: Float[Array, "n ..."]
    Y: Float[Array, "n c"]
    beta: Float[Array, ""]
    arrangements: Arrangements | None = None
    loss: Loss = dataclasses.field(default=Squared(), metadata={"static": True})
    features: Features = dataclasses.field(default=Dense(), metadata={"static": True})
    max_bytes: int | None = dataclasses.field(default=2**30, metadata={"static": True})
    sample_weight: Float[Array, n] | None = None

    def __post_init__(self) -> None:
        if self.sample_weight is not None and not isinstance(self.loss, Weighted):
            object.__setattr__(self, "loss", Weighted(self.loss))

    def replace(self, **changes: Any) -> Problem:
        """Return a copy with some fields changed. The changes are not validated; numbers may be traced."""
        if "beta" in changes:
            changes["beta"] = jnp.asarray(changes["beta"], self.X.dtype)
        if "sample_weight" in changes:
            weight, loss = changes["sample_weight"], changes.get("loss", self.loss)
            changes |= {"loss": loss.unweighted, "sample_weight": None}
            if weight is not None:
                changes["sample_weight"] = jnp.asarray(weight, self.X.dtype)
        return dataclasses.replace(self, **changes)

    def samples(self, chosen: Any) -> Problem:
        """The problem of some of the samples, without arrangements. ``chosen`` indexes the samples."""
        weight = None if self.sample_weight is None else self.sample_weight[chosen]
        return dataclasses.replace(self, X=self.X[chosen], Y=self.Y[chosen], arrangements=None, sample_weight=weight)

    if TYPE_CHECKING:  # bound in jaxcvx/_methods.py, as the functions behind them lie in higher layers

        def beta_max(self, program: str | None = None) -> Float[Array, ""]:
            """The smallest beta for which the solution is zero; see :func:`jaxcvx.beta_max`."""

        def memory_estimate(self, solver: Any) -> int:
            """The peak memory of a solve in bytes; see :func:`jaxcvx.memory_estimate`."""

    @property
    def dtype(self) -> Any:
        """Floating type of the data."""
        return self.X.dtype

    def is_valid(self) -> Bool[Array, ""]:
        """True if the data are finite, and beta and weights >= 0. ``make_problem`` cannot check traced arrays."""
        valid = all_finite((self.X, self.Y, self.beta)) & (self.beta >= 0)
        if self.sample_weight is None:
            return valid
        return valid & all_finite(self.sample_weight) & jnp.all(self.sample_weight >= 0)

    @property
    def targets(self) -> Any:
        """The second argument of the loss's methods: Y, or with sample weights Y and the weights."""
        return self.Y if self.sample_weight is None else WeightedTargets(self.Y, self.sample_weight)

    @property
    def curvature(self) -> Any:
        """Bound on the second derivative of the loss in the predictions, with weights; 1 if there is none."""
        return self.loss.curvature_bound(self.targets)

    @property
    def num_samples(self) -> int:
        """Number of samples n."""
        return self.X.shape[0]

    @property
    def num_outputs(self) -> int:
        """Number of outputs c."""
        return self.Y.shape[1]

    @property
    def readout(self) -> Readout:
        """The linear map from rows to samples."""
        return self.features.readout(*self.X.shape[1:])

    @property
    def num_columns(self) -> int:
        """Number q of a neuron's output weights: c, or c per position.

        Statements that hold for networks with one output hold if q = 1.
        """
        return self.readout.columns(self.num_outputs)

    @property
    def num_rows(self) -> int:
        """Number of rows N = n K."""
        return self.num_samples * self.readout.positions

    @property
    def num_weights(self) -> int:
        """Length p of a neuron's hidden weights."""
        return self.features.num_weights(*self.X.shape[1:])

    @property
    def rows(self) -> Float[Array, "N p"]:
        """The feature rows Z (N, p), which the hidden weights multiply."""
        return self.features.matrix(self.X)

    @property
    def operator(self) -> CellOperator:
        """The linear map of the convex programs over ``arrangements`` (and the skip connection)."""
        assert self.arrangements is not None, "checked by solve"
        masks = self.arrangements.masks
        if self.features.skip:
            masks = jnp.concatenate([masks, jnp.ones((1, masks.shape[1]), bool)])
        return CellOperator(self.rows, masks, self.features.skip, self.readout, self.max_bytes)


def make_problem(
    X: Any,
    Y: Any,
    beta: Any,
    *,
    loss: str | Loss = "squared",
    arrangements: Arrangements | None = None,
    features: str | Features = "dense",
    max_bytes: int | None = 2**30,
    sample_weight: Any = None,
) -> Problem:
    """Build and validate a training problem.

    Args:
      X: (n, d) inputs, real and finite, or the shape that ``features`` expects. float32 and float64 are kept. Other
        types become jax's default float.
      Y: (n,) or (n, c) real numbers; integer labels (n,) for ``"softmax"``; +-1 or {0, 1} for ``"logistic"`` and
        ``"hinge"``.
      beta: weight decay >= 0. The objective is ``loss + beta/2 * (sum of squared weights)``, where the loss is a sum
        over samples, not a mean.
      loss: ``"squared" | "logistic" | "softmax" | "huber" | "hinge" | "interpolation"`` or a Loss such as
        ``Huber(0.5)``.
      arrangements: cells for the convex programs, from ``enumerate_arrangements``,
        ``sample_arrangements`` or ``arrangements_of``.
      features: ``"dense"``, ``jaxcvx.Dense(bias=..., skip=..., output_bias=...)``, ``jaxcvx.FreeBias()``,
        ``jaxcvx.ConvPool(...)`` or ``jaxcvx.ConvFlatten(...)``.
      max_bytes: limit on the intermediate arrays of products over cells. Larger ones are formed in blocks of rows. None
        for no limit. ``problem.memory_estimate(solver)`` is the memory of a whole solve.
      sample_weight: (n,) weights >= 0, not all zero, or None. The loss is then ``sum_i w_i loss(F_i, Y_i)``. A weight
        of 0 leaves a sample out; an integer weight repeats a sample. Folds are ``jax.vmap`` over
        ``problem.replace(sample_weight=...)``.

    Returns:
      The problem, a frozen pytree. ``problem.replace(beta=...)`` returns a copy with another beta.

    Raises:
      InvalidInputError: an argument has a bad value or shape. Under jit only shapes and types are checked.
      InvalidTypeError: an argument has a bad type.

    >>> import jaxcvx
    >>> X, Y = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [1.0, -1.0, 0.0]
    >>> problem = jaxcvx.make_problem(X, Y, beta=0.1, arrangements=jaxcvx.enumerate_arrangements(X))
    >>> problem.num_samples, problem.num_outputs, problem.arrangements.num_cells
    (3, 1, 6)
    """
    loss, features = resolve_loss(loss), resolve_features(features)
    if max_bytes is not None and not (isinstance(max_bytes, int) and max_bytes >= 1):
        raise invalid("max_bytes", repr(max_bytes), "None or a positive number of bytes")
    X = as_real_matrix("X", X, features.ndims)
    num_weights = features.num_weights(*X.shape[1:])
    Y = as_targets(loss, Y, X.shape[0], X.dtype)
    if arrangements is not None:
        if features.free_bias:
            raise invalid("arrangements", "cells", "None with FreeBias(): its pricing needs none")
        if not isinstance(arrangements, Arrangements):
            raise wrong_type("arrangements", arrangements, "Arrangements")
        num_rows = X.shape[0] * features.readout(*X.shape[1:]).positions
        validate_arrangements(arrangements, num_rows, num_weights)
    weight = as_sample_weight(sample_weight, X.shape[0], X.dtype)
    return Problem(X, Y, as_beta(beta, X.dtype), arrangements, loss, features, max_bytes, weight)


@jax.jit
def best_constant(problem: Problem, F: Float[Array, "n c"]) -> Float[Array, c]:
    """The constant for each output that makes the loss of the predictions F plus the constant least; compiled once."""
    return problem.loss.best_constant(F, problem.targets)


def without_unweighted_samples(problem: Problem) -> Problem:
    """The problem without its samples of weight 0 and without arrangements. It has the same objective. Host only."""
    if problem.sample_weight is None:
        return problem
    return problem.samples(np.flatnonzero(np.asarray(problem.sample_weight) > 0))


def counted_rows(problem: Problem) -> Float[Array, "N p"]:
    """The feature rows scaled to length 1; zero for samples of weight 0, which no neuron needs to notice."""
    rows = unit_rows(problem.rows)
    if problem.sample_weight is None:
        return rows
    counts = jnp.repeat(problem.sample_weight > 0, problem.readout.positions)
    return jnp.where(counts[:, None], rows, 0.0)
