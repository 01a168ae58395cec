"""The arc-cosine kernel ``E relu(z.u) relu(z.v)`` for a standard normal z, accurate to rounding at every angle."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import norm
from jaxcvx.numerics.sphere import unit


def angle(u: Float[Array, p], v: Float[Array, p]) -> Float[Array, ""]:
    """Angle in [0, pi] between two vectors, by Kahan's formula, which is accurate near 0 and near pi too."""
    a, b = unit(u), unit(v)
    return 2 * jnp.arctan2(norm(a - b), norm(a + b))


@jax.custom_jvp
def kernel_deficit(u: Float[Array, p], v: Float[Array, p]) -> Float[Array, ""]:
    """How far the kernel of u and v is below its value for parallel vectors of the same lengths.

    The deficit is ``|u||v|/2 - E relu(z.u) relu(z.v) = |u||v| (pi - g(phi)) / (2 pi)``, where phi is the angle between
    u and v, and ``g(phi) = (pi - phi) cos(phi) + sin(phi)``. It is >= 0. For nonzero vectors it is 0 only if they
    have the same direction. A loss that is a sum of deficits keeps its relative precision near its minimum.

    Source: Y. Cho and L. Saul, "Kernel methods for deep learning" (2009).
    """
    phi = angle(u, v)
    small = 2 * jnp.pi * jnp.sin(phi / 2) ** 2 + phi * jnp.cos(phi) - jnp.sin(phi)
    return norm(u) * norm(v) * small / (2 * jnp.pi)


@kernel_deficit.defjvp
def _kernel_deficit_jvp(primals, tangents):
    """The derivative, from the kernel's gradient in u: ``((pi - phi) v + sin(phi) |v| u/|u|) / (2 pi)``.

    This formula is smooth at every angle; automatic differentiation of the value is not.
    """
    (u, v), (du, dv) = primals, tangents
    phi = angle(u, v)
    radial = 0.5 - jnp.sin(phi) / (2 * jnp.pi)
    cross = (jnp.pi - phi) / (2 * jnp.pi)
    along = norm(v) * jnp.vdot(unit(u), du) + norm(u) * jnp.vdot(unit(v), dv)
    return kernel_deficit(u, v), radial * along - cross * (jnp.vdot(v, du) + jnp.vdot(u, dv))
