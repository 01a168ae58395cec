"""polish: improve any network by convex programs on the cells of its own neurons.

An optimal network often lies on kinks (z_i^T u = 0). Smooth descent stalls there; a convex program with cone
constraints does not. For one output, the network is a feasible point of the cone program over the cells of its
neurons. Therefore the optimum of that program is at least as good. For several outputs, two convex programs alternate:
output weights for fixed hidden directions, then hidden weights within their cells for fixed output directions. With an
output bias both programs fit it too, and for one output they follow the cone program.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxcvx.arrangements.cells import Arrangements, arrangements_of
from jaxcvx.errors import invalid
from jaxcvx.losses.base import Loss
from jaxcvx.methods.fista import LinearMap, accelerated_step, refresh, start
from jaxcvx.networks.network import (
    Network,
    balance,
    checked_network,
    merge_parallel,
    objective_on_host,
    problem_for,
    prune,
    with_output_bias,
)
from jaxcvx.networks.recovery import network_from_cone
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.numerics.safe import norm, unit_rows
from jaxcvx.problems.training import Problem, without_unweighted_samples
from jaxcvx.proximal.norms import shrink_groups
from jaxcvx.proximal.polyhedral_cone import no_active_rows, project_cone
from jaxcvx.solvers.cone.admm import ConeADMM
from jaxcvx.solvers.cone.program import pair_from_network
from jaxcvx.solvers.core.loop import run
from jaxcvx.solvers.neurons.constant import WithConstant, with_best_constant, with_constant, without_mean
from jaxcvx.solvers.neurons.refit import better, refit_outputs


def improve_hidden(problem: Problem, network: Network, max_steps: int = 200) -> Network:
    """Optimise the hidden weights within the neurons' own cells and the output bias, for fixed output directions.

    With v_j fixed and of unit length, the problem in u_j is convex: group norms under cone constraints. It is solved by
    accelerated proximal gradient steps, whose proximal operator projects on the cones. Works under jit.

    Args:
      problem: data, loss, beta.
      network: the network to improve. It is only balanced if the loss is not smooth, or if there is a skip connection
        and the loss is not squared.
      max_steps: number of steps, in blocks of 20.

    Returns:
      A balanced network of the same width. Its objective is never larger.
    """
    loss, network = problem.loss, with_output_bias(network, problem)
    if not loss.is_smooth or (network.skip is not None and not loss.unweighted.is_quadratic):
        return balance(network)
    network, free = balance(network), problem.features.output_bias
    Z, readout = problem.rows, problem.readout
    Y = problem.Y if network.skip is None else problem.Y - readout.apply(Z, network.skip)
    local = problem.replace(Y=Y)
    local = without_mean(local) if free else local
    targets = local.targets
    size = norm(network.output)
    alive = size > 0
    towards = unit_rows(network.output)
    masks = ((network.hidden @ Z.T) >= 0).astype(Z.dtype)
    signs = 2 * masks - 1

    def forward(U):
        return readout.apply((masks * (U[:, :, 0] @ Z.T)).T, towards)

    def adjoint(R):
        return ((masks * (towards @ readout.lift(R).T)) @ Z)[:, :, None]

    def shrink_inside(A, step, rows):
        project = jax.vmap(lambda s, a, r: project_cone(Z, s, a, warm=r))
        inside, rows = project(signs, jnp.where(alive[:, None], A[:, :, 0], 0.0), rows)
        return shrink_groups(inside[:, :, None], problem.beta * step), rows

    linear = LinearMap(forward, adjoint)
    weights = (network.hidden * size[:, None])[:, :, None]
    rows = no_active_rows(Z.shape[1], Z.dtype, size.shape)
    guess = 0.05 * problem.curvature * readout.gain * jnp.sum(Z**2)
    linear, prox, params = WithConstant(linear, shrink_inside, weights)
    if free:
        linear, prox, params = with_constant(local, linear, prox, weights, guess)

    def block(_, state):
        step = functools.partial(accelerated_step, loss, targets, linear, prox)
        return refresh(linear, jax.lax.fori_loop(0, 20, lambda _, s: step(s), state))

    state = jax.lax.fori_loop(0, max(1, max_steps // 20), block, start(linear, params, guess, rows))
    hidden = state.params.ravel()[: weights.size].reshape(network.hidden.shape)
    improved = with_best_constant(problem, balance(dataclasses.replace(network, hidden=hidden, output=towards)))
    return better(problem, improved, network)


@functools.partial(jax.jit, static_argnames=("rounds", "max_steps"))
def _alternate(problem: Problem, network: Network, rounds: int, max_steps: int) -> Network:
    def one_round(_, net):
        net = refit_outputs(problem, net, tol=1e-7, max_steps=400)
        return improve_hidden(problem, net, max_steps)

    return jax.lax.fori_loop(0, rounds, one_round, balance(network))


@functools.partial(jax.jit, static_argnames="solver")
def _cone_network(problem: Problem, solver: ConeADMM, params: Any) -> Network:
    return network_from_cone(problem, *run(problem, solver, params, None).outcome.params)


def _padded(cells: Arrangements, multiple: int = 16) -> Arrangements:
    """Repeat cells until their number is a multiple of ``multiple``. This keeps the number of compiled shapes small."""
    extra = -cells.num_cells % multiple
    repeated = jnp.arange(cells.num_cells + extra) % cells.num_cells
    return dataclasses.replace(cells, masks=cells.masks[repeated], gates=cells.gates[repeated])


def _in_cells(problem: Problem, network: Network, cells: Arrangements, tol: float, rounds: int) -> Network:
    """The network that the convex programs over its own cells lead to.

    For one output this is the cone program. It has no output bias. So it is solved for the network's own bias, where a
    constant can be taken off Y; then all weights and the bias are optimised together, with the neurons in their cells.
    """
    free = problem.features.output_bias
    if problem.num_columns > 1:
        return _alternate(problem, network, rounds, 100)
    if free and not problem.loss.shift_invariant:
        return _alternate(problem, network, rounds + 1, 400)
    local = problem.replace(arrangements=_padded(cells))
    if network.output_bias is not None:
        local = local.replace(Y=problem.Y - network.output_bias, features=problem.features.without_output_bias())
    found = _cone_network(local, ConeADMM(tol=tol, max_steps=5_000), pair_from_network(local, network))
    if not free:
        return found
    found = dataclasses.replace(found, features=problem.features, output_bias=network.output_bias)
    return _alternate(problem, with_best_constant(problem, found), rounds + 1, 400)


@with_full_precision
def polish_problem(problem: Problem, network: Network, *, tol: float = 1e-6, rounds: int = 2) -> Network:
    """Apply :func:`polish` to a problem that is already built. Its arrangements are ignored."""
    original = with_output_bias(network, problem)
    start_net = with_best_constant(problem, merge_parallel(original))
    objective = float(objective_on_host(original, problem))
    candidates = [balance(original), start_net]
    cells = arrangements_of(start_net, problem.X)
    if cells.num_cells:
        candidates.append(_in_cells(problem.replace(arrangements=None), start_net, cells, tol, rounds))
    candidates = [jax.tree.map(jnp.asarray, prune(net)) for net in candidates]
    values = [float(objective_on_host(net, problem)) for net in candidates]
    best = min((v for v in values if v == v), default=objective)
    return candidates[values.index(best)] if best <= objective else original


@with_full_precision
def polish(
    network: Network,
    X: Any,
    Y: Any,
    beta: Any,
    *,
    loss: str | Loss = "squared",
    tol: float = 1e-6,
    sample_weight: Any = None,
) -> Network:
    """Improve a network by the convex programs on its own cells. The result is never worse. Works only outside jit.

    Args:
      network: any network, trained by any method.
      X, Y, beta, loss: as in :func:`jaxcvx.make_problem`.
      tol: relative program gap for the cone program (one output).
      sample_weight: as in :func:`jaxcvx.make_problem`. The cells ignore samples of weight 0.

    Returns:
      A balanced, pruned network. Its training objective is at most that of the given network; its width may differ.

    Raises:
      InvalidInputError, InvalidTypeError: bad arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxcvx
      >>> X, Y = [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [0.0, 1.0, 2.0]
      >>> network = jaxcvx.Network(jnp.array([[1.0, 0.5]]), jnp.array([[0.5]]))
      >>> polished = jaxcvx.polish(network, X, Y, beta=0.1)
      >>> before, after = (jaxcvx.training_objective(net, X, Y, 0.1) for net in (network, polished))
      >>> bool(after < before)
      True
    """
    problem = without_unweighted_samples(problem_for(network, X, Y, beta, loss, sample_weight))
    if problem.features.free_bias:
        raise invalid("network", "one with FreeBias()", "a penalised bias or none: CuttingPlane solves the others")
    return polish_problem(problem, checked_network(network), tol=tol)
