"""The training problem of two-layer ReLU networks, as a frozen pytree.

    min over networks of any width   loss(F, Y) + (beta/2) sum_j (||u_j||^2 + ||v_j||^2)
    where F = lower(sum_j (Z u_j)_+ v_j^T)

with Z = features.matrix(X), ``lower`` the readout (the identity for dense networks), sums over samples and no
1/n. By rescaling neurons the penalty equals ``beta * sum_j ||u_j|| ||v_j||`` at the optimum.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcvx.arrangements.cells import Arrangements, validate_arrangements
from jaxcvx.errors import invalid, wrong_type
from jaxcvx.features.dense import Dense, Features, resolve_features
from jaxcvx.features.readout import Readout
from jaxcvx.losses.base import Loss
from jaxcvx.losses.entrywise import Squared, resolve_loss
from jaxcvx.losses.targets import as_targets
from jaxcvx.numerics.trees import all_finite
from jaxcvx.numerics.validation import as_beta, as_real_matrix
from jaxcvx.operators.cells import CellOperator


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """Data, targets, loss and regularisation. Build it with :func:`jaxcvx.make_problem`, which validates.

    Attributes:
      X: (n, d) inputs, or as the features want them: (n, H, W, channels), (n, L, channels), ...
      Y: (n, c) targets: reals, +-1, or one-hot rows, as the loss wants them.
      beta: scalar weight decay, absolute (the objective is a sum over samples).
      arrangements: cells that the convex programs range over, or None.
      loss: static.
      features: static; architecture, bias and skip connection live here.
      max_bytes: static; products over cells are formed in blocks of rows whose intermediate is no larger. None for
        no limit, as where rows are spread over devices.
    """

    X: Float[Array, "n ..."]
    Y: Float[Array, "n c"]
    beta: Float[Array, ""]
    arrangements: Arrangements | None = None
    loss: Loss = dataclasses.field(default=Squared(), metadata={"static": True})
    features: Features = dataclasses.field(default=Dense(), metadata={"static": True})
    max_bytes: int | None = dataclasses.field(default=2**30, metadata={"static": True})

    def replace(self, **changes: Any) -> Problem:
        """A copy with some fields changed; ``beta`` may be a traced scalar. Nothing is validated again."""
        if "beta" in changes:
            changes["beta"] = jnp.asarray(changes["beta"], self.X.dtype)
        return dataclasses.replace(self, **changes)

    if TYPE_CHECKING:  # bound in jaxcvx/_methods.py, as the functions behind them lie in higher layers

        def beta_max(self, program: str | None = None) -> Float[Array, ""]:
            """Smallest beta whose solution is zero; see :func:`jaxcvx.beta_max`."""

        def memory_estimate(self, solver: Any) -> int:
            """Bytes that a solve takes at its peak; see :func:`jaxcvx.memory_estimate`."""

    @property
    def dtype(self) -> Any:
        """Floating type of the data."""
        return self.X.dtype

    def is_valid(self) -> Bool[Array, ""]:
        """True if data are finite and beta is not negative: what a traced problem could not be asked before."""
        return all_finite((self.X, self.Y, self.beta)) & (self.beta >= 0)

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
        """How rows become samples."""
        return self.features.readout(*self.X.shape[1:])

    @property
    def num_columns(self) -> int:
        """Output weights q of one neuron: c, or c per position. What is exact for one output is so for q = 1."""
        return self.readout.columns(self.num_outputs)

    @property
    def num_rows(self) -> int:
        """Number of rows N = n K."""
        return self.num_samples * self.readout.positions

    @property
    def rows(self) -> Float[Array, "N p"]:
        """Feature rows Z (N, p) that hidden weights multiply."""
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
) -> Problem:
    """Build and validate a training problem.

    Args:
      X: (n, d) inputs, real and finite, or the shape that ``features`` wants. float32 and float64 are kept;
        other types become jax's default float.
      Y: (n,) or (n, c) floats; integer labels (n,) for ``"softmax"``; +-1 or {0, 1} for ``"logistic"`` and
        ``"hinge"``.
      beta: weight decay >= 0, absolute: the objective is ``loss + beta/2 * (sum of squared weights)``, the
        loss a sum over samples.
      loss: ``"squared" | "logistic" | "softmax" | "huber" | "hinge" | "interpolation"`` or a Loss such as
        ``Huber(0.5)``.
      arrangements: cells for the convex programs, from ``enumerate_arrangements``,
        ``sample_arrangements`` or ``arrangements_of``.
      features: ``"dense"``, ``jaxcvx.Dense(bias=..., skip=...)``, ``jaxcvx.FreeBias()``, ``jaxcvx.ConvPool(...)``
        or ``jaxcvx.ConvFlatten(...)``.
      max_bytes: the largest intermediate of a product over cells; larger ones are formed in blocks of rows. None for
        no limit. ``problem.memory_estimate(solver)`` tells what a solve takes in all.

    Returns:
      A frozen pytree; ``problem.replace(beta=...)`` gives another.

    Raises:
      InvalidInputError, InvalidTypeError: naming the argument, what was got and what was expected. Under
        jit only shapes and types can be checked.
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
    return Problem(X, Y, as_beta(beta, X.dtype), arrangements, loss, features, max_bytes)
