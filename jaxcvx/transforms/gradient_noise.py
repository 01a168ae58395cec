"""Noise added to updates: annealed gradient noise and Langevin dynamics."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from jaxcvx.errors import invalid
from jaxcvx.numerics.noise import check_noise, draw_noise, perturbed
from jaxcvx.transforms.schedules import Radius, Schedule, check_radius, radius_tree


class NoiseState(NamedTuple):
    """The number of steps so far, and the key of the next draw."""

    count: Array  # type: ignore[assignment]
    rng_key: PRNGKeyArray


def _start(key: PRNGKeyArray) -> NoiseState:
    return NoiseState(jnp.asarray(0, jnp.int32), key)


def annealed_gradient_noise(radius_schedule: Radius, key: PRNGKeyArray, *, noise: str = "ball") -> Any:
    """Add noise to the gradients. It is the control experiment for :func:`jaxcvx.perturb_iterates`.

    The noise has mean zero, so the expected update is the plain gradient. A spurious minimum therefore stays a minimum,
    and the iterates leave it only by diffusion. ``optax.add_noise`` is similar: it adds Gaussian noise of variance
    ``eta / count**gamma``.

    Args:
      radius_schedule: a number, a schedule, or a dict that maps the outermost names of leaves to those.
      key: jax random key.
      noise: "ball", "sphere" or "normal", as in ``perturb_iterates``.

    Returns:
      An optax GradientTransformation. Chain it before the optimiser.

    Raises:
      InvalidInputError: a radius is negative or not finite, the noise is unknown, or there is no key.
      InvalidTypeError: the radius is not a number, a schedule or a dict.

    >>> import jax, jax.numpy as jnp, jaxcvx, optax
    >>> tx = optax.chain(jaxcvx.annealed_gradient_noise(0.1, jax.random.key(0)), optax.sgd(1.0))
    >>> updates, state = tx.update(jnp.zeros(3), tx.init(jnp.zeros(3)))
    >>> bool(0 < jnp.linalg.norm(updates) <= 0.1)
    True
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

    With constant eta and T it samples the density ``exp(-loss / T)`` up to a bias from the step size. For example, on a
    quadratic loss of curvature h the stationary variance is ``T / (h (1 - eta h / 2))``. With T annealed to zero it is
    simulated annealing. With gradients of mini-batches it is SGLD (Welling and Teh, ICML 2011).

    Args:
      learning_rate: eta, a number or a schedule.
      temperature: T >= 0, a number or a schedule.
      key: jax random key.

    Returns:
      An optax GradientTransformation. It includes the learning rate and the sign.

    Raises:
      InvalidInputError: a number is negative or not finite, or there is no key.
      InvalidTypeError: an argument is neither a number nor a schedule.

    >>> import jax, jax.numpy as jnp, jaxcvx
    >>> tx = jaxcvx.langevin(0.1, temperature=0.0, key=jax.random.key(0))
    >>> print(tx.update(jnp.ones(2), tx.init(jnp.ones(2)))[0])  # gradient descent at temperature zero
    [-0.1 -0.1]
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
        eta, T = at(learning_rate, state.count), at(temperature, state.count)
        scale = jnp.sqrt(2.0 * eta * T)
        noise = draw_noise(use, updates, jax.tree.map(lambda _: scale, updates), "normal")
        updates = jax.tree.map(lambda g, xi: xi - jnp.asarray(eta, g.dtype) * g, updates, noise)
        return updates, NoiseState(optax.safe_increment(state.count), rng_key)

    return optax.GradientTransformation(lambda params: _start(key), update)
