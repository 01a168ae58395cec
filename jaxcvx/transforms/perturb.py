"""perturb_iterates: gradients evaluated at perturbed params, with a radius that is annealed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from jaxcvx.errors import invalid
from jaxcvx.numerics.noise import check_noise, perturbed
from jaxcvx.transforms.schedules import Radius, check_radius, radius_tree


class PerturbState(NamedTuple):
    """State of :func:`perturb_iterates`: the inner state, steps taken, the key of the next perturbation."""

    inner: Any
    count: Array  # type: ignore[assignment]
    rng_key: PRNGKeyArray


class PerturbedState(NamedTuple):
    """The same state after ``perturb``: the next update is given the gradient at the perturbed params."""

    inner: Any
    count: Array  # type: ignore[assignment]
    rng_key: PRNGKeyArray


def perturb_iterates(
    inner: Any,
    radius: Radius,
    *,
    key: PRNGKeyArray,
    noise: str = "ball",
    labels: Any = None,
) -> Any:
    """Feed an optimiser with gradients taken at randomly perturbed params: randomised smoothing, annealed.

    The params themselves carry no noise. This is not gradient noise: the expected update is the gradient of the
    loss convolved with the noise, which has no spurious minimum if the radius is large enough (Zhou et al.,
    "Toward understanding the importance of noise in training neural networks", ICML 2019).

    There are two ways to use it::

        updates, state = tx.update(None, state, params, grad_fn=jax.grad(loss))

        noisy, state = tx.perturb(params, state)
        updates, state = tx.update(jax.grad(loss)(noisy), state, params)

    Args:
      inner: optax transformation that is given the gradients at the perturbed params.
      radius: a number, a schedule (step count -> radius), or a dict from labels to those.
      key: jax random key; split once a step.
      noise: "ball" (uniform in the ball, of each leaf on its own), "sphere" (on its surface) or "normal" (the
        radius is the standard deviation of every entry).
      labels: pytree of strings like the params or a function from params to one, where ``radius`` is a dict; by
        default a leaf's label is its outermost name, "w" in ``{"w": ..., "a": ...}``.

    Returns:
      An optax GradientTransformationExtraArgs with one more method, ``perturb(params, state)``.

    Raises:
      InvalidInputError: bad arguments; an update with neither ``grad_fn`` nor a ``perturb`` before it.
    """
    check_radius(radius)
    check_noise(noise)
    if key is None:
        raise invalid("key", None, "a jax random key")
    return perturbing(inner, radius, key, noise, labels, lambda params: params)


def perturbing(inner: Any, radius: Radius, key: Any, noise: str, labels: Any, constrain: Callable[[Any], Any]) -> Any:
    """:func:`perturb_iterates`, with the perturbed params mapped back onto a constraint set by ``constrain``."""
    import optax

    inner = optax.with_extra_args_support(inner)

    def init(params: Any) -> PerturbState:
        return PerturbState(inner.init(params), jnp.asarray(0, jnp.int32), key)

    def perturb(params: Any, state: PerturbState) -> tuple[Any, PerturbedState]:
        rng_key, use = jax.random.split(state.rng_key)
        radii = radius_tree(radius, labels, params, state.count)
        noisy = constrain(perturbed(use, params, radii, noise))
        return noisy, PerturbedState(state.inner, state.count, rng_key)

    def update(
        updates: Any,
        state: PerturbState | PerturbedState,
        params: Any = None,
        *,
        grad_fn: Callable[[Any], Any] | None = None,
        **extra: Any,
    ) -> tuple[Any, PerturbState]:
        if params is None:
            raise invalid("params", None, "the current params: update(updates, state, params)")
        if isinstance(state, PerturbState):
            if grad_fn is None:
                raise invalid(
                    "grad_fn",
                    None,
                    "a function from params to gradients, or perturb(params, state) before the update",
                )
            noisy, state = perturb(params, state)
            updates = grad_fn(noisy)
        updates, after = inner.update(updates, state.inner, params, **extra)
        return updates, PerturbState(after, optax.safe_increment(state.count), state.rng_key)

    return _transformation()(init, update, perturb)


@functools.cache
def _transformation() -> type:
    """optax's type with ``perturb`` as an attribute (not a third field: optax unpacks pairs)."""
    import optax

    class PerturbingTransformation(optax.GradientTransformationExtraArgs):
        perturb: Callable[[Any, Any], Any]

        def __new__(cls, init: Any, update: Any, perturb: Any) -> Any:
            self = super().__new__(cls, init, update)
            self.perturb = perturb
            return self

    return PerturbingTransformation
