"""What a path of networks reports: every number is computed from the networks, in the caller's units."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.certificates.centring import feasible_residual
from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.networks.network import network_objective
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.solution import Solution, Status, relative_gap
from jaxcvx.solvers.semi_infinite.neuron_path import NeuronPath
from jaxcvx.solvers.semi_infinite.pool import pool_network
from jaxcvx.solvers.semi_infinite.scaling import Scaling
from jaxcvx.solvers.semi_infinite.sliding import neuron_prices


@functools.partial(jax.jit, static_argnames="dtype")
def report(
    problem: Problem, betas: Float[Array, k], path: NeuronPath, scaling: Scaling, tol: Array, dtype: Any
) -> Solution:
    """The batched solution: every number is computed from the networks, in the caller's units.

    Args:
      problem: the caller's problem.
      betas: (k,) in the caller's units.
      path: of the scaled problem.
      scaling: the factors between the two.
      tol: relative heuristic gap that counts as converged.
      dtype: static; the type of the returned weights. Numbers are those of the weights in this type.
    """

    def at(inputs):
        beta, pool, candidates = inputs
        here = problem.replace(beta=beta)
        network = as_type(as_type(scaling.network(pool_network(here, pool), here), dtype), here.dtype)
        upper = network_objective(network, here)
        R = feasible_residual(here, -here.loss.grad(network(here.X), here.targets))
        norm = jnp.maximum(
            jnp.max(neuron_prices(here, R, network.hidden)),
            jnp.max(neuron_prices(here, R, scaling.turned_back(candidates.directions))),
        )
        estimate = jnp.minimum(scaled_bound(here, R, norm), upper)
        return network, upper, estimate

    networks, upper, estimate = jax.lax.map(at, (betas, path.pools, path.candidates))
    valid = problem.is_valid() & jnp.isfinite(betas) & (betas > 0)
    sound = jnp.isfinite(upper) & valid
    networks = jax.tree.map(lambda a: jnp.where(sound.reshape(-1, *[1] * (a.ndim - 1)), a, 0.0), networks)
    gap = jax.vmap(relative_gap)(upper, estimate)
    status = jnp.where(sound, jnp.where(gap <= tol, Status.CONVERGED, Status.MAX_STEPS), Status.DIVERGED)
    status = jnp.where(valid, status, Status.INVALID_INPUT)
    upper = jnp.where(sound, upper, jnp.inf)
    nothing = jnp.full_like(upper, -jnp.inf)
    return Solution(
        params=as_type(networks, dtype),
        network=as_type(networks, dtype),
        objective=upper,
        program_gap=gap,
        upper_bound=upper,
        lower_bound=nothing,
        gap=jnp.full_like(upper, jnp.inf),
        heuristic_bound=jnp.where(sound, estimate, -jnp.inf),
        status=status.astype(jnp.int32),
        num_steps=jnp.where(valid, path.rounds, 0),
        history=None,
        scope="heuristic",
        betas=betas,
    )


def as_type(tree: Any, dtype: Any) -> Any:
    """The tree with its floating arrays in another precision."""
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)
