"""riemannian_sphere: an optax optimiser for params some of whose leaves have length 1."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcvx.errors import invalid
from jaxcvx.numerics.sphere import retract, tangent


class SphereState(NamedTuple):
    """State of :func:`riemannian_sphere`."""

    inner: Any


def riemannian_sphere(inner: Any, mask: Any) -> Any:
    """Keep some leaves on the unit sphere by Riemannian optimisation.

    The inner optimiser receives the tangent part of the gradient. After its step the leaves are scaled back to length
    1. So the update is ``retract(params + inner update) - params`` for leaves on the sphere, and the inner update for
    all others. Momentum inside ``inner`` is not transported to the new tangent space.

    Args:
      inner: an optax transformation whose updates include the learning rate and the sign.
      mask: pytree of bools like the params, True for leaves on the sphere; or a function that returns it for params. A
        leaf of any shape counts as one vector. None if no leaf is on the sphere.

    Returns:
      An optax GradientTransformationExtraArgs; its ``update`` needs ``params``.

    Raises:
      InvalidInputError: an update is called without ``params``.

    >>> import jax.numpy as jnp, jaxcvx, optax
    >>> tx = jaxcvx.riemannian_sphere(optax.sgd(1.0), mask=True)
    >>> w = jnp.array([1.0, 0.0])
    >>> updates, state = tx.update(jnp.array([5.0, 1.0]), tx.init(w), w)  # only the tangent part, 1.0, counts
    >>> print((w + updates).round(3))
    [ 0.707 -0.707]
    """
    import optax

    inner = optax.with_extra_args_support(inner)

    def mask_of(params: Any) -> Any:
        return mask(params) if callable(mask) else mask

    def init(params: Any) -> SphereState:
        return SphereState(inner.init(params))

    def update(updates: Any, state: SphereState, params: Any = None, **extra: Any) -> tuple[Any, SphereState]:
        if params is None:
            raise invalid("params", None, "the current params: update(updates, state, params)")
        on = mask_of(params)
        updates, after = inner.update(tangent(on, params, updates), state.inner, params, **extra)
        if on is None:
            return updates, SphereState(after)
        retracted = retract(on, jax.tree.map(jnp.add, params, updates))
        updates = jax.tree.map(lambda m, u, q, p: q - p if m else u, on, updates, retracted, params)
        return updates, SphereState(after)

    return optax.GradientTransformationExtraArgs(init, update)
