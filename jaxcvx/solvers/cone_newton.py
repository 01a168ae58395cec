"""Semismooth Newton augmented Lagrangian for the cone program with squared loss.

The same scheme as for the gated program (Li, Sun and Toh 2018): dual variable R, multiplier Q = (V, W), and

    prox(A) = group soft-thresholding of the projection on the cones,

whose generalised derivative on an active group is ``(1 - t/||q||) F + (t/||q||^3) q q^T`` with q the projection
and F the orthogonal projector on the span of the cone's face that holds it. Every primal iterate is a
projection, so it is feasible to rounding; the multipliers of the projections bound the dual norm.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.operators.projections import ActiveRows, face_projector
from jaxcvx.problems.relu import Problem
from jaxcvx.solvers.base import Outcome, Parts, Solver, relative_gap
from jaxcvx.solvers.cone import ConeProgram, Stack, cone_program, evaluate_cone, stack, unstack, zero_pair
from jaxcvx.solvers.lasso_newton import largest_penalty
from jaxcvx.solvers.newton_system import conjugate_gradients, float32_inverse

_CHUNK = 8  # active groups summed up at a time


class _State(NamedTuple):
    params: tuple[Array, Array]
    multiplier: Stack
    R: Float[Array, "n c"]
    rows: ActiveRows
    dual_norm: Array  # bound on the program's dual norm at R
    sigma: Array
    target: Array
    met: Array  # checks so far that met the tolerance
    step: Array
    residual: Array
    objective: Array
    bound: Array


def _direction(
    program: ConeProgram,
    q: Stack,
    rows: ActiveRows,
    threshold: Array,
    sigma: Array,
    g: Float[Array, "n c"],
    **accuracy: Any,
) -> Float[Array, "n c"]:
    """``-H^{-1} g`` for the generalised Hessian ``H = I + sigma B J B^T`` at projections q, roughly or as options say.

    Only active groups have a part in H. They are few, so H is summed up over them in float32, chunk by chunk in a loop
    whose length is their number, and preconditions conjugate gradients on H.
    """
    operator, norms, half = program.operator, program.norms(q), q.shape[0] // 2
    safe = jnp.where(norms > threshold, norms, 1.0)
    first = jnp.where(norms > threshold, 1 - threshold / safe, 0.0)  # (2P, 1, g)
    lines = q * jnp.where(norms > threshold, jnp.sqrt(threshold / safe) / safe, 0.0)
    live = jnp.any(norms > threshold, axis=(1, 2))
    order = jnp.argsort(~live, stable=True)
    blocks, p, c = q.shape
    samples = g.shape[0]
    face = jax.vmap(jax.vmap(face_projector, in_axes=(None, None, 0)), in_axes=(None, 0, 0))

    def image(block, W):
        """``B_i W`` for the p x k matrices W of one block, in float32."""
        mask = operator.masks[block % half].astype(jnp.float32)
        return operator.readout.lower(mask[:, None] * (Z @ W.astype(jnp.float32)))

    def chunk(carry):
        start, faces, H = carry
        index = jax.lax.dynamic_slice(order, (start,), (_CHUNK,))
        used = live[index] & (jnp.arange(_CHUNK) + start < blocks)
        projector = face(operator.Z, program.signs[index], jax.tree.map(lambda a: a[index], rows))
        projector = jnp.where(used[:, None, None, None], projector, 0.0)
        scaled = projector * jnp.sqrt(jnp.broadcast_to(first[index], (_CHUNK, 1, c)))[:, 0, :, None, None]
        spread = jax.vmap(image)(index, jnp.moveaxis(scaled, 1, 2).reshape(_CHUNK, p, c * p))
        columns = jnp.moveaxis(spread.reshape(_CHUNK, samples, c, p), 2, 0)
        columns = jnp.moveaxis(columns, 2, 1).reshape(c, samples, _CHUNK * p)
        along = jnp.where(used[:, None, None], lines[index], 0.0)
        along = jnp.moveaxis(jax.vmap(image)(index, along), 0, 2)  # (n, c, chunk)
        if program.shared or c == 1:
            tangent = along.reshape(samples * c, _CHUNK)
            H = H + tangent @ tangent.T
        else:  # a group is one column
            columns = jnp.concatenate([columns, jnp.moveaxis(along, 1, 0)], axis=2)
        same = columns @ jnp.swapaxes(columns, 1, 2)  # (c, n, n)
        if c == 1:
            H = H + same[0]
        else:
            eye = jnp.eye(c, dtype=H.dtype)
            H = H + jnp.einsum("cnm,ce->ncme", same, eye).reshape(H.shape)
        return start + _CHUNK, faces.at[index].set(projector), H

    Z = operator.Z.astype(jnp.float32)
    order = jnp.pad(order, (0, _CHUNK), mode="edge")  # repeats at the end are not used
    size = samples * c
    begin = (jnp.zeros((), jnp.int32), jnp.zeros((blocks, c, p, p), q.dtype), jnp.zeros((size, size), jnp.float32))
    _, faces, H = jax.lax.while_loop(lambda carry: carry[0] < jnp.sum(live), chunk, begin)

    def hessian(x):
        T = program.adjoint(x)
        J = first * jnp.einsum("qcpr,qrc->qpc", faces, T) + lines * program.inner(lines, T)
        return x + sigma * program.forward(J)

    return -conjugate_gradients(hessian, float32_inverse(sigma.astype(jnp.float32) * H), g, **accuracy)


@dataclasses.dataclass(frozen=True)
class ConeNewton(Solver):
    """The Newton phase of :class:`ConeADMM`; squared loss, (n c) x (n c) memory in float32.

    Attributes:
      grouping: as in ConeADMM.
      growth: factor on the penalty sigma after each multiplier update.
      confirm: how many checks must meet ``tol``. The steps in between converge superlinearly and make the
        weights as good as the bound, which a certificate from the weights alone needs.
    """

    tol: float = 1e-8
    max_steps: int = 300
    check_every: int = 1
    grouping: str = "shared"
    growth: float = 10.0
    confirm: int = 4

    def initial_params(self, problem: Problem, key: Any) -> tuple[Array, Array]:
        return zero_pair(problem)

    def init(self, problem: Problem, key: Any, params: tuple[Array, Array]) -> _State:
        program = cone_program(problem, self.grouping)
        Q = stack(params)
        one = jnp.ones((), problem.X.dtype)
        norms = program.norms(Q)
        mean = jnp.sum(norms) / jnp.maximum(jnp.sum(norms > 0), 1)
        curvature = jnp.maximum(2 * program.operator.max_curvature(10), jnp.finfo(one.dtype).tiny)
        warm = 3 * mean / jnp.where(problem.beta > 0, problem.beta, 1.0)
        sigma = jnp.where((mean > 0) & (problem.beta > 0), warm, 100 / curvature)
        sigma = jnp.minimum(sigma, largest_penalty(program.operator))
        R = problem.Y - program.forward(Q)
        target = 1e-3 * jnp.linalg.norm(problem.Y)
        return _State(
            params, Q, R, program.no_rows(Q), jnp.inf * one, sigma, target,
            jnp.asarray(0, jnp.int32), jnp.asarray(0, jnp.int32), jnp.inf * one, one, one,
        )  # fmt: skip

    def step(self, problem: Problem, state: _State) -> _State:
        program, Y, sigma = cone_program(problem, self.grouping), problem.Y, state.sigma
        threshold = sigma * problem.beta
        eps = jnp.finfo(Y.dtype).eps
        V = state.multiplier + sigma * program.adjoint(state.R)
        q, rows = program.project_above(V, state.rows, threshold)
        g = state.R - Y + program.forward(program.shrink(q, threshold))
        direction = _direction(program, q, rows, threshold, sigma, g)
        moved = sigma * program.adjoint(direction)
        slope = jnp.sum(g * direction)

        def potential(R, q):
            shrunk = jnp.maximum(program.norms(q) - threshold, 0.0)
            return 0.5 * jnp.sum(R**2) - jnp.sum(R * Y) + jnp.sum(shrunk**2) / (2 * sigma)

        here = potential(state.R, q)

        def attempt(length, rows):
            R = state.R + length * direction
            q, rows = program.project_above(V + length * moved, rows, threshold)
            enough = potential(R, q) <= here + 1e-4 * length * slope + 16 * eps * jnp.abs(here)
            return length, R, q, rows, enough

        length, R, q, rows, enough = jax.lax.while_loop(
            lambda t: ~t[4] & (t[0] > 1e-4),
            lambda t: attempt(0.5 * t[0], t[3]),
            (2 * jnp.ones((), Y.dtype), state.R, q, rows, jnp.zeros((), bool)),
        )
        R = jnp.where(enough, R, state.R)
        Q = program.shrink(q, threshold)
        gradient = jnp.linalg.norm(R - Y + program.forward(Q))
        dual_norm = jnp.max(program.norms(q - state.multiplier)) / sigma

        solved = gradient <= state.target
        largest = largest_penalty(program.operator)
        kept = jnp.where(enough, sigma, 0.1 * sigma)  # a failed line search means that sigma is too large
        return state._replace(
            params=unstack(Q),
            R=R,
            rows=rows,
            dual_norm=dual_norm,
            multiplier=jnp.where(solved, Q, state.multiplier),
            sigma=jnp.where(solved, jnp.minimum(self.growth * sigma, largest), kept),
            target=jnp.where(solved, 0.1 * state.target, state.target),
            step=state.step + 1,
        )

    def check(self, problem: Problem, state: _State) -> _State:
        program = cone_program(problem, self.grouping)
        objective = program.objective(problem, stack(state.params))
        bound = scaled_bound(problem, state.R, state.dual_norm)
        gap = relative_gap(objective, bound)
        met = state.met + (gap <= self.tol)
        residual = jnp.where(met >= self.confirm, gap, jnp.maximum(gap, 2 * self.tol))
        return state._replace(objective=objective, bound=bound, residual=residual, met=met)

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, state.R)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_cone(problem, outcome, self.grouping)
