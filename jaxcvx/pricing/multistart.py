"""Multi-start pricing by difference-of-convex steps: good neurons for data of any size, without a bound.

For one output h(u) = sum_i r_i (z_i^T u)_+ is a difference of two convex functions: the terms with r_i > 0, minus those
with r_i < 0. Each step linearises the first function at the current u. With A = {i : r_i > 0, z_i^T u > 0} and
g = sum_A r_i z_i this is a lower bound, equal to h at u. The step maximises it exactly:

    max_{|u| <= 1} g^T u - sum_{r_i < 0} |r_i| (z_i^T u)_+  =  min_{0 <= lam_i <= |r_i|} |g - Z^T lam|,

The solution of this least-squares problem in a box gives u = (g - Z^T lam) / |g - Z^T lam|. So h never falls. The
limit is optimal over all cells that share A, including their kinks z_i^T u = 0, which plain fixed-point ascent cannot
reach. For several outputs ||Rl^T (Z u)_+|| = max_{|v|=1} sum_i (Rl v)_i (z_i^T u)_+, and v is updated in turn with u.

Sources: the concave-convex procedure, A. Yuille and A. Rangarajan (2003), P. D. Tao and L. T. H. An (1997);
accelerated projected gradient with restart, B. O'Donoghue and E. Candes, "Adaptive restart for accelerated
gradient schemes" (2015).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxcvx.numerics.safe import divisor, unit_rows
from jaxcvx.pricing.base import Priced, distinct, neuron_values


class _Ascent(NamedTuple):
    """Batch of S ascents: neuron u, output direction v, multipliers of the inner problem, value of h.

    An ascent is ``moving`` if the last round raised its value.
    """

    u: Array  # (S, p)
    v: Array  # (S, q)
    lam: Array  # (S, N)
    value: Array  # (S,)
    moving: Array  # (S,) bool


@functools.partial(jax.jit, static_argnames=("num", "rounds", "inner_steps", "finish"))
def price_multistart(
    Z: Float[Array, "N p"],
    Rl: Float[Array, "N q"],
    starts: Float[Array, "S p"],
    *,
    num: int = 32,
    rounds: int = 10,
    inner_steps: int = 100,
    finish: bool = True,
) -> Priced:
    """Local maxima of ||Rl^T (Z u)_+|| over unit u, from many starts at once.

    There are three stages of at most ``rounds`` rounds each. All starts take the first, with a twelfth of the inner
    steps. The best eighth takes the second, with all inner steps. The best ``num`` take the third, with four times as
    many (if ``finish``). With one output each start serves both signs of the residual.

    Args:
      Z: (N, p) feature rows.
      Rl: (N, q) lifted residual.
      starts: (S, p) directions of any length; zero ones are dropped. See :func:`pricing_starts`.
      num: number of neurons wanted.
      rounds: limit on the difference-of-convex steps of a stage, which ends when no start improves.
      inner_steps: accelerated gradient steps of each inner problem.
      finish: True to take the third stage, which is half of the work. Estimates of a bound need it, new neurons do not.

    Returns:
      ``Priced`` with at most ``num`` distinct neurons, best first, and ``upper = inf`` because nothing is proved.
    """
    size = jnp.linalg.norm(Z, axis=1, keepdims=True)
    rows = Z / divisor(size)
    R = Rl * size
    R = R / divisor(jnp.max(jnp.abs(R)))
    u, v = _both_signs(rows, R, unit_rows(starts))
    state = _Ascent(u, v, *_linearised(rows, R, u, v), jnp.ones(len(u), bool))
    curvature = curvature_of(rows)

    def ascend(state, steps):
        return _ascend(rows, R, state, rounds, steps, curvature)

    # Rough solutions of the inner problems move u in small steps, which leads to better maxima.
    stages = [(len(u), inner_steps // 12), (len(u) // 8, inner_steps), (0, 4 * inner_steps)]
    for keep, steps in stages if finish else stages[:2]:
        best, _ = distinct(state.u, state.value, max(keep, num), radius=1e-2)
        state = ascend(jax.tree.map(lambda a, best=best: a[best], state), max(1, steps))
    best, values = distinct(state.u, neuron_values(Z, Rl, state.u), num)
    return Priced(state.u[best], values, jnp.full((), jnp.inf, values.dtype))


def curvature_of(rows: Float[Array, "N p"]) -> Float[Array, ""]:
    """An upper bound on the squared spectral norm, about 1 % above it.

    It comes from the smaller Gram matrix. On CPUs a singular value decomposition of N rows forms an N x N matrix.
    """
    small = rows.T @ rows if rows.shape[0] >= rows.shape[1] else rows @ rows.T
    return 1.01 * jnp.max(jnp.linalg.eigvalsh(small))


def ascend_neurons(
    Z: Float[Array, "N p"],
    Rl: Float[Array, "N q"],
    u: Float[Array, "S p"],
    v: Float[Array, "S q"],
    *,
    rounds: int,
    inner_steps: int,
    curvature: Float[Array, ""],
) -> tuple[Float[Array, "S p"], Float[Array, S]]:
    """Difference-of-convex steps from given neurons, one ascent each. Small enough to stand inside other loops.

    Args:
      Z: (N, p) feature rows.
      Rl: (N, q) lifted residual.
      u: unit directions; zero rows stay zero.
      v: unit output directions. For one output they are the signs +1 or -1, which are kept.
      rounds: limit on steps. They end when no neuron improves.
      inner_steps: accelerated gradient steps of each inner problem.
      curvature: an upper bound on the squared spectral norm of the rows of Z, each scaled to length 1.

    Returns:
      The neurons and their prices.
    """
    size = jnp.linalg.norm(Z, axis=1, keepdims=True)
    rows = Z / divisor(size)
    R = Rl * size
    top = jnp.max(jnp.abs(R))
    R = R / divisor(top)
    state = _Ascent(u, v, *_linearised(rows, R, u, v), jnp.ones(len(u), bool))
    state = _ascend(rows, R, state, rounds, inner_steps, curvature)
    return state.u, state.value * top


def _ascend(rows: Array, R: Array, state: _Ascent, rounds: int, inner_steps: int, curvature: Array) -> _Ascent:
    """At most ``rounds`` difference-of-convex steps. They end when no start improves."""

    def more(carry):
        return (carry[0] < rounds) & jnp.any(carry[1].moving)

    def step(carry):
        return carry[0] + 1, _round(rows, R, carry[1], inner_steps, curvature)

    return jax.lax.while_loop(more, step, (0, state))[1]


def _both_signs(Z: Array, R: Array, u: Array) -> tuple[Array, Array]:
    """Starts with their output directions: both +1 and -1 for one output, the best direction for several."""
    if R.shape[1] == 1:
        sign = jnp.repeat(jnp.array([1.0, -1.0], R.dtype), len(u))[:, None]
        return jnp.concatenate([u, u]), sign
    return u, unit_rows(jax.nn.relu(u @ Z.T) @ R)


def _linearised(Z: Array, R: Array, u: Array, v: Array) -> tuple[Array, Array]:
    """Multipliers at which the inner problem's point is the gradient of h at u, and the value of h there."""
    r = v @ R.T
    active = u @ Z.T
    return jnp.where(active > 0, jnp.maximum(-r, 0.0), 0.0), jnp.sum(r * jax.nn.relu(active), axis=1)


def _round(Z: Array, R: Array, state: _Ascent, inner_steps: int, curvature: Array) -> _Ascent:
    """A difference-of-convex step of every ascent. A neuron is replaced only by a better one."""
    r = state.v @ R.T
    g = jnp.where(state.u @ Z.T > 0, jnp.maximum(r, 0.0), 0.0) @ Z
    cap = jnp.maximum(-r, 0.0)
    lam = least_squares_in_box(Z, g, 0.0, cap, jnp.minimum(state.lam, cap), inner_steps, curvature)
    u = unit_rows(g - lam @ Z)
    hidden = jax.nn.relu(u @ Z.T) @ R
    v = state.v if R.shape[1] == 1 else unit_rows(hidden)
    value = jnp.sum(v * hidden, axis=1)
    better = value > state.value
    moving = value > state.value + 1e3 * jnp.finfo(value.dtype).eps * jnp.abs(state.value)
    u, v = (jnp.where(better[:, None], new, old) for new, old in ((u, state.u), (v, state.v)))
    return _Ascent(u, v, lam, jnp.maximum(value, state.value), moving)


def least_squares_in_box(
    Z: Float[Array, "N p"],
    g: Float[Array, "S p"],
    low: Float[Array, "#S #N"] | float,
    high: Float[Array, "S N"],
    lam: Float[Array, "S N"],
    steps: int,
    curvature: Float[Array, ""],
) -> Float[Array, "S N"]:
    """Solve min |g - Z^T lam| over low <= lam <= high for a batch, by accelerated projected gradient with restart.

    Args:
      Z: (N, p) rows.
      g: (S, p) targets.
      low, high: bounds; they may be infinite.
      lam: (S, N) start.
      steps: number of steps.
      curvature: at least ||Z||_2^2.
    """

    def step(_, carry):
        lam, ahead, t = carry
        slope = (g - ahead @ Z) @ Z.T
        new = jnp.clip(ahead + slope / curvature, low, high)
        change = new - lam
        forward = jnp.sum(slope * change, axis=1, keepdims=True) >= 0
        t = jnp.where(forward, t, 1.0)
        longer = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return new, new + jnp.where(forward, (t - 1) / longer, 0.0) * change, longer

    first = jnp.ones((len(g), 1), g.dtype)
    return jax.lax.fori_loop(0, steps, step, (lam, lam, first))[0]


@functools.partial(jax.jit, static_argnames="num")
def pricing_starts(
    key: PRNGKeyArray,
    Z: Float[Array, "N p"],
    Rl: Float[Array, "N q"],
    num: int,
    hidden: Float[Array, "m p"] | None = None,
) -> Float[Array, "num p"]:
    """Starting directions for :func:`price_multistart`.

    The eigenvectors of Z^T diag(r) Z come first, with r the residual along its main output direction. Then come the
    neurons ``hidden`` of a network. The rest are perturbed neurons, differences of two data rows, and random
    directions.
    """
    perturb_key, row_key, random_key = jax.random.split(key, 3)
    p = Z.shape[1]
    main = jnp.linalg.eigh(Rl.T @ Rl)[1][:, -1]
    axes = jnp.linalg.eigh(Z.T @ (Z * (Rl @ main)[:, None]))[1].T
    known = [axes, -axes] if hidden is None else [axes, -axes, unit_rows(hidden)]
    parts = [jnp.concatenate(known)[:num]]
    left = num - len(parts[0])
    if hidden is not None and len(hidden) and left:
        share = left // 3
        centres = unit_rows(hidden)[jnp.arange(share) % len(hidden)]
        parts.append(centres + 0.3 * unit_rows(jax.random.normal(perturb_key, (share, p), Z.dtype)))
        left -= share
    row, other = jax.random.randint(row_key, (2, left // 2), 0, len(Z))
    other = (row + 1 + other % max(len(Z) - 1, 1)) % len(Z)  # another row
    rows = unit_rows(Z)
    parts += [rows[row] - rows[other], jax.random.normal(random_key, (left - left // 2, p), Z.dtype)]
    return unit_rows(jnp.concatenate(parts))
