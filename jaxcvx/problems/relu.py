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

from jaxcvx.arrangements.cells import Arrangements
from jaxcvx.numerics.trees import all_finite
from jaxcvx.operators.features import Dense, Features
from jaxcvx.operators.masked import CellOperator
from jaxcvx.operators.readout import Readout
from jaxcvx.problems.loss import Loss
from jaxcvx.problems.losses import Squared


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
