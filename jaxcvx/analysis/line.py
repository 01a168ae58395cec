"""Samples on a line with free biases: splines, extreme neurons, kernels, and the least-norm classifier.

For such samples the extreme points of the set of activations are neurons whose kink lies at a sample. Therefore the
interpolating network of least norm is a linear spline, and a formula gives its norm.

Sources: T. Ergen and M. Pilanci, JMLR 22 (2021), lemma 6, corollary 5 and theorem 11; the norm of a function of one
variable is P. Savarese, I. Evron, D. Soudry and N. Srebro's, "How do infinite width bounded norm networks look
in function space?" (2019).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.errors import invalid
from jaxcvx.features.dense import FreeBias
from jaxcvx.networks.network import Network, prune
from jaxcvx.numerics.precision import double_precision, to_double
from jaxcvx.numerics.validation import as_real_matrix
from jaxcvx.pricing.sweep import rank_of, sort_line
from jaxcvx.problems.training import make_problem
from jaxcvx.solvers.semi_infinite.master import Cuts, cleaned, cuts_network, fit_cuts


def spline_rnorm(a: Any, y: Any) -> Float[Array, ""]:
    """Compute the least ``sum_j |u_j| |v_j|`` of a network with free biases through the points (a_i, y_i).

    It is ``max(TV, |s_first + s_last|)``, where s are the slopes of the linear spline through the points and TV is the
    sum of the absolute changes of slope. No solver is needed.

    Args:
      a: (n,) distinct places, in any order, at least two.
      y: (n,) values.

    Raises:
      InvalidInputError: equal places, fewer than two, or shapes that do not fit.

    Example:
      >>> import jaxcvx
      >>> float(jaxcvx.spline_rnorm([0.0, 1.0, 2.0], [0.0, 1.0, 0.0]))
      2.0
    """
    a, y = (as_real_matrix(name, value, 1) for name, value in (("a", a), ("y", y)))
    if a.shape != y.shape or len(a) < 2:
        raise invalid("y", f"shape {y.shape}", f"as many values as places, at least two, a has shape {a.shape}")
    order = jnp.argsort(a)
    gap = jnp.diff(a[order])
    if not isinstance(gap, jax.core.Tracer) and not bool((gap > 0).all()):
        raise invalid("a", "equal places", "distinct ones")
    slope = jnp.diff(y[order]) / gap
    return jnp.maximum(jnp.sum(jnp.abs(jnp.diff(slope))), jnp.abs(slope[0] + slope[-1]))


def line_neurons(X: Any) -> Float[Array, "m p"]:
    """Compute the 2n extreme neurons (u, b) of samples on a line: ``u = +-direction``, ``b = -u^T x_i``.

    Args:
      X: (n, d) samples whose differences have rank at most one (one feature, or rank-one data).

    Raises:
      InvalidInputError: the samples are not on a line.

    Example:
      >>> import jaxcvx
      >>> (jaxcvx.line_neurons([[0.0], [1.0]]) + 0.0).tolist()
      [[1.0, 0.0], [1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0]]
    """
    X = as_real_matrix("X", X)
    host = np.asarray(X, np.float64)
    if rank_of(host - host.mean(axis=0)) > 1:
        raise invalid("X", "samples that are not on a line", "one feature, or rank-one data")
    u = np.asarray(sort_line(host).direction, np.float64)
    place = (host @ u)[:, None]
    signed = [np.concatenate([np.broadcast_to(s * u, host.shape), -s * place], axis=1) for s in (1, -1)]
    return jnp.asarray(np.concatenate(signed), X.dtype)


def line_kernel(X: Any) -> Float[Array, "n m"]:
    """Activations of the extreme neurons. For one feature they are ``[(x_i - x_j)_+, (x_j - x_i)_+]`` (theorem 11).

    Example:
      >>> import jaxcvx
      >>> jaxcvx.line_kernel([[0.0], [2.0]]).tolist()
      [[0.0, 0.0, 0.0, 2.0], [2.0, 0.0, 0.0, 0.0]]
    """
    return jax.nn.relu(FreeBias().matrix(as_real_matrix("X", X)) @ line_neurons(X).T)


def l1_classifier(X: Any, y: Any, beta: Any) -> Network:
    """Compute the globally optimal hinge-loss network for samples on a line.

    It is an l1-norm support vector machine on the kernel K of :func:`line_kernel`, a linear program:
    ``min_{w, c}  sum_i max(0, 1 - y_i (K w + c)_i) + beta ||w||_1``. Works only outside jit.

    Args:
      X: (n, d) samples on a line.
      y: (n,) labels +-1 or {0, 1}.
      beta: weight decay, positive.

    Returns:
      A network with :class:`jaxcvx.FreeBias`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxcvx
      >>> X = jnp.array([[0.0], [1.0], [2.0]])
      >>> network = jaxcvx.l1_classifier(X, [1, -1, 1], beta=0.1)
      >>> [round(float(f), 3) for f in network(X)[:, 0]]
      [1.0, -1.0, 1.0]
    """
    problem = make_problem(X, y, beta, loss="hinge", features=FreeBias())
    if problem.num_outputs != 1:
        raise invalid("y", f"{problem.num_outputs} outputs", "one")
    with double_precision():
        work = to_double(problem)
        neurons = line_neurons(work.X)
        unfitted = Cuts(neurons, jnp.zeros((len(neurons), 1)), jnp.zeros(1), work.Y)
        network = prune(cuts_network(work, cleaned(work, fit_cuts(work, unfitted))))
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a), problem.X.dtype), network)
