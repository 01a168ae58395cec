"""Projection on polyhedral cones {u : s_k a_k^T u >= 0}, and the least-norm point of shifted ones.

The method is the dual active-set method of Lawson and Hanson (non-negative least squares, 1974, chapter 23). At most
dim(u) rows are active; they are kept in slots of fixed shape, so the method runs under jit and under vmap over cells.
The returned multipliers lambda are always non-negative, and for any such lambda

    max {g^T u : u in cone, ||u|| <= 1} <= ||g + A^T lambda||,

so bounds built on the result hold even where the iteration stopped early.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import divide, divisor


class ActiveRows(NamedTuple):
    """The active constraints of a projection: up to p rows and their multipliers."""

    index: Array  # type: ignore[assignment]  # (p,) row in each slot
    value: Array  # (p,) multiplier in each slot, >= 0, for rows of unit norm
    used: Array  # (p,) bool


class _Iteration(NamedTuple):
    index: Array  # type: ignore[assignment]
    value: Array
    used: Array
    point: Array  # (p,) target + A^T lambda
    fresh: Array  # bool: the multipliers solve the equations of the active rows, so a row may be added
    done: Array
    step: Array


def no_active_rows(p: int, dtype: Any, batch: tuple[int, ...] = ()) -> ActiveRows:
    """The cold start of a batch of projections: no row is active."""
    shape = (*batch, p)
    return ActiveRows(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, dtype), jnp.zeros(shape, bool))


def project_cone(
    rows: Float[Array, "n p"],
    signs: Float[Array, n],
    target: Float[Array, p],
    shift: Float[Array, n] | None = None,
    *,
    warm: ActiveRows | None = None,
    max_steps: int | None = None,
    enough: Array | float | None = None,
) -> tuple[Float[Array, p], ActiveRows]:
    """Projection of ``target`` on the cone of all u with ``signs[k] * (rows[k] @ u) >= 0``.

    With ``shift`` b the target has one more dimension and the constraints are
    ``signs[k] (rows[k] @ u[:-1]) - b[k] u[-1] >= 0``. :func:`least_norm_shift` uses them.

    Args:
      rows: (n, p) constraint normals, shared by all cells; zero rows constrain nothing.
      signs: (n,) +-1, or 0 to leave a row out.
      target: (p,) point to project (p+1 with ``shift``).
      shift: optional (n,) coefficients of the extra dimension.
      warm: active rows of a similar projection; starting from them saves most of the work.
      max_steps: limit on iterations; default 20 p + 100.
      enough: the iteration stops once the point is no longer than this.

    Returns:
      The projection, equal to ``target + A^T lambda`` with lambda >= 0 to rounding, and its active rows. If the
      iteration stopped early, the point has the same form and is longer than the projection.
    """
    rows, signs, target = jnp.asarray(rows), jnp.asarray(signs), jnp.asarray(target)
    shift = None if shift is None else jnp.asarray(shift)
    p, dtype = target.shape[0], target.dtype
    eps = jnp.finfo(dtype).eps
    max_steps = 20 * p + 100 if max_steps is None else max_steps
    square = jnp.sum(rows**2, axis=1) + (0.0 if shift is None else shift**2)
    counts = (square > 0) & ((signs != 0) if shift is None else True)
    inverse = jnp.where(counts, 1 / jnp.sqrt(divisor(square)), 0.0)

    def slack(u):
        value = signs * (rows @ u[: rows.shape[1]])
        return inverse * (value if shift is None else value - shift * u[-1])

    def gather(index):
        normals = signs[index, None] * rows[index]
        if shift is not None:
            normals = jnp.concatenate([normals, -shift[index, None]], axis=1)
        return inverse[index, None] * normals

    scale = jnp.linalg.norm(target)
    tolerance = 8 * eps * scale

    def body(state: _Iteration) -> _Iteration:
        violation = slack(state.point)
        worst = jnp.argmin(violation).astype(jnp.int32)
        repeated = jnp.any(state.used & (state.index == worst))
        finished = state.fresh & ((violation[worst] >= -tolerance) | jnp.all(state.used) | repeated)
        slot = jnp.argmin(state.used)
        adding = state.fresh & ~finished
        index = jnp.where(adding, state.index.at[slot].set(worst), state.index)
        used = state.used | (adding & (jnp.arange(p) == slot))

        active = jnp.where(used[:, None], gather(index), 0.0)
        gram = active @ active.T + jnp.diag(jnp.where(used, 0.0, 1.0))
        gram = gram + 4 * eps * jnp.eye(p, dtype=dtype)
        factor = jax.scipy.linalg.cho_factor(gram)
        solved = jax.scipy.linalg.cho_solve(factor, -(active @ target))
        residual = -(active @ (target + active.T @ solved))
        solved = solved + jax.scipy.linalg.cho_solve(factor, residual)
        solved = jnp.where(used & jnp.isfinite(solved), solved, 0.0)

        negative = used & (solved <= 0)
        ratio = jnp.where(negative, divide(state.value, state.value - solved), jnp.inf)
        length = jnp.minimum(1.0, jnp.min(ratio))
        interpolated = state.value + length * (solved - state.value)
        blocked = jnp.any(negative)
        value = jnp.where(blocked, jnp.maximum(interpolated, 0.0), solved)
        leaving = negative & (ratio <= length) & blocked
        value = jnp.where(leaving, 0.0, value)
        return _Iteration(
            index=jnp.where(finished, state.index, index),
            value=jnp.where(finished, state.value, value),
            used=jnp.where(finished, state.used, used & ~leaving),
            point=jnp.where(finished, state.point, target + active.T @ value),
            fresh=state.fresh & finished | ~blocked,
            done=finished,
            step=state.step + 1,
        )

    start = no_active_rows(p, dtype) if warm is None else warm
    value = jnp.where(start.used & (scale > 0), start.value, 0.0)
    begin = _Iteration(
        start.index,
        value,
        start.used,
        point=target if warm is None else target + gather(start.index).T @ value,
        fresh=~jnp.any(start.used),
        done=scale == 0,
        step=jnp.asarray(0),
    )

    def unfinished(state: _Iteration) -> Array:
        more = ~state.done & (state.step < max_steps)
        return more if enough is None else more & (jnp.linalg.norm(state.point) > enough)

    end = jax.lax.while_loop(unfinished, body, begin)
    return end.point, ActiveRows(end.index, end.value, end.used)


def lifted_by(
    rows: Float[Array, "n p"], signs: Float[Array, n], targets: Float[Array, "p k"], active: ActiveRows
) -> Float[Array, "p k"]:
    """``target + A^T lambda`` for every column of ``targets``, with the column's own multipliers from ``active``.

    The name comes from the effect: adding ``A^T lambda`` lifts a target towards its cone. The norm of the result
    bounds the norm of the projection.
    """
    values = jnp.where(active.used, active.value, 0.0)
    return targets + jnp.einsum("ks,ksp->pk", values, _unit_rows(rows, signs, active))


def least_norm_shift(rows: Float[Array, "n p"], signs: Float[Array, n], bound: Float[Array, n]) -> Float[Array, p]:
    """Shortest w with ``signs[k] rows[k] @ w >= bound[k]`` (least distance programming, Lawson and Hanson 1974).

    The polyhedron must not be empty. For cones of full-dimensional cells it never is.
    """
    lifted = jnp.zeros(rows.shape[1] + 1, rows.dtype).at[-1].set(1.0)
    point, _ = project_cone(rows, signs, lifted, bound)
    return divide(point[:-1], point[-1])


def _unit_rows(rows: Float[Array, "n p"], signs: Float[Array, n], active: ActiveRows) -> Float[Array, "*k p p"]:
    """The normals of the active constraints, scaled to norm 1; zero in empty slots."""
    chosen = signs[active.index, None] * rows[active.index]
    square = jnp.sum(chosen**2, axis=-1, keepdims=True)
    keep = active.used[..., None] & (square > 0)
    return jnp.where(keep, chosen / jnp.sqrt(divisor(square)), 0.0)


def face_projector(rows: Float[Array, "n p"], signs: Float[Array, n], active: ActiveRows) -> Float[Array, "p p"]:
    """Orthogonal projector on the span of the face where the active rows vanish: a derivative of the projection.

    The result has derivatives with respect to the rows.
    """
    unit, p = _unit_rows(rows, signs, active), rows.shape[1]
    empty = jnp.all(unit == 0, axis=1)
    identity = jnp.eye(p, dtype=rows.dtype)
    gram = unit @ unit.T + jnp.diag(empty.astype(rows.dtype)) + 4 * jnp.finfo(rows.dtype).eps * identity
    return identity - unit.T @ jnp.linalg.solve(gram, unit)


def face_basis(rows: Float[Array, "n p"], signs: Float[Array, n], active: ActiveRows) -> Float[Array, "p p"]:
    """Orthonormal rows that span the face where the active rows vanish; the remaining rows are zero."""
    unit = _unit_rows(rows, signs, active)
    empty = jnp.all(unit == 0, axis=1)
    # The active rows come first, zeros follow: the last columns of Q are orthogonal to all active rows.
    Q = jnp.linalg.qr(unit[jnp.argsort(empty, stable=True)].T)[0]
    return jnp.where(jnp.arange(len(empty))[:, None] >= jnp.sum(~empty), Q.T, 0.0)
