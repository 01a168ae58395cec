"""A convex program as a layer of a flax model. Its weights are the solution of the program; they are not trained.

On features Z (n, p) and targets Y the layer's weights solve the gated ReLU program

    V(Z) = min_W  loss(sum_i D_i Z W_i, Y) + beta sum_i ||W_i||_F,        D_i = diag(1[Z g_i >= 0]),

with gates g_i that are drawn once and kept. Two outer objectives can train the backbone, which computes Z:

``layer.value`` is V itself: variable projection (Golub and Pereyra 1973). By the envelope theorem its gradient is the
gradient of the objective at the solution. Therefore backward passes need no linear solve, and gradient descent acts on
the joint training objective of backbone and head.

``layer.held_out_loss`` solves the program on one part of the batch and returns the loss on the other part: a bilevel
objective. Implicit differentiation (:mod:`jaxcvx.numerics.implicit`) includes the change of the solution in the
gradient. This costs one linear solve. The objective favours features from which a head, fitted on few samples, predicts
new samples well (Bertinetto, Henriques, Torr and Vedaldi 2019; Lee, Maji, Ravichandran and Soatto 2019).

Both treat the patterns D_i as constants. Almost everywhere they are.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.arrangements.cells import Arrangements
from jaxcvx.errors import invalid, require_extra, wrong_type
from jaxcvx.features.dense import Dense
from jaxcvx.integrations.flax_features import check_count
from jaxcvx.losses.base import Loss
from jaxcvx.losses.entrywise import resolve_loss
from jaxcvx.losses.targets import as_targets
from jaxcvx.numerics.implicit import differentiable_objective, differentiable_params
from jaxcvx.numerics.safe import unit_rows
from jaxcvx.numerics.validation import as_beta, as_real_matrix
from jaxcvx.operators.cells import CellOperator
from jaxcvx.problems.training import Problem, make_problem
from jaxcvx.proximal.norms import group_norms
from jaxcvx.solvers.core.driver import solve
from jaxcvx.solvers.core.loop import run
from jaxcvx.solvers.core.solution import Solution
from jaxcvx.solvers.gated.proximal_gradient import ProximalGradient

require_extra("flax", "flax")

from flax import nnx  # noqa: E402

_INNER = ProximalGradient(tol=1e-4, max_steps=200, check_every=10, phases="accelerated")


class Gate(nnx.Variable):
    """Directions that are drawn once. Optimisers of ``nnx.Param`` do not change them."""


class Solved(nnx.Variable):
    """Weights that solve a program. Optimisers of ``nnx.Param`` do not change them."""


class ConvexLayer(nnx.Module):
    """A gated ReLU head whose weights are the solution of a convex program on the current batch.

    ``layer.value(features, targets)`` and ``layer.held_out_loss(...)`` are outer objectives. They are differentiable in
    features, targets and beta, and work under ``nnx.jit`` and ``nnx.grad``. Each call starts from the last solution and
    stores the new one. ``layer(features)`` predicts with the stored weights. After training,
    ``layer.freeze(features, targets)`` solves the program on all data and returns the certificate.

    Attributes:
      gates: (P, p) unit directions; p is in_features, or in_features + 1 with a bias. A ``Gate``, not a ``Param``.
      weights: (P, p, out_features) the last solution, zero at first. A ``Solved``, not a ``Param``.
      solver: solver of the inner programs.

    Example:
      >>> from flax import nnx
      >>> import jax.numpy as jnp
      >>> from jaxcvx.flax import ConvexLayer
      >>> layer = ConvexLayer(2, 1, num_gates=4, beta=0.1, rngs=nnx.Rngs(0))
      >>> features, targets = jnp.array([[0.0, 1.0], [1.0, 0.0], [1.0, 2.0]]), jnp.array([[1.0], [0.0], [1.0]])
      >>> gradient = nnx.grad(lambda layer, Z: layer.value(Z, targets), argnums=1)(layer, features)
      >>> gradient.shape, layer(features).shape
      ((3, 2), (3, 1))
      >>> bool(layer.freeze(features, targets).program_gap < 1e-4)
      True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_gates: int,
        beta: float,
        *,
        loss: str | Loss = "squared",
        bias: bool = True,
        normalise: bool = True,
        beta_scale: str = "absolute",
        solver: ProximalGradient | None = None,
        param_dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        """Draw the gates.

        Args:
          in_features: length of a feature vector.
          out_features: number of outputs.
          num_gates: number of gates P.
          beta: weight decay of the inner program.
          loss: name or Loss. It must be smooth, which excludes the hinge.
          bias: append a one to every feature vector.
          normalise: divide every feature vector by its root mean square first. Without it ``value`` can be lowered
            just by scaling up the features: the penalty then vanishes, and nothing is learned.
          beta_scale: "absolute": the objective is a sum over the given samples plus the penalty, as everywhere in this
            library. "per-sample": beta is multiplied by the number of samples, so that a batch and all data have the
            same balance of loss and penalty.
          solver: solver of the inner programs in training. None means ``ProximalGradient(tol=1e-4, max_steps=200,
            check_every=10, phases="accelerated")``. The error of derivatives is about ``sqrt(tol)``.
          param_dtype: type of gates and weights; None means jax's default float.
          rngs: its ``params`` stream draws the gates.

        Raises:
          InvalidInputError, InvalidTypeError: bad arguments.
        """
        for name, size in dict(in_features=in_features, out_features=out_features, num_gates=num_gates).items():
            check_count(name, size)
        if beta_scale not in ("absolute", "per-sample"):
            raise invalid("beta_scale", repr(beta_scale), "'absolute' or 'per-sample'")
        if solver is not None and not isinstance(solver, ProximalGradient):
            raise wrong_type("solver", solver, "ProximalGradient")
        dtype = jnp.result_type(float) if param_dtype is None else param_dtype
        self.loss = resolve_loss(loss)
        if not self.loss.is_smooth:
            raise invalid("loss", repr(self.loss.name), "a smooth loss")
        self.in_features, self.out_features = in_features, out_features
        self.bias, self.normalise, self.beta_scale = bias, normalise, beta_scale
        self.beta = float(as_beta(beta, dtype))
        self.solver = _INNER if solver is None else solver
        width = in_features + int(bias)
        self.gates = Gate(unit_rows(jax.random.normal(rngs.params(), (num_gates, width), dtype)))
        self.weights = Solved(jnp.zeros((num_gates, width, out_features), dtype))

    def __call__(self, features: Float[Array, "n d"]) -> Float[Array, "n c"]:
        """Predict with the stored weights. The result is differentiable in the features; the weights are constants.

        Raises:
          InvalidInputError, InvalidTypeError: the features have a wrong shape or type.
        """
        return self._predict(self._inputs(features), jax.lax.stop_gradient(self.weights[...]))

    def problem(self, features: Any, targets: Any, beta: Any = None) -> Problem:
        """Build the inner program, a problem for :func:`jaxcvx.solve`.

        Args:
          features: (n, in_features).
          targets: (n,) or (n, out_features) numbers, or labels. Under jit labels must be one-hot rows.
          beta: weight decay that replaces the layer's own, on the same scale. It may be traced.

        Raises:
          InvalidInputError, InvalidTypeError: the arrays do not fit the layer or each other.
        """
        X = self._inputs(features)
        gates = self.gates[...]
        rows = Dense(bias=self.bias).matrix(jax.lax.stop_gradient(X))
        cells = Arrangements(gates @ rows.T >= 0, gates)
        targets = as_targets(self.loss, targets, X.shape[0], X.dtype, self.out_features)
        if targets.shape[1] != self.out_features:
            raise invalid("targets", f"{targets.shape[1]} columns", f"{self.out_features}, as the layer was made for")
        beta = self.absolute_beta(X.shape[0], beta)
        return make_problem(X, targets, beta, loss=self.loss, arrangements=cells, features=Dense(bias=self.bias))

    def absolute_beta(self, num_samples: int, beta: Any = None) -> Any:
        """Weight decay of a program on ``num_samples`` samples. A given ``beta`` replaces the layer's own."""
        beta = self.beta if beta is None else beta
        return beta * num_samples if self.beta_scale == "per-sample" else beta

    def penalty(self) -> Float[Array, ""]:
        """The factor of beta in the program's objective: the sum of the block norms of the stored weights."""
        return jnp.sum(group_norms(self.weights[...]))

    def solve(self, features: Any, targets: Any, beta: Any = None) -> Solution:
        """Solve the inner program from the stored weights, and store the new ones.

        Arguments and errors are those of :meth:`problem`.

        Returns:
          The Solution. Its ``params`` and ``objective`` are differentiable in all three arguments.
        """
        return self._solve(self.problem(features, targets, beta), self.solver)

    def value(self, features: Any, targets: Any, beta: Any = None) -> Float[Array, ""]:
        """Compute the inner program's optimal value: the outer objective of variable projection.

        Arguments and errors are those of :meth:`problem`. The gradient needs no linear solve.
        """
        return self._inner(self.problem(features, targets, beta), self.solver)[1]

    def predict(self, features: Any, targets: Any, queries: Any, beta: Any = None) -> Float[Array, "m c"]:
        """Predict for ``queries`` (m, in_features) with the solution on (features, targets).

        The result is differentiable in all arguments. The other arguments and errors are those of :meth:`problem`.
        """
        rows = self._inputs(queries, "queries")
        return self._predict(rows, self._inner(self.problem(features, targets, beta), self.solver)[0])

    def held_out_loss(
        self, features: Any, targets: Any, queries: Any, query_targets: Any, beta: Any = None
    ) -> Float[Array, ""]:
        """Compute the bilevel outer objective: the summed loss on the queries of the solution on (features, targets).

        Args:
          features, targets, beta: data of the inner program, as in :meth:`problem`.
          queries: (m, in_features).
          query_targets: targets of the queries, in the same form as ``targets``.
        """
        predictions = self.predict(features, targets, queries, beta)
        expected = as_targets(self.loss, query_targets, predictions.shape[0], predictions.dtype, self.out_features)
        return self.loss.value(predictions, expected)

    def freeze(
        self, features: Any, targets: Any, beta: Any = None, *, solver: ProximalGradient | None = None
    ) -> Solution:
        """Solve the program on all data and store the weights. After that the model needs no targets to predict.

        Args:
          features, targets, beta: as in :meth:`problem`.
          solver: None means ``ProximalGradient()``, to a relative gap of 1e-6.

        Returns:
          The Solution. ``program_gap`` certifies the stored weights. ``network`` is a ReLU network made from them;
          ``upper_bound`` and ``lower_bound`` are about its training problem.
        """
        return self._solve(self.problem(features, targets, beta), solver or ProximalGradient())

    def refresh(self, features: Any, targets: Any, beta: Any = None, *, solver: ProximalGradient | None = None) -> None:
        """Solve the program as :meth:`freeze` does, without a certificate. Cheaper; compile it by ``nnx.jit``."""
        self._inner(self.problem(features, targets, beta), solver or ProximalGradient())

    def _inputs(self, features: Any, name: str = "features") -> Float[Array, "n d"]:
        X = as_real_matrix(name, features)
        if X.shape[1] != self.in_features:
            raise invalid(name, f"{X.shape[1]} columns", f"{self.in_features}, as the layer was made for")
        X = X.astype(self.gates[...].dtype)
        if not self.normalise:
            return X
        return X / jnp.sqrt(jnp.mean(X**2, axis=1, keepdims=True) + 1e-12)

    def _predict(self, X: Float[Array, "m d"], weights: Array) -> Float[Array, "m c"]:
        rows = Dense(bias=self.bias).matrix(X)
        return CellOperator(rows, self.gates[...] @ rows.T >= 0).forward(weights)

    def _solve(self, problem: Problem, solver: ProximalGradient) -> Solution:
        solution = solve(problem, solver, init=jax.lax.stop_gradient(self.weights[...]))
        self.weights[...] = jax.lax.stop_gradient(jnp.asarray(solution.params))
        return solution

    def _inner(self, problem: Problem, solver: ProximalGradient) -> tuple[Array, Array]:
        """Compute weights and optimal value. Both are differentiable; there is no network and no bound."""
        constant = jax.lax.stop_gradient(problem)
        weights = _minimise(constant, solver, jax.lax.stop_gradient(self.weights[...]))
        self.weights[...] = weights
        optimality = solver.optimality(constant, weights)
        params = differentiable_params(optimality, problem, weights)
        value = optimality.objective(constant, weights)
        return params, differentiable_objective(optimality, problem, params, value)


@functools.partial(jax.jit, static_argnames="solver")
def _minimise(problem: Problem, solver: ProximalGradient, start: Array) -> Array:
    solver.validate(problem)
    return run(problem, solver, start, None).outcome.params
