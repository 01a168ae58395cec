"""Fit the output weights of given neurons: a group lasso over their activations, convex and small.

    min_V  loss(relu(Z U^T) V (+ Z S), Y) + beta sum_j ||u_j|| ||v_j||

It turns solutions of relaxations into networks, and it is a step of ``polish``. It never returns a worse network.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.features.readout import Readout
from jaxcvx.methods.fista import LinearMap, accelerated_step, refresh, start
from jaxcvx.networks.network import Network, balance, hidden_norms, network_objective
from jaxcvx.numerics.safe import divisor
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import group_norms, shrink_groups
from jaxcvx.solvers.core.solution import relative_gap


def refit_outputs(problem: Problem, network: Network, *, tol: float = 1e-6, max_steps: int = 500) -> Network:
    """Fit the output weights of a network anew. Hidden directions, skip connection and output bias are kept.

    Works under jit and vmap. The loss must be smooth. With a skip connection or an output bias it must be the squared
    loss. Otherwise the network is only balanced.

    Args:
      problem: data, loss, beta.
      network: the network. Neurons with zero hidden weights stay zero.
      tol: relative gap of this group lasso at which to stop.
      max_steps: limit on iterations.

    Returns:
      A balanced network of the same width. Its objective is never larger.
    """
    loss, squared = problem.loss, problem.loss.is_quadratic
    fixed = network.skip is not None or network.output_bias is not None
    if not loss.is_smooth or (fixed and not loss.unweighted.is_quadratic):
        return balance(network)
    Z, readout = problem.rows, problem.readout
    norms = hidden_norms(network)
    unit = network.hidden / divisor(norms)[:, None]
    atoms = jax.nn.relu(Z @ unit.T)
    Y = problem.Y if network.skip is None else problem.Y - readout.apply(Z, network.skip)
    Y = Y if network.output_bias is None else Y - network.output_bias
    weights = (norms[:, None] * network.output)[:, None, :]
    # The trace of the Gram matrix, an upper bound of the curvature. The line search starts from a twentieth of it.
    curvature = readout.gain * jnp.sum(atoms**2) * problem.curvature
    if squared and readout == Readout() and atoms.shape[0] > atoms.shape[1]:
        atoms, Y = _compressed(atoms, Y)
    local = problem.replace(Y=Y)
    targets = local.targets
    linear = LinearMap(lambda W: readout.apply(atoms, W[:, 0, :]), lambda R: readout.price(atoms, R)[:, None, :])

    def prox(A, step, carry):
        return shrink_groups(A, problem.beta * step), carry

    def gap(F, W):
        R = -loss.grad(F, targets)
        bound = scaled_bound(local, R, jnp.max(group_norms(linear.adjoint(R))))
        return relative_gap(loss.value(F, targets) + problem.beta * jnp.sum(group_norms(W)), bound)

    def block(carry):
        state, _, step = carry
        state = jax.lax.fori_loop(0, 20, lambda _, s: accelerated_step(loss, targets, linear, prox, s), state)
        state = refresh(linear, state)
        return state, gap(state.F, state.params), step + 20

    begin = (start(linear, weights, 0.05 * curvature), jnp.full((), jnp.inf, Z.dtype), 0)
    state, _, _ = jax.lax.while_loop(lambda c: (c[1] > tol) & (c[2] < max_steps), block, begin)
    fitted = balance(dataclasses.replace(network, hidden=unit, output=state.params[:, 0, :]))
    return better(problem, fitted, balance(network))


def _compressed(atoms: Float[Array, "n m"], Y: Float[Array, "n c"]) -> tuple[Array, Array]:
    """Replace n rows by m: ``(L^T, L^-1 A^T Y)`` with ``L L^T = A^T A`` has the same squared loss up to a constant."""
    m = atoms.shape[1]
    gram = atoms.T @ atoms
    shift = m * jnp.finfo(Y.dtype).eps * jnp.max(jnp.diagonal(gram)) + jnp.finfo(Y.dtype).tiny
    L = jnp.linalg.cholesky(gram + shift * jnp.eye(m, dtype=Y.dtype))
    return L.T, jax.scipy.linalg.solve_triangular(L, atoms.T @ Y, lower=True)


def better(problem: Problem, a: Network, b: Network) -> Network:
    """Return the network with the lower training objective, for two networks of the same shape; b on ties or NaN."""
    wins = network_objective(a, problem) < network_objective(b, problem)
    return jax.tree.map(lambda x, y: jnp.where(wins, x, y), a, b)
