"""polish: improve any network by the convex program on its own cells.

A network's optimum often sits on kinks (z_i^T u = 0), where smooth descent stalls and a convex program with
cone constraints does not. One output: the cone program over the cells of the network's neurons contains
the network, so its optimum is at least as good. Several outputs: two convex programs in turn, output
weights for fixed hidden directions, then hidden weights within their cells for fixed output directions.
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
)
from jaxcvx.networks.recovery import network_from_cone
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import shrink_groups
from jaxcvx.proximal.polyhedral_cone import no_active_rows, project_cone
from jaxcvx.solvers.cone.admm import ConeADMM
from jaxcvx.solvers.cone.program import pair_from_network
from jaxcvx.solvers.core.loop import run
from jaxcvx.solvers.neurons.refit import better, refit_outputs


def improve_hidden(problem: Problem, network: Network, max_steps: int = 200) -> Network:
    """Best hidden weights within the neurons' own cells, for fixed output directions; never worse.

    With v_j fixed to unit length the problem in u_j is convex: group norms under cone constraints, solved by
    accelerated proximal gradient whose prox projects on the cones. Works under jit; smooth losses only.
    """
    loss = problem.loss
    if not loss.is_smooth or (network.skip is not None and not loss.is_quadratic):
        return balance(network)
    network = balance(network)
    Z, readout = problem.rows, problem.readout
    Y = problem.Y if network.skip is None else problem.Y - readout.apply(Z, network.skip)
    size = jnp.linalg.norm(network.output, axis=1)
    alive = size > 0
    towards = network.output / jnp.where(alive, size, 1.0)[:, None]
    masks = ((network.hidden @ Z.T) >= 0).astype(Z.dtype)
    signs = 2 * masks - 1

    def forward(U):
        return readout.apply((masks * (U[:, :, 0] @ Z.T)).T, towards)

    def adjoint(R):
        return ((masks * (towards @ readout.lift(R).T)) @ Z)[:, :, None]

    def prox(A, step, rows):
        project = jax.vmap(lambda s, a, r: project_cone(Z, s, a, warm=r))
        inside, rows = project(signs, jnp.where(alive[:, None], A[:, :, 0], 0.0), rows)
        return shrink_groups(inside[:, :, None], problem.beta * step), rows

    linear = LinearMap(forward, adjoint)
    first = (network.hidden * size[:, None])[:, :, None]
    rows = no_active_rows(Z.shape[1], Z.dtype, size.shape)
    guess = 0.05 * (loss.curvature or 1.0) * readout.gain * jnp.sum(Z**2)

    def block(_, state):
        step = functools.partial(accelerated_step, loss, Y, linear, prox)
        return refresh(linear, jax.lax.fori_loop(0, 20, lambda _, s: step(s), state))

    state = jax.lax.fori_loop(0, max(1, max_steps // 20), block, start(linear, first, guess, rows))
    moved = balance(dataclasses.replace(network, hidden=state.params[:, :, 0], output=towards))
    return better(problem, moved, network)


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
    """The cells with some repeated, up to a multiple: nothing changes but the number of compiled shapes."""
    extra = -cells.num_cells % multiple
    again = jnp.arange(cells.num_cells + extra) % cells.num_cells
    return dataclasses.replace(cells, masks=cells.masks[again], gates=cells.gates[again])


@with_full_precision
def polish_problem(problem: Problem, network: Network, *, tol: float = 1e-6, rounds: int = 2) -> Network:
    """:func:`polish` for a problem that is already built (its arrangements are ignored)."""
    original, start_net = network, merge_parallel(network)
    objective = float(objective_on_host(original, problem))
    candidates = [balance(original), start_net]
    cells = arrangements_of(start_net, problem.X)
    if cells.num_cells and problem.num_columns == 1:
        local = problem.replace(arrangements=_padded(cells))
        init = pair_from_network(local, start_net)
        candidates.append(_cone_network(local, ConeADMM(tol=tol, max_steps=5_000), init))
    elif cells.num_cells:
        candidates.append(_alternate(problem.replace(arrangements=None), start_net, rounds, 100))
    candidates = [jax.tree.map(jnp.asarray, prune(net)) for net in candidates]
    values = [float(objective_on_host(net, problem)) for net in candidates]
    best = min((v for v in values if v == v), default=objective)
    return candidates[values.index(best)] if best <= objective else original


@with_full_precision
def polish(network: Network, X: Any, Y: Any, beta: Any, *, loss: str | Loss = "squared", tol: float = 1e-6) -> Network:
    """The best network that the convex programs on the network's own cells give, never a worse one.

    Args:
      network: any network, however trained.
      X, Y, beta, loss: as in :func:`jaxcvx.make_problem`.
      tol: relative program gap for the cone program (one output).

    Returns:
      A balanced, pruned network whose training objective is at most the given one's. Its width may differ.
      For use outside jit.

    Raises:
      InvalidInputError, InvalidTypeError: bad arguments.
    """
    problem = problem_for(network, X, Y, beta, loss)
    if problem.features.free_bias:
        raise invalid("network", "one with FreeBias()", "a penalised bias or none: CuttingPlane solves the others")
    return polish_problem(problem, checked_network(network), tol=tol)
