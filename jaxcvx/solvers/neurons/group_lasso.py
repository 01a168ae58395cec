"""fit_atoms: solve the group lasso over given neurons to high accuracy.

    min_W  1/2 ||lower(Phi W) - Y||^2 + beta sum_j ||w_j||

The columns of Phi are the activations (Z u_j)_+ of unit neurons u_j ("atoms"); w_j are the output weights of neuron j.
``lower`` is the readout, which turns rows into samples. The semismooth Newton method of :mod:`jaxcvx.methods.ssnal`
works on the dual, which is strongly concave. Therefore near-duplicate atoms, which pricing often produces, cost no
accuracy of the objective.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from jaxcvx.features.readout import Readout
from jaxcvx.losses.entrywise import Squared
from jaxcvx.methods.ssnal import LassoProgram, lasso_start, lasso_step
from jaxcvx.proximal.norms import group_norms, shrink_groups

_PLAIN = Readout()


class AtomFit(NamedTuple):
    """Solution of the group lasso over atoms.

    Attributes:
      output: (m, q) output weights. The row of an unused atom is zero.
      R: (n, c) dual residual. It equals ``Y - prediction`` to the accuracy reached.
      objective: objective at ``output``.
      gap: relative duality gap of this group lasso.
    """

    output: Float[Array, "m q"]
    R: Float[Array, "n c"]
    objective: Float[Array, ""]
    gap: Float[Array, ""]


def fit_atoms(
    atoms: Float[Array, "N m"],
    Y: Float[Array, "n c"],
    beta: Float[Array, ""],
    readout: Readout = _PLAIN,
    *,
    init: Float[Array, "m q"] | None = None,
    tol: float = 1e-10,
    max_steps: int = 100,
) -> AtomFit:
    """Fit the output weights of given activations with the squared loss. Works under jit and vmap.

    Each Newton step costs one factorisation of an n x n matrix and one of the smaller of m x m and nc x nc.

    Args:
      atoms: (N, m) activations of unit neurons on the stacked rows. Zero columns get zero weights.
      Y: (n, c) targets.
      beta: weight of the group norms, positive.
      readout: the map from rows to samples.
      init: (m, q) weights to start from. They save steps if they are close to the solution.
      tol: relative duality gap at which to stop (at least 64 units of rounding).
      max_steps: limit on Newton steps.

    Returns:
      An AtomFit. Its ``gap`` is the relative duality gap that was reached.
    """
    q, m = readout.columns(Y.shape[1]), atoms.shape[1]
    init = jnp.zeros((m, q), Y.dtype) if init is None else init
    program = _program(atoms, beta, readout)
    eps = float(jnp.finfo(Y.dtype).eps)
    curvature = jnp.linalg.eigvalsh(readout.lower_gram(atoms @ atoms.T))[-1]
    largest = 0.01 / eps / jnp.maximum(curvature, jnp.finfo(Y.dtype).tiny)
    weights = init[:, None, :]
    start = lasso_start(program, Y, beta, weights, group_norms(weights), curvature, largest)

    def measure(params: Array, R: Array) -> AtomFit:
        F = program.forward(params)
        objective = 0.5 * jnp.sum((F - Y) ** 2) + beta * jnp.sum(group_norms(params))
        duals = jnp.stack([Y - F, R])
        bounds = jax.vmap(lambda D: _bound(Y, beta, D, jnp.max(group_norms(program.adjoint(D)))))(duals)
        gap = (objective - jnp.max(bounds)) / jnp.maximum(jnp.abs(objective), jnp.finfo(Y.dtype).tiny)
        return AtomFit(params[:, 0, :], duals[jnp.argmax(bounds)], objective, gap)

    def step(carry):
        state, best, count = carry
        state = lasso_step(program, Y, beta, state, 10.0, largest)
        latest = measure(state.params, state.R)
        best = jax.tree.map(lambda a, b: jnp.where(latest.gap < best.gap, a, b), latest, best)
        return state, best, count + 1

    def unfinished(carry):
        return (carry[1].gap > max(tol, 64 * eps)) & (carry[2] < max_steps)

    return jax.lax.while_loop(unfinished, step, (start, measure(weights, start.R), 0))[1]


def _bound(Y: Array, beta: Array, R: Array, dual_norm: Array) -> Array:
    """Dual value of the best multiple of R that is feasible."""
    loss = Squared()
    limit = beta / jnp.where(dual_norm > 0, dual_norm, jnp.finfo(Y.dtype).tiny)
    return loss.dual_value(loss.best_scaling(R, Y, limit) * R, Y)


def _program(atoms: Array, beta: Array, readout: Readout) -> LassoProgram:
    def forward(W):
        return readout.lower(atoms @ W[:, 0, :])

    def adjoint(R):
        return (atoms.T @ readout.lift(R))[:, None, :]

    def solve(V, sigma, g):
        """Solve a system with the dual Hessian, K (x) I_c + sigma L L^T.

        It follows from the Jacobians a_j I + b_j^2 v_j v_j^T of the group soft threshold. The Woodbury identity is used
        if the m x m system is the smaller one.
        """
        (n, c), m = g.shape, atoms.shape[1]
        norms, threshold = group_norms(V), sigma * beta
        safe = jnp.where(norms > threshold, norms, 1.0)
        a = jnp.where(norms > threshold, 1 - threshold / safe, 0.0)
        b = jnp.where(norms > threshold, jnp.sqrt(threshold / safe) / safe, 0.0)
        K = jnp.eye(n, dtype=g.dtype) + sigma * readout.lower_gram((atoms * a) @ atoms.T)
        lowered = jax.vmap(lambda phi, v: readout.lower(jnp.outer(phi, v)), in_axes=(1, 0), out_axes=2)
        L = lowered(atoms, V[:, 0, :] * b[:, None])  # (n, c, m)
        if n * c <= m:
            full = jnp.kron(K, jnp.eye(c, dtype=g.dtype))
            flat = L.reshape(n * c, m)
            return cho_solve(cho_factor(full + sigma * flat @ flat.T), g.reshape(-1)).reshape(n, c)
        factor = cho_factor(K)
        columns = cho_solve(factor, L.reshape(n, c * m)).reshape(n * c, m)
        flat = L.reshape(n * c, m)
        small = jnp.eye(m, dtype=g.dtype) + sigma * flat.T @ columns
        solved = cho_solve(factor, g)
        return solved - sigma * (columns @ cho_solve(cho_factor(small), flat.T @ solved.reshape(-1))).reshape(n, c)

    return LassoProgram(forward, adjoint, shrink_groups, solve)
