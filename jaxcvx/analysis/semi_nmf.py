"""Trained networks as semi-nonnegative matrix factorisations Y ~ H V, with H = (Z U)_+ >= 0 (Ding, Li and Jordan 2010).

On spike-free data weight decay makes training exactly that: every neuron can be taken active on all samples,
H = Z U >= 0, and the objective is 1/2 ||H V - Y||^2 + beta/2 (||U||^2 + ||V||^2) (Sahiner et al. 2021).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.analysis.spike_free import positive_cell
from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.networks.network import Network, balance, prune
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.cone.admm import ConeADMM
from jaxcvx.solvers.neurons.refit import refit_outputs


class SemiNMF(NamedTuple):
    """A factorisation Y ~ H V of the targets.

    Attributes:
      H: (n, m) non-negative activations, one column per neuron.
      V: (m, c) output weights, of any sign.
      fit: ``||H V - Y||_F``.
      network: the network behind it.
    """

    H: Float[Array, "n m"]
    V: Float[Array, "m c"]
    fit: Float[Array, ""]
    network: Network


def _positive_network(problem: Problem) -> Network:
    """Network from the program of the one cell Z u >= 0."""
    network = positive_cell(problem, ConeADMM(grouping="per-output", tol=1e-8)).network
    return prune(refit_outputs(problem, network))


@with_full_precision
def semi_nmf(problem: Problem, network: Network | None = None) -> SemiNMF:
    """The factorisation that a network stands for, or the one of spike-free data.

    Args:
      problem: data and targets; the squared loss without a skip connection.
      network: any network for these data; it is balanced and its dead neurons are dropped. None solves the
        program of the one cell Z u >= 0, for spike-free data: the globally optimal factorisation for
        one output; for several, a stationary one in general, as outputs are fitted in turn.

    Returns:
      A SemiNMF. For use outside jit.

    Raises:
      InvalidInputError: no network, and data that are not spike-free; another loss; a skip connection.
    """
    if isinstance(problem.X, jax.core.Tracer):
        raise InvalidTypeError("semi_nmf: got traced arrays, expected concrete ones.")
    if not problem.loss.is_quadratic or problem.features.skip:
        raise invalid("problem", f"loss {problem.loss.name!r}", "the squared loss without a skip connection")
    network = prune(balance(network)) if network is not None else _positive_network(problem)
    width = problem.rows.shape[1]
    if network.hidden.shape[1] != width or network.output.shape[1] != problem.num_outputs:
        got = f"hidden {np.shape(network.hidden)}, output {np.shape(network.output)}"
        raise invalid("network", got, f"hidden (m, {width}) and output (m, {problem.num_outputs})")
    H = jax.nn.relu(problem.rows @ network.hidden.T)
    return SemiNMF(H, network.output, jnp.linalg.norm(H @ network.output - problem.Y), network)
