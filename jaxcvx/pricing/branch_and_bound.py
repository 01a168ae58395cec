"""Pricing with a proved bound and without cells: branch and bound over the signs of some rows.

For one output, the terms of h(u) = sum_i r_i (z_i^T u)_+ with r_i < 0 are concave, and those with r_i > 0 are not. A
node of the tree fixes the signs of z_i^T u for some of the latter. The others are its free rows F. By
(t)_+ = (t + |t|) / 2 and Cauchy-Schwarz they obey

    sum_F r_i (z_i^T u)_+ <= 1/2 sum_F r_i z_i^T u + c / 2,
    c = min( sqrt(sum_F r_i) sqrt(lambda_max(sum_F r_i z_i z_i^T)), |r_F| ||Z||_2 ),

and the remaining function is concave. By duality, its maximum over the unit ball and the fixed signs is a least-squares
problem in a box, and every feasible point of this problem gives an upper bound. Without free rows it is the exact
maximum over many cells at once. The search does not branch on signs that other signs imply, so the tree is never
larger than the arrangement of the positive rows.

For several outputs, the bounds of the residual's principal components (columns of Rl V, V its right singular
vectors) are combined: ||Rl^T a||^2 = sum_k ((Rl V)_k^T a)^2. The result is a valid bound, but not exact.

Source: difference-of-convex branch and bound, R. Horst and H. Tuy, "Global Optimization" (1996); the bounds
are derived here.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.errors import invalid
from jaxcvx.numerics.safe import divisor
from jaxcvx.pricing.base import neuron_values
from jaxcvx.pricing.multistart import least_squares_in_box

_BATCH = 32
_STEPS = 200
_IMPLIED = 1e-12  # a sign is impossible if sign * z^T u cannot exceed this for unit z and u: the other one is implied


class Branched(NamedTuple):
    """Result of :func:`price_branch`.

    Attributes:
      directions: (1, p) the best unit neuron of all nodes.
      values: (1,) its price.
      upper: proved upper bound on every neuron's price.
      nodes: number of nodes for which a bound was computed.
      exact: True if ``upper`` is ``values[0]`` up to the relative ``tol`` and rounding.
    """

    directions: Float[Array, "1 p"]
    values: Float[Array, 1]
    upper: Float[Array, ""]
    nodes: int
    exact: bool


def price_branch(
    Z: Float[Array, "N p"],
    Rl: Float[Array, "N q"],
    *,
    incumbent: Float[Array, "m p"] | None = None,
    max_nodes: int = 10_000,
    tol: float = 1e-6,
) -> Branched:
    """Lower and upper bound on the largest price ||Rl^T (Z u)_+|| over all unit u. Runs on the host.

    Args:
      Z: (N, p) feature rows.
      Rl: (N, q) lifted residual.
      incumbent: good neurons to start from, for example from multi-start pricing. A high price prunes most nodes.
      max_nodes: budget, shared by the outputs (at least 2 for each). The bound is valid for any budget.
      tol: relative distance between the bounds at which the search stops.

    Raises:
      InvalidInputError: a budget below 1.
    """
    if max_nodes < 1:
        raise invalid("max_nodes", max_nodes, "a positive integer")
    Z, Rl = jnp.asarray(Z), jnp.asarray(Rl)
    axis = jnp.zeros((1, Z.shape[1]), Z.dtype).at[0, 0].set(1)
    U = axis if incumbent is None else jnp.concatenate([axis, incumbent])
    parts = Rl @ jnp.linalg.svd(Rl, full_matrices=False)[2].T if Rl.shape[1] > 1 else Rl
    squares, nodes = 0.0, 0
    columns = [k for k in range(parts.shape[1]) if float(jnp.linalg.norm(parts[:, k])) > 0]
    for k in columns:
        u, upper, used = _price_one(Z, parts[:, k], U, max(2, max_nodes // len(columns)), tol)
        U, squares, nodes = jnp.concatenate([U, u[None]]), squares + upper**2, nodes + used
    size = jnp.linalg.norm(U, axis=1, keepdims=True)
    U = jnp.where(size > 0, U / divisor(size), axis)
    values = neuron_values(Z, Rl, U)
    best = jnp.argmax(values)
    margin = 1 + 64 * float(jnp.finfo(Z.dtype).eps)
    upper = max(float(np.sqrt(squares)) * margin, float(values[best]))
    exact = upper <= (1 + tol) * float(values[best]) * margin**4
    return Branched(U[best][None], values[best][None], jnp.asarray(upper, Z.dtype), nodes, exact)


def _price_one(Z: Array, r: Array, U: Array, max_nodes: int, tol: float) -> tuple[Array, float, int]:
    """Best neuron, upper bound on |r^T (Z u)_+| and number of nodes, for one output."""
    size = jnp.linalg.norm(Z, axis=1)
    rows = Z / divisor(size)[:, None]
    scale = float(jnp.max(jnp.abs(r) * size))
    if scale == 0:
        return U[0], 0.0, 0
    weights = r * size / scale
    host_rows, host = np.asarray(rows, np.float64), np.asarray(weights)
    top = jnp.linalg.norm(rows, ord=2)
    outer = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    lengths = jnp.maximum(jnp.linalg.norm(U, axis=1), np.finfo(host.dtype).tiny)
    values = jnp.abs(jax.nn.relu(U @ rows.T) @ weights) / lengths
    direction, lower = U[jnp.argmax(values)], float(jnp.max(values))
    # A node is a tuple: minus an upper bound (its parent's), a number to break ties, sign of the residual, fixed signs,
    # multipliers to start from. Every neuron whose price exceeds ``lower`` lies in a node of the heap.
    root = float(np.linalg.norm(host.astype(np.float64)) * top) * (1 + 1e-6)
    empty = np.zeros(len(host), host.dtype)
    heap: list[tuple] = [(-root, -1 - k, sign, np.zeros(len(host), np.int8), empty) for k, sign in enumerate((1, -1))]
    nodes = pushed = 0
    while heap and -heap[0][0] > lower * (1 + tol) and nodes < max_nodes:
        batch = [heapq.heappop(heap) for _ in range(min(_BATCH, max_nodes - nodes, len(heap)))]
        nodes += len(batch)
        padded = batch + [batch[0]] * (_BATCH - len(batch))
        sign, fixed, lam = (np.stack([node[field] for node in padded]) for field in (2, 3, 4))
        found = _bound_nodes(rows, weights, outer, top, sign.astype(host.dtype), fixed, lam)
        bounds, u, lam, value = (np.asarray(a) for a in found)
        if float(value.max()) > lower:
            lower, direction = float(value.max()), jnp.asarray(u[value.argmax()])
        for k, node in enumerate(batch):
            bound = min(float(bounds[k]), -node[0])
            if bound > lower * (1 + tol):
                for child in _children(host_rows, sign[k] * host, fixed[k]):
                    heapq.heappush(heap, (-bound, pushed, sign[k], child, lam[k]))
                    pushed += 1
    upper = max(lower * (1 + tol), -heap[0][0] if heap else 0.0)
    return direction, scale * upper, nodes


def _children(rows: np.ndarray, r: np.ndarray, fixed: np.ndarray) -> list[np.ndarray]:
    """Signs of a node's two children: they split on the heaviest free row whose sign the fixed signs do not imply.

    If no such row is left, the only child is the node itself. Its bound is computed again, from better multipliers.
    """
    fixed = fixed.copy()
    held = np.flatnonzero(fixed)
    A = fixed[held, None] * rows[held]
    free = np.flatnonzero((r > 0) & (fixed == 0))
    for i in free[np.argsort(-r[free], kind="stable")]:
        possible = [sign for sign in (1, -1) if not held.size or _reach(A, sign * rows[i]) > _IMPLIED]
        children = []
        for sign in possible or [1]:
            child = fixed.copy()
            child[i] = sign
            children.append(child)
        if len(children) == 2:
            return children
        fixed = children[0]
    return [fixed]


def _reach(A: np.ndarray, z: np.ndarray) -> float:
    """Largest z^T u over unit u with A u >= 0."""
    from scipy.optimize import nnls

    try:
        multipliers = nnls(A.T, -z, maxiter=50 * len(A) + 100)[0]
    except RuntimeError:  # no convergence: the sign counts as possible
        return 1.0
    return float(np.linalg.norm(z + A.T @ multipliers))


@jax.jit
def _bound_nodes(
    rows: Array, r: Array, outer: Array, top: Array, sign: Array, fixed: Array, lam: Array
) -> tuple[Array, Array, Array, Array]:
    """Upper bounds of a batch of nodes, their neurons, their multipliers, and the prices of the neurons."""
    eps = jnp.finfo(r.dtype).eps
    weight = sign[:, None] * r
    positive = weight > 0
    free = jnp.where(positive & (fixed == 0), weight, 0.0)
    g = jnp.where(positive & (fixed >= 0), weight, 0.0) @ rows - 0.5 * free @ rows
    low = jnp.where(positive & (fixed > 0), -jnp.inf, 0.0)
    high = jnp.where(positive, jnp.where(fixed < 0, jnp.inf, 0.0), -weight)
    lam = least_squares_in_box(rows, g, low, high, jnp.clip(lam, low, high), _STEPS, top**2)
    u = g - lam @ rows
    size = jnp.linalg.norm(u, axis=1)
    largest = jnp.linalg.eigvalsh((free @ outer).reshape(-1, rows.shape[1], rows.shape[1]))[:, -1]
    spread = jnp.minimum(
        jnp.sqrt(jnp.sum(free, axis=1) * jnp.maximum(largest, 0.0)), jnp.linalg.norm(free, axis=1) * top
    )
    rounding = 8 * eps * (jnp.linalg.norm(weight, axis=1) + jnp.linalg.norm(lam, axis=1)) * top
    u = u / divisor(size)[:, None]
    return size + 0.5 * spread + rounding, u, lam, jnp.abs(jax.nn.relu(u @ rows.T) @ r)
