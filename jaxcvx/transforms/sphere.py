"""riemannian_sphere: any optax optimiser, on params of which some leaves have length 1."""

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
    """Keep some leaves on the unit sphere: the inner optimiser sees tangent gradients, its step is retracted.

    The update is ``retract(params + inner update) - params``, so ``optax.apply_updates`` leaves the masked leaves
    at length 1 to rounding; the other leaves get the inner update as it is. Momentum inside ``inner`` isn't
    transported.

    Args:
      inner: an optax transformation that gives whole updates (with the learning rate and the sign in them).
      mask: pytree of bools like the params (or a function from params to one), True for leaves on the sphere;
        a leaf counts as one vector. None: no leaf.

    Returns:
      An optax GradientTransformationExtraArgs; ``update`` needs ``params``.
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
        moved = retract(on, jax.tree.map(jnp.add, params, updates))
        updates = jax.tree.map(lambda m, u, q, p: q - p if m else u, on, updates, moved, params)
        return updates, SphereState(after)

    return optax.GradientTransformationExtraArgs(init, update)
