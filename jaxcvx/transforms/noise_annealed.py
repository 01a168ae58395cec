"""noise_annealed_gd: perturbed gradient descent with noise annealing, with the constants of its paper."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from jaxcvx.errors import invalid
from jaxcvx.numerics.noise import check_noise
from jaxcvx.numerics.sphere import retract
from jaxcvx.transforms.perturb import perturbing
from jaxcvx.transforms.schedules import Radius, Schedule, check_radius, epochwise_geometric
from jaxcvx.transforms.sphere import riemannian_sphere

EPOCH_LENGTH = 400
LEARNING_RATE, LEARNING_RATE_DECAY = 0.1, 0.8
SPHERE_RADIUS, FREE_RADIUS, RADIUS_DECAY = 36.0, 1.0, 0.4


def noise_annealed_gd(
    lr_schedule: float | Schedule | None = None,
    radius_schedules: Radius | None = None,
    key: PRNGKeyArray | None = None,
    sphere_mask: Any = None,
    *,
    noise: str = "ball",
) -> Any:
    """Gradient descent with gradients at perturbed iterates: Algorithm 1 of Zhou et al. (ICML 2019).

    A step in epoch s changes leaves w on the unit sphere and free leaves a as follows::

        (w', a') = (unit(w + xi), a + eps)        xi, eps uniform in balls whose radii shrink with s
        a <- a - eta_s grad_a L(w', a')
        w <- unit(w - eta_s (I - w w^T) grad_w L(w', a'))

    The defaults are those of the paper: learning rate ``0.1 * 0.8**s``, radius ``36 * 0.4**s`` on the sphere and
    ``1 * 0.4**s`` elsewhere, and 20 epochs of 400 steps. They suit the population loss of the paper's network. A loss
    of another curvature needs another learning rate.

    Args:
      lr_schedule: learning rate, a number or a schedule.
      radius_schedules: a number, a schedule, or a dict that maps the outermost names of leaves to those.
      key: jax random key (required).
      sphere_mask: pytree of bools like the params, True for leaves on the unit sphere; or a function that returns it
        for params. None if no leaf is on a sphere.
      noise: as in :func:`jaxcvx.perturb_iterates`.

    Returns:
      A transformation with the interface of :func:`jaxcvx.perturb_iterates`: it takes ``grad_fn`` or has ``perturb``.

    Raises:
      InvalidInputError: a number is negative or not finite, the noise is unknown, or there is no key.
      InvalidTypeError: a rate or radius has a wrong type.

    >>> import jax, jax.numpy as jnp, jaxcvx, optax
    >>> params = {"w": jnp.array([1.0, 0.0])}
    >>> tx = jaxcvx.noise_annealed_gd(key=jax.random.key(0), sphere_mask={"w": True})
    >>> updates, state = tx.update(None, tx.init(params), params, grad_fn=jax.grad(lambda p: jnp.sum(p["w"])))
    >>> w = optax.apply_updates(params, updates)["w"]
    >>> bool(abs(jnp.linalg.norm(w) - 1) < 1e-6)  # the step stays on the sphere
    True
    """
    import optax

    if key is None:
        raise invalid("key", None, "a jax random key")
    check_noise(noise)
    if lr_schedule is None:
        lr_schedule = epochwise_geometric(LEARNING_RATE, LEARNING_RATE_DECAY, EPOCH_LENGTH)
    check_radius(lr_schedule, "lr_schedule")

    def mask_of(params: Any) -> Any:
        return sphere_mask(params) if callable(sphere_mask) else sphere_mask

    labels = None
    if radius_schedules is None:
        labels = lambda params: sphere_labels(params, mask_of(params))  # noqa: E731
        radius_schedules = {
            "sphere": epochwise_geometric(SPHERE_RADIUS, RADIUS_DECAY, EPOCH_LENGTH),
            "free": epochwise_geometric(FREE_RADIUS, RADIUS_DECAY, EPOCH_LENGTH),
        }
    check_radius(radius_schedules, "radius_schedules")
    descent = riemannian_sphere(optax.sgd(lr_schedule), sphere_mask)
    return perturbing(descent, radius_schedules, key, noise, labels, lambda params: retract(mask_of(params), params))


def sphere_labels(params: Any, mask: Any) -> Any:
    """A pytree of labels: "sphere" for leaves on the unit sphere, "free" for the others."""
    if mask is None:
        return jax.tree.map(lambda _: "free", params)
    return jax.tree.map(lambda on: "sphere" if on else "free", mask)
