"""Noise added to updates: annealed gradient noise (the ablation), and Langevin dynamics."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from jaxcvx.errors import invalid
from jaxcvx.numerics.noise import check_noise, draw_noise, perturbed
from jaxcvx.transforms.schedules import Radius, Schedule, check_radius, radius_tree


class NoiseState(NamedTuple):
    """Steps taken, and the key of the next draw."""

    count: Array  # type: ignore[assignment]
    rng_key: PRNGKeyArray


def _start(key: PRNGKeyArray) -> NoiseState:
    return NoiseState(jnp.asarray(0, jnp.int32), key)


def annealed_gradient_noise(radius_schedule: Radius, key: PRNGKeyArray, *, noise: str = "ball") -> Any:
    """Add noise to the gradients: the ablation of :func:`jaxcvx.perturb_iterates`, which it does not replace.

    Its mean is zero, so the expected update is the plain gradient and a spurious minimum stays one; it leaves it only
    by diffusion. ``optax.add_noise`` is its Gaussian kin with variance ``eta / count**gamma``.

    Args:
      radius_schedule: a number, a schedule, or a dict from a leaf's outermost name to those.
      key: jax random key.
      noise: "ball", "sphere" or "normal", as in ``perturb_iterates``.

    Returns:
      An optax GradientTransformation, to be chained before the optimiser.
    """
    import optax

    check_radius(radius_schedule, "radius_schedule")
    check_noise(noise)
    if key is None:
        raise invalid("key", None, "a jax random key")

    def update(updates: Any, state: NoiseState, params: Any = None) -> tuple[Any, NoiseState]:
        rng_key, use = jax.random.split(state.rng_key)
        radii = radius_tree(radius_schedule, None, updates, state.count)
        return perturbed(use, updates, radii, noise), NoiseState(optax.safe_increment(state.count), rng_key)

    return optax.GradientTransformation(lambda params: _start(key), update)


def langevin(learning_rate: float | Schedule, temperature: float | Schedule = 1.0, *, key: PRNGKeyArray) -> Any:
    """Langevin dynamics: ``x <- x - eta g + sqrt(2 eta T) xi`` with ``xi ~ N(0, I)``.

    With constant eta and T it samples ``exp(-loss / T)`` up to the bias of the step: on a quadratic loss of
    curvature h the stationary variance is ``T / (h (1 - eta h / 2))``. With T annealed to zero it is simulated
    annealing; with gradients of mini-batches it is SGLD (Welling and Teh, ICML 2011).

    Args:
      learning_rate: eta, a number or a schedule.
      temperature: T >= 0, a number or a schedule.
      key: jax random key.

    Returns:
      An optax GradientTransformation, whole: learning rate and sign are in it.
    """
    import optax

    check_radius(learning_rate, "learning_rate")
    check_radius(temperature, "temperature")
    if key is None:
        raise invalid("key", None, "a jax random key")

    def at(value: Any, count: Array) -> Any:
        return value(count) if callable(value) else value

    def update(updates: Any, state: NoiseState, params: Any = None) -> tuple[Any, NoiseState]:
        rng_key, use = jax.random.split(state.rng_key)
        eta, spread = at(learning_rate, state.count), at(temperature, state.count)
        scale = jnp.sqrt(2.0 * eta * spread)
        kick = draw_noise(use, updates, jax.tree.map(lambda _: scale, updates), "normal")
        moved = jax.tree.map(lambda g, xi: xi - jnp.asarray(eta, g.dtype) * g, updates, kick)
        return moved, NoiseState(optax.safe_increment(state.count), rng_key)

    return optax.GradientTransformation(lambda params: _start(key), update)
