"""The doubly non-negative relaxation of training: its variables, value, dual value and feasible points.

    min  1/2 ||sum_i B_i V_i - Y||^2 + (beta/2) sum_i (tr U_i + tr W_i)
    subject to  [[U_i, V_i], [V_i^T, W_i]] positive semidefinite,  A_i U_i A_i^T >= 0 entrywise

over the cells (Sahiner, Ergen, Pauly and Pilanci 2021). B_i = lower D_i Z maps neurons of cell i to predictions, where
``lower`` is the readout of :mod:`jaxcvx.features.readout`. A_i are the facets of cell i, from which the other rows of
its constraints follow. Networks give feasible points of equal objective: U = sum u u^T, V = sum u v^T, W = sum v v^T
over the balanced neurons of a cell. So the optimum bounds training from below. It equals the optimum of training where
every cell has at most four facets, because doubly non-negative matrices up to that order are completely positive
(Maxfield and Minc 1962).

Dual: ``max <R, Y> - 1/2 ||R||^2`` subject to ``G_i G_i^T + beta A_i^T S_i A_i <= beta^2 I`` in the semidefinite order,
with G_i = B_i^T R and some S_i >= 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxcvx.arrangements.facets import facet_index
from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.errors import InvalidTypeError, TooManyArrangements
from jaxcvx.numerics.rounding import gamma
from jaxcvx.numerics.safe import divide, norm
from jaxcvx.numerics.trees import is_traced
from jaxcvx.pricing.faces import FaceTable, face_table, price_exact
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.polyhedral_cone import project_cone
from jaxcvx.proximal.psd_cone import project_psd, symmetric

_MAX_FACES = 200_000  # of all cells, for exact pricing


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CellFacets:
    """The facets of every cell, padded to the largest number k of them.

    Attributes:
      index: (P, k) index of the row of Z that is the facet's normal.
      scale: (P, k) factor that makes it an inner normal whose largest value on the cell's unit vectors is 1; 0 where
        padded. Without this scaling first-order methods fail on thin cells.
      rays: (P, k, p) unit vectors of the cell at which those values are attained; 0 where padded.
    """

    index: Int[Array, "P k"]
    scale: Float[Array, "P k"]
    rays: Float[Array, "P k p"]

    @property
    def live(self) -> Bool[Array, "P k"]:
        """False where padded."""
        return self.scale != 0

    def rows(self, Z: Float[Array, "N p"]) -> Float[Array, "P k p"]:
        """The matrices A_i, computed from the rows Z, so in float64 they are right to the last digit."""
        return self.scale[:, :, None] * Z[self.index]

    def centers(self) -> Float[Array, "P p"]:
        """A direction inside each cell at which every facet's value is at least 1/k; zero without facets."""
        count = jnp.maximum(jnp.sum(self.live, axis=1), 1).astype(self.rays.dtype)
        return jnp.sum(self.rays, axis=1) / count[:, None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FacetProblem(Problem):
    """A problem with the facets of its cells, which were computed on the host. It is used like the original.

    Attributes:
      facets: of every cell.
      faces: the cells' faces, with which neurons are priced exactly; None if there are too many or X is float32,
        whose rounding would spoil the proof.
    """

    facets: CellFacets | None = None
    faces: FaceTable | None = None


class Blocks(NamedTuple):
    """The relaxation's variables."""

    U: Float[Array, "P p p"]
    V: Float[Array, "P p q"]
    W: Float[Array, "P q q"]


class Dual(NamedTuple):
    """A dual candidate: residual and facet multipliers."""

    R: Float[Array, "n c"]
    S: Float[Array, "P k k"]


def with_facets(problem: Problem) -> FacetProblem:
    """Attach the facets of the problem's cells. X and the cells must be concrete; Y and beta may be traced.

    Raises:
      InvalidTypeError: X or the cells are traced.
    """
    if isinstance(problem, FacetProblem):
        return problem
    cells = problem.arrangements
    assert cells is not None, "checked by solve"
    if is_traced(problem.X, cells.masks, cells.gates):
        raise InvalidTypeError(
            "problem: got traced X or arrangements, expected concrete ones: how many facets a cell has depends on "
            "the values. Call CopositiveADMM().prepare(problem) outside jit and solve what it returns."
        )
    with jax.ensure_compile_time_eval():
        rows = np.asarray(problem.rows)
        index = facet_index(rows, cells.masks, cells.gates)
        facets = _cell_facets(jnp.asarray(rows), cells.masks, jnp.asarray(index))
        faces = None
        if rows.dtype == np.float64:
            with contextlib.suppress(TooManyArrangements):
                faces = face_table(jnp.asarray(rows), cells.masks, cells.gates, max_faces=_MAX_FACES)
    fields = {field.name: getattr(problem, field.name) for field in dataclasses.fields(problem)}
    return FacetProblem(**fields, facets=facets, faces=faces)


@jax.jit
def _cell_facets(rows: Array, masks: Array, index: Array) -> CellFacets:
    at = jnp.maximum(index, 0)
    live = index >= 0
    inside = jnp.take_along_axis(masks, at, axis=1)
    signs = jnp.where(live, jnp.where(inside, 1.0, -1.0), 0.0).astype(rows.dtype)

    def rays_of(sign: Array, own: Array) -> Array:
        inner = sign[:, None] * own
        return jax.vmap(lambda target: project_cone(own, sign, target)[0])(inner)

    rays = jax.vmap(rays_of)(signs, rows[at])
    inverse = divide(1.0, jnp.where(live, norm(rays), 0.0))
    return CellFacets(at, signs * inverse, rays * inverse[:, :, None])


def facets_of_problem(problem: Problem) -> CellFacets:
    """The facets that :func:`with_facets` attached."""
    assert isinstance(problem, FacetProblem) and problem.facets is not None, "prepared by solve"
    return problem.facets


def relaxation_is_exact(problem: Problem) -> bool:
    """True if every cell has at most four facets: the relaxation then equals training over the cells.

    So it is for two features, and for up to four samples. With more facets the relaxation can be exact too, which
    ``solution.gap`` shows. The problem must be concrete.
    """
    live = facets_of_problem(with_facets(problem)).live
    return int(jnp.max(jnp.sum(live, axis=1))) <= 4


def zero_relaxed(problem: Problem) -> Blocks:
    """The zero point, which is feasible."""
    operator = problem.operator
    P, p, q = operator.num_cells, operator.Z.shape[1], operator.readout.columns(problem.num_outputs)
    shapes = ((P, p, p), (P, p, q), (P, q, q))
    return Blocks(*(jnp.zeros(shape, problem.X.dtype) for shape in shapes))


def _trace(A: Array) -> Array:
    return jnp.trace(A, axis1=-2, axis2=-1)


def relaxed_objective(problem: Problem, blocks: Blocks) -> Float[Array, ""]:
    """Value of the relaxation at ``blocks``."""
    F = problem.operator.forward(blocks.V)
    penalty = 0.5 * (jnp.sum(_trace(blocks.U)) + jnp.sum(_trace(blocks.W)))
    return problem.loss.value(F, problem.Y) + problem.beta * penalty


def facet_rows(problem: Problem) -> Float[Array, "P k p"]:
    """The matrices A_i of all cells."""
    return facets_of_problem(problem).rows(problem.rows)


def congruence(A: Float[Array, "P k p"], U: Float[Array, "P p p"]) -> Float[Array, "P k k"]:
    """``A_i U_i A_i^T``."""
    return jnp.einsum("ikp,ipr,ilr->ikl", A, U, A)


def make_feasible(problem: Problem, blocks: Blocks) -> Blocks:
    """Increase U along the cells' centers until ``A U A^T >= 0``. The blocks must be positive semidefinite."""
    A, centers = facet_rows(problem), facets_of_problem(problem).centers()
    values = jnp.einsum("ikp,ip->ik", A, centers)
    deficit = jnp.maximum(-congruence(A, blocks.U), 0.0)
    length = jnp.max(divide(deficit, values[:, :, None] * values[:, None, :]), axis=(1, 2))
    return blocks._replace(U=blocks.U + length[:, None, None] * centers[:, :, None] * centers[:, None, :])


def relaxed_dual_norm(problem: Problem, dual: Dual) -> Float[Array, ""]:
    """The least norm M such that ``(beta / M) R`` with multipliers ``(beta / M)^2 S`` is feasible for the dual.

    At least the price of every neuron in the cells, since ``u^T A^T S A u >= 0`` there. Negative entries of S
    count as 0.
    """
    G, A = problem.operator.carefully().adjoint(dual.R), jnp.swapaxes(facet_rows(problem), 1, 2)
    S = symmetric(jnp.maximum(dual.S, 0.0))
    lifted, terms = problem.beta * congruence(A, S), problem.beta * congruence(jnp.abs(A), S)
    top = jnp.linalg.eigvalsh(jnp.einsum("ipq,irq->ipr", G, G) + lifted)[:, -1]
    size = jnp.sum(G**2, axis=(1, 2)) + jnp.sqrt(jnp.sum(terms**2, axis=(1, 2)))
    rounding = gamma(8 * (sum(G.shape[1:]) + A.shape[2]) + 64, G.dtype) * size
    return jnp.sqrt(jnp.maximum(jnp.max(top + rounding), 0.0))


def relaxed_bound(problem: Problem, dual: Dual) -> Float[Array, ""]:
    """Dual value of the relaxation at the best multiple of ``dual``: a lower bound on training over the cells."""
    return scaled_bound(problem, dual.R, relaxed_dual_norm(problem, dual))


def training_dual_norm(problem: Problem, dual: Dual) -> Float[Array, ""]:
    """Upper bound on the price of every neuron in the cells: exact where the faces are known, else the relaxation's."""
    relaxed = relaxed_dual_norm(problem, dual)
    faces = problem.faces if isinstance(problem, FacetProblem) else None
    if faces is None:
        return relaxed
    operator = problem.operator
    priced = price_exact(faces, operator.Z, operator.masks, operator.readout.lift(dual.R))
    return jnp.minimum(relaxed, priced.upper)


def fit_multipliers(problem: Problem, dual: Dual, num_steps: int = 200) -> Dual:
    """Better multipliers for the same R: ``min_{S >= 0} sum_i ||(G_i G_i^T + beta A_i^T S_i A_i - beta^2 I)_+||^2``.

    The value is 0 at points that are feasible for the dual. Accelerated projected gradients start from the given S.
    They have a step size for each cell, which :mod:`jaxcvx.methods.fista` does not offer.
    """
    A, beta = facet_rows(problem), problem.beta
    transposed = jnp.swapaxes(A, 1, 2)
    G = problem.operator.adjoint(dual.R)
    excess = jnp.einsum("ipq,irq->ipr", G, G) - beta**2 * jnp.eye(A.shape[2], dtype=A.dtype)
    size = jnp.sum(A**2, axis=(1, 2)) ** 2
    rate = divide(1.0, beta * size)[:, None, None]

    def step(count, carry):
        S, point = carry
        violation = project_psd(excess + beta * congruence(transposed, point))
        new = jnp.maximum(point - rate * congruence(A, violation), 0.0)
        return new, new + count / (count + 3) * (new - S)

    start = symmetric(jnp.maximum(dual.S, 0.0))
    return dual._replace(S=jax.lax.fori_loop(0, num_steps, step, (start, start))[0])
