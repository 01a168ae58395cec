"""Semismooth Newton augmented Lagrangian for the cone program with squared loss.

The scheme is that of the gated program (Li, Sun and Toh 2018) with dual variable R and multiplier Q = (V, W). The prox
of :class:`jaxcvx.penalties.cones.ConeGroups` has the generalised derivative ``(1 - t/||q||) F + (t/||q||^3) q q^T`` on
an active group, where q is the projection on the cone and F the orthogonal projector on the span of the cone's face
that contains q. Every primal iterate is a projection, so it is feasible to rounding. The multipliers of the
projections bound the dual norm.
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
from jaxcvx.numerics.safe import divisor
from jaxcvx.operators.cells import largest_penalty
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.polyhedral_cone import ActiveRows, face_basis
from jaxcvx.solvers.cone.program import ConeProgram, Stack, cone_program, evaluate_cone, stack, unstack, zero_pair
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap

_BLOCKS = 16  # active blocks per chunk
_ROWS = 128  # rows of their faces per chunk


class _State(NamedTuple):
    params: tuple[Array, Array]
    multiplier: Stack
    R: Float[Array, "n c"]
    rows: ActiveRows
    dual_norm: Array  # bound on the program's dual norm at R
    sigma: Array
    target: Array
    met: Array  # number of checks that met the tolerance
    step: Array
    residual: Array
    objective: Array
    bound: Array


def _derivative(program: ConeProgram, q: Stack, rows: ActiveRows, threshold: Array) -> tuple[Array, Stack]:
    """The generalised derivative J of the prox at projections q: faces (q c p p) and lines, zero off active groups.

    On a column J is ``faces^T faces``, plus ``line line^T`` on its group. The rows of a face are an orthonormal basis
    of its span times the square root of 1 - t/||q||.
    """
    penalty, (blocks, p, c) = program.penalty, q.shape
    slope = penalty.groups.derivative(q, threshold)
    basis = jax.vmap(jax.vmap(face_basis, in_axes=(None, None, 0)), in_axes=(None, 0, 0))

    def set_faces(faces, index):
        chosen = basis(penalty.rows, penalty.signs[index], jax.tree.map(lambda a: a[index], rows))
        return faces.at[index].set(chosen, mode="drop")

    active = jnp.any(penalty.group_norms(q) > threshold, axis=(1, 2))
    faces = fold_marked(active, _BLOCKS, set_faces, jnp.zeros((blocks, c, p, p), q.dtype))
    scale = jnp.broadcast_to(slope.scale, (blocks, 1, c))[:, 0]
    return jnp.sqrt(scale)[:, :, None, None] * faces, slope.line


def _sum_up(program: ConeProgram, faces: Float[Array, "q c p p"], lines: Stack, samples: int) -> Float[Array, "m m"]:
    """``B J B^T`` in float32, m = samples x outputs.

    Faces of thin cones have few dimensions, so few rows of ``faces`` are nonzero. Only these are summed.
    """
    operator, (blocks, c, p, _) = program.operator, faces.shape
    readout, outputs = operator.readout, operator.readout.outputs(c)
    Z, masks = operator.Z.astype(jnp.float32), operator.masks
    # A line within one column counts as one more row of the column. Lines of groups of several columns are joint.
    joint = program.penalty.groups.axis != 1 and c > 1
    rows = faces if joint else jnp.concatenate([faces, jnp.moveaxis(lines, 2, 1)[:, :, None]], axis=2)
    per_column = rows.shape[2]
    rows = rows.reshape(blocks, -1, outputs, per_column, p)  # columns are (position, output)
    rows = jnp.moveaxis(rows, 2, 0).reshape(outputs, -1, p)
    per_block = rows.shape[1] // blocks

    def images(rows, index):
        """B of the rows chosen by ``index``, as columns (samples, _ROWS)."""
        inside = masks[index // per_block % (blocks // 2)].T.astype(jnp.float32)
        activation = inside * (Z @ rows[index].astype(jnp.float32).T)
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
    """``-H^{-1} g`` for the generalised Hessian ``H = I + sigma B J B^T`` at projections q, by conjugate gradients.

    A factorisation of H in float32 preconditions them. Keywords are options of :func:`conjugate_gradients`.
    """
    faces, lines = _derivative(program, q, rows, threshold)
    H = _sum_up(program, faces, lines, g.shape[0])

    def hessian(x):
        T = program.adjoint(x)
        inside = jnp.einsum("qcrp,qpc->qcr", faces, T)
        J = jnp.einsum("qcrp,qcr->qpc", faces, inside) + lines * program.penalty.groups.inner(lines, T)
        return x + sigma * program.forward(J)

    return -conjugate_gradients(hessian, float32_inverse(sigma.astype(jnp.float32) * H), g, **accuracy)


@dataclasses.dataclass(frozen=True)
class ConeNewton(Solver):
    """The Newton phase of :class:`ConeADMM`; squared loss, (n c) x (n c) memory in float32.

    Attributes:
      grouping: as in ConeADMM.
      growth: factor on the penalty sigma after each multiplier update.
      confirm: number of checks that must meet ``tol``. The steps in between converge superlinearly and make the
        weights as accurate as the bound. A certificate from the weights alone needs that accuracy.
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
        norms = program.penalty.group_norms(Q)
        mean = jnp.sum(norms) / jnp.maximum(jnp.sum(norms > 0), 1).astype(norms.dtype)
        curvature = jnp.maximum(2 * program.operator.max_curvature(10), jnp.finfo(one.dtype).tiny)
        warm = 3 * mean / divisor(problem.beta)
        sigma = jnp.where((mean > 0) & (problem.beta > 0), warm, 100 / curvature)
        sigma = jnp.minimum(sigma, largest_penalty(program.operator))
        R = problem.Y - program.forward(Q)
        target = 1e-3 * jnp.linalg.norm(problem.Y)
        return _State(
            params, Q, R, program.penalty.start_memory(Q), jnp.inf * one, sigma, target,
            jnp.asarray(0, jnp.int32), jnp.asarray(0, jnp.int32), jnp.inf * one, one, one,
        )  # fmt: skip

    def step(self, problem: Problem, state: _State) -> _State:
        program, Y, sigma = cone_program(problem, self.grouping), problem.Y, state.sigma
        penalty, groups = program.penalty, program.penalty.groups
        threshold = sigma * problem.beta
        eps = jnp.finfo(Y.dtype).eps
        V = state.multiplier + sigma * program.adjoint(state.R)
        q, rows = penalty.project_above(V, state.rows, threshold)
        g = state.R - Y + program.forward(groups.prox(q, threshold))
        direction = _direction(program, q, rows, threshold, sigma, g)
        shift = sigma * program.adjoint(direction)
        slope = jnp.sum(g * direction)

        def potential(R, q):
            shrunk = jnp.maximum(groups.group_norms(q) - threshold, 0.0)
            return 0.5 * jnp.sum(R**2) - jnp.sum(R * Y) + jnp.sum(shrunk**2) / (2 * sigma)

        here = potential(state.R, q)

        def attempt(length, rows):
            R = state.R + length * direction
            q, rows = penalty.project_above(V + length * shift, rows, threshold)
            enough = potential(R, q) <= here + 1e-4 * length * slope + 16 * eps * jnp.abs(here)
            return length, R, q, rows, enough

        length, R, q, rows, enough = jax.lax.while_loop(
            lambda t: ~t[4] & (t[0] > 1e-4),
            lambda t: attempt(0.5 * t[0], t[3]),
            (2 * jnp.ones((), Y.dtype), state.R, q, rows, jnp.zeros((), bool)),
        )
        R = jnp.where(enough, R, state.R)
        Q = groups.prox(q, threshold)
        gradient = jnp.linalg.norm(R - Y + program.forward(Q))
        dual_norm = groups.dual_norm(q - state.multiplier) / sigma

        # The iteration has ended if the potential changes by rounding only and the gradient no longer falls.
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
        met = state.met + (gap <= self.tol).astype(state.met.dtype)
        residual = jnp.where(met >= self.confirm, gap, jnp.maximum(gap, 2 * self.tol))
        return state._replace(objective=objective, bound=bound, residual=residual, met=met)

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, state.R)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_cone(problem, outcome, self.grouping)
