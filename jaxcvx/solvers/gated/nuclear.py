"""NuclearProximalGradient: the gated program with nuclear norms, the tightest relaxation that ignores the cones."""

from __future__ import annotations

import dataclasses

from jaxcvx.penalties.nuclear import NuclearNorm
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.gated.accelerated import GatedGradient


@dataclasses.dataclass(frozen=True)
class NuclearProximalGradient(GatedGradient):
    """Solves ``min_V loss(sum_i D_i Z V_i, Y) + beta sum_i ||V_i||_*`` over the problem's cells, for any smooth loss.

    The nuclear norm is the convex hull of a cell's rank-one blocks u v^T when the cone of u is dropped, so the
    optimum is a lower bound on the training problem over the cells (Sahiner, Ergen, Pauly and Pilanci 2021). It is
    above the optimum of ProximalGradient's Frobenius groups and below that of CopositiveADMM; for one output it equals
    the former. The method is accelerated proximal gradient with singular value soft-thresholding. For the squared loss
    the last digits come from a semismooth Newton method whose systems are solved by conjugate gradients.

    ``solution.params`` is (P, p, q), one block per cell (a last one for a skip connection, with a Frobenius norm).
    ``solution.network`` is rounded from it: the blocks' left singular vectors, both signs, are moved into their cells,
    and the output weights are fitted anew. Works under jit and vmap, in float32 and float64.

    Attributes:
      tol: relative program gap to reach.
      max_steps: limit per phase.
      check_every: iterations between evaluations of the gap.
      phases: "auto", or "accelerated" for the accelerated method alone.
      switch_gap: relative gap at which the Newton phase takes over (or after 300 steps).
    """

    power_steps = 30

    def penalty(self, problem: Problem) -> NuclearNorm:
        return NuclearNorm(num_frobenius=int(problem.operator.linear))
