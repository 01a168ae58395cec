"""Trained networks as semi-nonnegative matrix factorisations Y ~ H V, with H = (Z U)_+ >= 0 (Ding, Li and Jordan 2010).

On spike-free data, training with weight decay is exactly this factorisation. Every neuron may be assumed active on all
samples, H = Z U >= 0. The objective is 1/2 ||H V - Y||^2 + beta/2 (||U||^2 + ||V||^2) (Sahiner et al. 2021).
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
      network: the network with these activations and output weights.
    """

    H: Float[Array, "n m"]
    V: Float[Array, "m c"]
    fit: Float[Array, ""]
    network: Network


def _positive_network(problem: Problem) -> Network:
    """Solve the program of the single cell Z u >= 0 and return its network."""
    network = positive_cell(problem, ConeADMM(grouping="per-output", tol=1e-8)).network
    return prune(refit_outputs(problem, network))


@with_full_precision
def semi_nmf(problem: Problem, network: Network | None = None) -> SemiNMF:
    """Turn a network into its factorisation Y ~ H V. Without a network, compute the factorisation of spike-free data.

    Works only outside jit.

    Args:
      problem: data and targets; the squared loss without a skip connection.
      network: any network for these data. It is balanced and its zero neurons are dropped. None: the data must be
        spike-free, and the program of the single cell Z u >= 0 is solved. For one output this gives the globally
        optimal factorisation. Several outputs are fitted in turn; the result is then stationary in general.

    Returns:
      A SemiNMF.

    Raises:
      InvalidInputError: there is no network and the data are not spike-free; another loss; a skip connection; an output
        bias.
      InvalidTypeError: the arrays are traced.

    Example:
      >>> import jaxcvx
      >>> problem = jaxcvx.make_problem([[1.0, 0.0], [0.0, 1.0]], [3.0, -1.0], beta=0.1)
      >>> factors = jaxcvx.semi_nmf(problem)
      >>> factors.H.shape, bool((factors.H >= 0).all()), round(float(factors.fit), 2)
      ((2, 2), True, 0.14)
    """
    if isinstance(problem.X, jax.core.Tracer):
        raise InvalidTypeError("semi_nmf: got traced arrays, expected concrete ones.")
    if not problem.loss.is_quadratic or problem.features.skip or problem.features.output_bias:
        got = f"loss {problem.loss.name!r}, {problem.features}"
        raise invalid("problem", got, "the squared loss without a skip connection or an output bias")
    network = prune(balance(network)) if network is not None else _positive_network(problem)
    width = problem.rows.shape[1]
    if network.hidden.shape[1] != width or network.output.shape[1] != problem.num_outputs:
        got = f"hidden {np.shape(network.hidden)}, output {np.shape(network.output)}"
        raise invalid("network", got, f"hidden (m, {width}) and output (m, {problem.num_outputs})")
    H = jax.nn.relu(problem.rows @ network.hidden.T)
    return SemiNMF(H, network.output, jnp.linalg.norm(H @ network.output - problem.Y), network)
