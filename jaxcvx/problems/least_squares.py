"""LeastSquares: ``1/2 ||f(theta) - y||^2`` for a model f that the caller provides, and four models from the theory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxcvx.problems.smooth import SmoothProblem


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LeastSquares(SmoothProblem):
    """Nonlinear least squares ``1/2 sum_i ||f_i(theta) - y_i||^2`` over n samples.

    Attributes:
      inputs: pytree of arrays whose first axis has length n, one entry per sample.
      targets: (n, ...) the targets y.
      start: initial params.
      model: static; a function of (params, inputs) that returns outputs like the targets. It treats samples separately.

    >>> import jax.numpy as jnp, jaxcvx
    >>> problem = jaxcvx.LeastSquares(
    ...     inputs=jnp.array([1.0, 2.0]), targets=jnp.array([3.0, 5.0]), start=jnp.array(0.0), model=lambda a, x: a * x
    ... )
    >>> float(problem.objective(jnp.array(3.0)))
    0.5
    """

    inputs: Any
    targets: Float[Array, "n ..."]
    start: Any
    model: Callable[[Any, Any], Any] = dataclasses.field(metadata={"static": True})

    @property
    def num_samples(self) -> int:
        """Number of samples n."""
        return self.targets.shape[0]

    def outputs(self, params: Any) -> Float[Array, "n ..."]:
        """``f(theta)``."""
        return self.model(params, self.inputs)

    def objective(self, params: Any) -> Float[Array, ""]:
        return jnp.sum((self.outputs(params) - self.targets) ** 2) / 2

    def sampled_objective(self, params: Any, key: PRNGKeyArray, batch_size: int) -> Float[Array, ""]:
        (
            ""
            """``n / b`` times the sum of the terms of b samples, drawn with replacement.

        The SGD steps of the paper lack the factor ``n / b``.
        """
        )
        chosen = jax.random.randint(key, (batch_size,), 0, self.num_samples)
        inputs = jax.tree.map(lambda x: x[chosen], self.inputs)
        error = self.model(params, inputs) - self.targets[chosen]
        return jnp.sum(error**2) * (self.num_samples / batch_size / 2)

    def initial_params(self, key: PRNGKeyArray | None) -> Any:
        return self.start

    def lower_bound(self) -> Float[Array, ""]:
        return jnp.zeros((), self.dtype)


def linear(theta: Float[Array, p], X: Float[Array, "n p"]) -> Float[Array, n]:
    """``X theta``."""
    return X @ theta


def mixed(activation: Callable[[Array], Array], slope: float) -> Callable[[Array], Array]:
    (
        ""
        """The activation ``(1 - slope) * activation(z) + slope * z``.

    If ``activation`` is increasing, the derivative is at least ``slope``.
    """
    )
    return lambda z: (1 - slope) * activation(z) + slope * z


def generalised_linear(activation: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    """``phi(X theta)``."""
    return lambda theta, X: activation(X @ theta)


def quadratic(theta: Float[Array, "d r"], X: Float[Array, "n d d"]) -> Float[Array, n]:
    """Low-rank regression ``trace(Theta^T X_i Theta)``."""
    return jnp.einsum("ia,nij,ja->n", theta, X, theta, optimize=True)


def one_hidden_layer(
    activation: Callable[[Array], Array], output: tuple[float, ...]
) -> Callable[[Array, Array], Array]:
    """``v^T phi(W x)`` with fixed output weights v."""
    return lambda W, X: activation(X @ W.T) @ jnp.asarray(output, W.dtype)
