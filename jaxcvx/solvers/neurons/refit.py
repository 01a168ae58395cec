"""Fit the output weights of given neurons: a group lasso over their activations, convex and small.

    min_{V, b}  loss(relu(Z U^T) V (+ Z S) (+ b), Y) + beta sum_j ||u_j|| ||v_j||

The output bias b is there if the features have one. This turns solutions of relaxations into networks, and it is a step
of ``polish``. It never returns a worse network.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.features.dense import Dense
from jaxcvx.features.readout import Readout
from jaxcvx.methods.fista import LinearMap, accelerated_step, refresh, start
from jaxcvx.networks.network import Network, balance, hidden_norms, network_objective, with_output_bias
from jaxcvx.numerics.safe import divisor
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import group_norms, shrink_groups
from jaxcvx.solvers.core.solution import relative_gap
from jaxcvx.solvers.neurons.constant import WithConstant, with_best_constant, with_constant, without_mean


def refit_outputs(problem: Problem, network: Network, *, tol: float = 1e-6, max_steps: int = 500) -> Network:
    """Fit the output weights of a network anew, and its output bias if the features have one.

    Hidden directions and skip connection are kept. Works under jit and vmap. The loss must be smooth. With a skip
    connection it must be the squared loss. Otherwise the network is only balanced.

    Args:
      problem: data, loss, beta.
      network: the network. Neurons with zero hidden weights stay zero.
      tol: relative gap of this group lasso at which to stop.
      max_steps: limit on iterations.

    Returns:
      A balanced network of the same width. Its objective is never larger.
    """
    loss, free = problem.loss, problem.features.output_bias
    network = with_output_bias(network, problem)
    if not loss.is_smooth or (network.skip is not None and not loss.unweighted.is_quadratic):
        return balance(network)
    Z, readout = problem.rows, problem.readout
    norms = hidden_norms(network)
    unit = network.hidden / divisor(norms)[:, None]
    atoms = jax.nn.relu(Z @ unit.T)
    Y = problem.Y if network.skip is None else problem.Y - readout.apply(Z, network.skip)
    local = problem.replace(Y=Y, features=Dense())  # of which the steps below need loss, targets and beta
    local = without_mean(local) if free else local
    weights = (norms[:, None] * network.output)[:, None, :]
    # The trace of the Gram matrix, an upper bound of the curvature. The line search starts from a twentieth of it.
    guess = 0.05 * readout.gain * jnp.sum(atoms**2) * problem.curvature
    compressed = loss.is_quadratic and readout == Readout() and atoms.shape[0] > atoms.shape[1]
    if compressed:  # with an output bias Y is centred already, and centred activations eliminate the bias
        atoms, Y = _compressed(atoms - jnp.mean(atoms, axis=0) if free else atoms, local.Y)
        local = local.replace(Y=Y)
    targets = local.targets
    linear = LinearMap(lambda W: readout.apply(atoms, W[:, 0, :]), lambda R: readout.price(atoms, R)[:, None, :])

    def shrink(A, step, carry):
        return shrink_groups(A, problem.beta * step), carry

    block, prox, params = WithConstant(linear, shrink, weights)
    if free and not compressed:
        block, prox, params = with_constant(local, linear, prox, weights, guess)

    def gap(F, x):
        W = x[: weights.size].reshape(weights.shape) if x.ndim == 1 else x
        R = -loss.grad(F, targets)
        R = loss.center_dual(R, targets) if free and not compressed else R
        bound = scaled_bound(local, R, jnp.max(group_norms(linear.adjoint(R))))
        return relative_gap(loss.value(F, targets) + problem.beta * jnp.sum(group_norms(W)), bound)

    def steps(carry):
        state, _, step = carry
        state = jax.lax.fori_loop(0, 20, lambda _, s: accelerated_step(loss, targets, block, prox, s), state)
        state = refresh(block, state)
        return state, gap(state.F, state.params), step + 20

    begin = (start(block, params, guess), jnp.full((), jnp.inf, Z.dtype), 0)
    state, _, _ = jax.lax.while_loop(lambda c: (c[1] > tol) & (c[2] < max_steps), steps, begin)
    output = state.params.ravel()[: weights.size].reshape(network.output.shape)
    fitted = with_best_constant(problem, balance(dataclasses.replace(network, hidden=unit, output=output)))
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
