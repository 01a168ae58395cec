"""perturb_iterates: gradients at perturbed params, with a perturbation that shrinks over time."""

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
    """State of :func:`perturb_iterates`: inner state, number of steps so far, key of the next perturbation."""

    inner: Any
    count: Array  # type: ignore[assignment]
    rng_key: PRNGKeyArray


class PerturbedState(NamedTuple):
    """The state after ``perturb``: the next update receives the gradient at the perturbed params."""

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
    """Give an optimiser the gradients at randomly perturbed params: annealed randomised smoothing.

    The params themselves stay without noise. The method differs from gradient noise: the expected update is the
    gradient of the loss convolved with the noise. This smoothed loss has no spurious minimum if the radius is large
    enough.

    There are two ways to use it::

        updates, state = tx.update(None, state, params, grad_fn=jax.grad(loss))

        noisy, state = tx.perturb(params, state)
        updates, state = tx.update(jax.grad(loss)(noisy), state, params)

    Args:
      inner: optax transformation that receives the gradients at the perturbed params.
      radius: a number, a schedule (a function of the step count), or a dict from labels to those.
      key: jax random key. It is split once per step.
      noise: distribution of each leaf's noise: "ball" (uniform in the ball), "sphere" (uniform on its surface) or
        "normal" (the radius is the standard deviation of every entry).
      labels: pytree of strings like the params, or a function that returns it for params; used if ``radius`` is a dict.
        By default a leaf's label is its outermost name, such as "w" in ``{"w": ..., "a": ...}``.

    Returns:
      An optax GradientTransformationExtraArgs with the additional method ``perturb(params, state)``.

    Raises:
      InvalidInputError: an argument is invalid, or an update has no ``grad_fn`` and no ``perturb`` before it.
      InvalidTypeError: the radius is not a number, a schedule or a dict.

    Source: M. Zhou, T. Liu, Y. Li, D. Lin, E. Zhou and T. Zhao, "Toward understanding the importance of noise in
    training neural networks" (ICML 2019).

    >>> import jax, jax.numpy as jnp, jaxcvx, optax
    >>> tx = jaxcvx.perturb_iterates(optax.sgd(0.5), radius=0.0, key=jax.random.key(0))
    >>> params = jnp.array([2.0])
    >>> updates, state = tx.update(None, tx.init(params), params, grad_fn=jax.grad(lambda x: jnp.sum(x**2) / 2))
    >>> print(updates)
    [-1.]
    """
    check_radius(radius)
    check_noise(noise)
    if key is None:
        raise invalid("key", None, "a jax random key")
    return perturbing(inner, radius, key, noise, labels, lambda params: params)


def perturbing(inner: Any, radius: Radius, key: Any, noise: str, labels: Any, constrain: Callable[[Any], Any]) -> Any:
    """As :func:`perturb_iterates`. In addition, ``constrain`` maps the perturbed params back to a constraint set."""
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
            if any(isinstance(x, optax.MaskedNode) for x in jax.tree.leaves(params, is_leaf=_is_masked)):
                raise invalid(
                    "params",
                    "a part of the params, from optax.multi_transform or optax.masked",
                    "all of them, at which grad_fn takes gradients: put perturb_iterates outside, with a dict of radii "
                    "and labels= for the parts (radius 0: no noise)",
                )
            noisy, state = perturb(params, state)
            updates = grad_fn(noisy)
        updates, after = inner.update(updates, state.inner, params, **extra)
        return updates, PerturbState(after, optax.safe_increment(state.count), state.rng_key)

    return _transformation()(init, update, perturb)


def _is_masked(node: Any) -> bool:
    return type(node).__name__ == "MaskedNode"


@functools.cache
def _transformation() -> type:
    """optax's type of transformations with the attribute ``perturb``.

    It cannot be a third field, because optax unpacks transformations as pairs.
    """
    import optax

    class PerturbingTransformation(optax.GradientTransformationExtraArgs):
        perturb: Callable[[Any, Any], Any]

        def __new__(cls, init: Any, update: Any, perturb: Any) -> Any:
            self = super().__new__(cls, init, update)
            self.perturb = perturb
            return self

    return PerturbingTransformation
