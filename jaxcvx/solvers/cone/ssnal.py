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
from jaxcvx.numerics.conjugate_gradient import conjugate_gradients, float32_inverse
from jaxcvx.numerics.fold import fold_marked
from jaxcvx.operators.cells import largest_penalty
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.polyhedral_cone import ActiveRows, face_basis
from jaxcvx.solvers.cone.program import (
    ConeProgram,
    Stack,
    cone_program,
    evaluate_cone,
    stack,
    unstack,
    zero_pair,
)
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap

_BLOCKS = 16  # active groups at a time
_ROWS = 128  # rows of their faces at a time


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


def _derivative(program: ConeProgram, q: Stack, rows: ActiveRows, threshold: Array) -> tuple[Array, Stack]:
    """The generalised derivative J of the prox at projections q, of active groups only: faces (q c p p) and lines.

    In a column, J is ``faces^T faces`` with rows that span the face, times the root of 1 - t/||q||; a group adds
    ``line line^T``.
    """
    norms, (blocks, p, c) = program.norms(q), q.shape
    on = norms > threshold
    safe = jnp.where(on, norms, 1.0)
    first = jnp.broadcast_to(jnp.where(on, 1 - threshold / safe, 0.0), (blocks, 1, c))[:, 0]
    lines = q * jnp.where(on, jnp.sqrt(threshold / safe) / safe, 0.0)
    basis = jax.vmap(jax.vmap(face_basis, in_axes=(None, None, 0)), in_axes=(None, 0, 0))

    def some(faces, index):
        found = basis(program.operator.Z, program.signs[index], jax.tree.map(lambda a: a[index], rows))
        return faces.at[index].set(found, mode="drop")

    faces = fold_marked(jnp.any(on, axis=(1, 2)), _BLOCKS, some, jnp.zeros((blocks, c, p, p), q.dtype))
    return jnp.sqrt(first)[:, :, None, None] * faces, lines


def _sum_up(program: ConeProgram, faces: Float[Array, "q c p p"], lines: Stack, samples: int) -> Float[Array, "m m"]:
    """``B J B^T`` in float32, m = samples x outputs.

    Faces of thin cones have few dimensions, so of all rows of ``faces`` few are not zero: these are collected.
    """
    operator, (blocks, c, p, _) = program.operator, faces.shape
    readout, outputs = operator.readout, operator.readout.outputs(c)
    Z, masks = operator.Z.astype(jnp.float32), operator.masks
    # A line lies in one column where there is one, or where columns are groups; it is one more row then.
    joint = program.shared and c > 1
    rows = faces if joint else jnp.concatenate([faces, jnp.moveaxis(lines, 2, 1)[:, :, None]], axis=2)
    per_column = rows.shape[2]
    rows = rows.reshape(blocks, -1, outputs, per_column, p)  # columns are (position, output)
    rows = jnp.moveaxis(rows, 2, 0).reshape(outputs, -1, p)
    per_block = rows.shape[1] // blocks

    def images(rows, index):
        """B of the rows chosen by ``index``, as columns (samples, _ROWS)."""
        activation = masks[index // per_block % (blocks // 2)].T * (Z @ rows[index].astype(jnp.float32).T)
        columns = readout.lower_column(activation, index % per_block // per_column)
        return jnp.where(index < rows.shape[0], columns, 0.0)

    def add_rows(same, index):
        columns = jax.vmap(images)(rows, index)
        return same + columns @ jnp.swapaxes(columns, 1, 2)

    def add_lines(H, index):
        gates = masks[index % (blocks // 2), :, None]
        image = jax.vmap(readout.lower)(gates * (Z @ lines[index].astype(jnp.float32)))
        image = jnp.where(index[:, None] < blocks, image.reshape(len(index), -1), 0.0)
        return H + image.T @ image

    same = jnp.zeros((outputs, samples, samples), jnp.float32)
    same = fold_marked(jnp.any(rows != 0, axis=2), _ROWS, add_rows, same)
    H = same[0]
    if outputs > 1:
        H = jnp.einsum("cnm,ce->ncme", same, jnp.eye(outputs, dtype=same.dtype))
        H = H.reshape(samples * outputs, samples * outputs)
    return fold_marked(jnp.any(lines != 0, axis=(1, 2)), _BLOCKS, add_lines, H) if joint else H


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

    H is summed up in float32 and preconditions conjugate gradients on H.
    """
    faces, lines = _derivative(program, q, rows, threshold)
    H = _sum_up(program, faces, lines, g.shape[0])

    def hessian(x):
        T = program.adjoint(x)
        inside = jnp.einsum("qcrp,qpc->qcr", faces, T)
        J = jnp.einsum("qcrp,qcr->qpc", faces, inside) + lines * program.inner(lines, T)
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

        # At the end of rounding the potential does not tell steps apart and the gradient falls no more.
        ended = enough & (-slope <= 16 * eps * jnp.abs(here)) & (gradient >= 0.5 * jnp.linalg.norm(g))
        solved = (gradient <= state.target) | ended
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
