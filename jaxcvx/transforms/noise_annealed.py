"""noise_annealed_gd: perturbed gradient descent with noise annealing, assembled with the paper's constants."""

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
    """Algorithm 1 of Zhou et al. (ICML 2019): gradient steps with the gradient taken at a perturbed iterate.

    In epoch s, at every step, for leaves w on the unit sphere and free leaves a::

        (w', a') = (unit(w + xi), a + eps)        xi, eps uniform in balls whose radii shrink from epoch to epoch
        a <- a - eta_s grad_a L(w', a')
        w <- unit(w - eta_s (I - w w^T) grad_w L(w', a'))

    The defaults are the paper's: learning rate ``0.1 * 0.8**s``, radius ``36 * 0.4**s`` on the sphere and
    ``1 * 0.4**s`` elsewhere, epochs of 400 steps (20 of them). They suit the population loss of the paper's
    network; losses with another curvature want another learning rate.

    Args:
      lr_schedule: learning rate, a number or a schedule.
      radius_schedules: a number, a schedule, or a dict from a leaf's outermost name to those.
      key: jax random key (needed).
      sphere_mask: pytree of bools like the params, or a function from params to one: leaves of length 1. None:
        no leaf.
      noise: as in :func:`jaxcvx.perturb_iterates`.

    Returns:
      A transformation to be used as that of :func:`jaxcvx.perturb_iterates`, with ``grad_fn`` or ``perturb``.
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
    """ "sphere" for leaves on the unit sphere, "free" for the others."""
    if mask is None:
        return jax.tree.map(lambda _: "free", params)
    return jax.tree.map(lambda on: "sphere" if on else "free", mask)
