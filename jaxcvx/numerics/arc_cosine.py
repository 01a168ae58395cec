"""The arc-cosine kernel ``E relu(z.u) relu(z.v)``, z standard normal, exact to rounding at every angle."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import norm
from jaxcvx.numerics.sphere import unit


def angle(u: Float[Array, p], v: Float[Array, p]) -> Float[Array, ""]:
    """Angle in [0, pi] between two vectors, to rounding also at its ends (Kahan's formula)."""
    a, b = unit(u), unit(v)
    return 2 * jnp.arctan2(norm(a - b), norm(a + b))


@jax.custom_jvp
def kernel_deficit(u: Float[Array, p], v: Float[Array, p]) -> Float[Array, ""]:
    """``|u||v|/2 - E relu(z.u) relu(z.v) = |u||v| (pi - g(phi)) / (2 pi)``, phi the angle of u and v.

    Here ``g(phi) = (pi - phi) cos(phi) + sin(phi)`` (Cho and Saul 2009). The deficit is >= 0, and 0 for parallel
    vectors only; loss functions made of it keep their relative precision near their minimum.
    """
    phi = angle(u, v)
    small = 2 * jnp.pi * jnp.sin(phi / 2) ** 2 + phi * jnp.cos(phi) - jnp.sin(phi)
    return norm(u) * norm(v) * small / (2 * jnp.pi)


@kernel_deficit.defjvp
def _kernel_deficit_jvp(primals, tangents):
    """The kernel's gradient in u is ``((pi - phi) v + sin(phi) |v| u/|u|) / (2 pi)``: smooth at every angle."""
    (u, v), (du, dv) = primals, tangents
    phi = angle(u, v)
    radial = 0.5 - jnp.sin(phi) / (2 * jnp.pi)
    cross = (jnp.pi - phi) / (2 * jnp.pi)
    along = norm(v) * jnp.vdot(unit(u), du) + norm(u) * jnp.vdot(unit(v), dv)
    return kernel_deficit(u, v), radial * along - cross * (jnp.vdot(v, du) + jnp.vdot(u, dv))
