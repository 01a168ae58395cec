"""The two-layer ReLU network as a pytree, its training objective, and simplifications that keep the function."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.arrangements.parallel_rows import merge_parallel_rows
from jaxcvx.errors import InvalidTypeError, invalid, wrong_type
from jaxcvx.features.dense import Dense, Features
from jaxcvx.losses.base import Loss
from jaxcvx.losses.entrywise import resolve_loss
from jaxcvx.losses.targets import as_targets
from jaxcvx.losses.weighted import as_sample_weight
from jaxcvx.numerics.arrays import is_real, plain_array
from jaxcvx.numerics.on_host import on_device
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.numerics.safe import divide, divisor, norm
from jaxcvx.numerics.trees import is_traced
from jaxcvx.numerics.validation import as_beta, as_real_matrix
from jaxcvx.problems.training import Problem


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Network:
    """A two-layer ReLU network: ``f(X) = lower(relu(Z U^T) V + Z S) + b`` with Z = features.matrix(X).

    The linear map ``lower`` of the features' readout takes rows to samples. For dense networks it is the identity, and
    q = c. Call the network on inputs to get its predictions.

    Attributes:
      hidden: (m, p) hidden weights, the matrix U with rows u_j. If the features have a bias, it is the last entry.
      output: (m, q) output weights, the matrix V with rows v_j. q is the number of outputs c, or K c if each of K
        positions has its own output weights.
      skip: (p, q) linear skip connection S, or None.
      features: static; Dense(bias, skip, output_bias), FreeBias(), ConvPool(...) or ConvFlatten(...).
      output_bias: (c,) output bias b, which is not penalised. Only if ``features.output_bias`` is True, as with
        ``Dense(output_bias=True)`` and ``FreeBias()``; None counts as 0.

    >>> import jax.numpy as jnp, jaxcvx
    >>> network = jaxcvx.Network(hidden=jnp.array([[1.0], [-1.0]]), output=jnp.array([[1.0], [1.0]]))
    >>> print(network(jnp.array([[-3.0], [2.0]])))  # relu(x) + relu(-x) is the absolute value
    [[3.]
     [2.]]
    """

    hidden: Float[Array, "m p"]
    output: Float[Array, "m q"]
    skip: Float[Array, "p q"] | None = None
    features: Features = dataclasses.field(default=Dense(), metadata={"static": True})
    output_bias: Float[Array, c] | None = None

    def __call__(self, X: Float[Array, "n ..."]) -> Float[Array, "n c"]:
        """The predictions (n, c) for inputs X, (n, d) or the shape that the features expect.

        Raises:
          InvalidInputError: the inputs have another number of columns than the network was made for.
          InvalidTypeError: the inputs are not an array of real numbers.
        """
        X = _fitting_inputs(self, X)
        Z, readout = self.features.matrix(X), self.features.readout(*X.shape[1:])
        F = readout.apply(jax.nn.relu(Z @ self.hidden.T), self.output)
        F = F if self.skip is None else F + readout.apply(Z, self.skip)
        return F if self.output_bias is None else F + self.output_bias

    @property
    def width(self) -> int:
        """Number of hidden neurons m."""
        return self.hidden.shape[0]


def _fitting_inputs(network: Network, X: Any) -> Any:
    """The inputs as an array, after a check of their shape. Numbers are not checked."""
    if not isinstance(X, jax.Array):
        X = plain_array("X", X)
    elif not is_real(X.dtype):
        raise InvalidTypeError(f"X: got dtype {X.dtype}, expected real numbers.")
    if X.ndim not in (allowed := network.features.ndims):
        raise invalid("X", f"shape {X.shape}", f"{' or '.join(map(str, allowed))} axes")
    made, p = network.features.num_weights(*X.shape[1:]), network.hidden.shape[-1]
    if made != p:
        got, expected = f"shape {X.shape}, which needs {made} hidden weights", f"inputs for the network's {p}"
        if X.ndim == 2:
            got, expected = f"{X.shape[1]} columns", f"{X.shape[1] + p - made}, as the network was made for"
        raise invalid("X", got, expected)
    return X


def hidden_norms(network: Network) -> Float[Array, m]:
    """Norms of the neurons' hidden weights, without biases that have no weight decay."""
    return norm(network.features.penalised(network.hidden))


def skip_penalty(network: Network) -> Float[Array, ""]:
    """``||S||_F``, or 0 without a skip connection."""
    zero = jnp.zeros((), network.hidden.dtype)
    return zero if network.skip is None else norm(network.skip, axis=None)


def weight_penalty(network: Network) -> Float[Array, ""]:
    """``1/2 sum_j (||u_j||^2 + ||v_j||^2) + ||S||_F`` for the weights as given."""
    hidden = network.features.penalised(network.hidden)
    return 0.5 * (jnp.sum(hidden**2) + jnp.sum(network.output**2)) + skip_penalty(network)


def balanced_penalty(network: Network) -> Float[Array, ""]:
    """``sum_j ||u_j|| ||v_j|| + ||S||_F``: the weight penalty after ``balance``. It is never larger than before."""
    return jnp.sum(hidden_norms(network) * norm(network.output)) + skip_penalty(network)


def network_objective(network: Network, problem: Problem) -> Float[Array, ""]:
    """The training objective for the weights as given, without validation. Works under jit and grad."""
    return problem.loss.value(network(problem.X), problem.targets) + problem.beta * weight_penalty(network)


_objective_jitted = jax.jit(network_objective)


def objective_on_host(network: Network, problem: Problem) -> Float[Array, ""]:
    """``network_objective`` for concrete weights. It is compiled once for many widths; see ``padded``."""
    return _objective_jitted(padded(network), problem)


def balance(network: Network) -> Network:
    """Rescale every neuron such that ||u_j|| = ||v_j||. The function stays, and the weight penalty becomes least.

    A neuron with zero hidden or zero output weights becomes zero. Works under jit and vmap.

    Args:
      network: any network.

    Returns:
      The network with rescaled weights.

    >>> import jax.numpy as jnp, jaxcvx
    >>> network = jaxcvx.Network(hidden=jnp.array([[4.0]]), output=jnp.array([[1.0]]))
    >>> print(jaxcvx.balance(network).hidden)  # 4 x 1 = 2 x 2, and 16 + 1 > 4 + 4
    [[2.]]
    """
    network = _fold_constants(network)
    a, b = hidden_norms(network), norm(network.output)
    alive = (a > 0) & (b > 0)
    xp: Any = np if isinstance(network.hidden, np.ndarray) else jnp
    scale = xp.where(alive, xp.sqrt(divisor(b) / divisor(a)), 0.0)
    inverse = divide(1.0, scale)
    return dataclasses.replace(
        network, hidden=network.hidden * scale[:, None], output=network.output * inverse[:, None]
    )


def _fold_constants(network: Network) -> Network:
    """Add neurons that are constant, because only their free bias is not zero, to the output bias."""
    if not network.features.free_bias:
        return network
    constant = jnp.where(hidden_norms(network) > 0, 0.0, jax.nn.relu(network.hidden[:, -1]))
    shift = constant @ network.output
    bias = shift if network.output_bias is None else network.output_bias + shift
    output = jnp.where((constant > 0)[:, None], 0.0, network.output)
    return dataclasses.replace(network, output=output, output_bias=bias)


def padded(network: Network) -> Network:
    """Pad with zero neurons to a power of two, in numpy. Fewer widths mean fewer compiled programs."""
    m = network.hidden.shape[0]
    more = ((0, (1 << max(m - 1, 0).bit_length()) - m), (0, 0))
    weights: Any = [np.pad(np.asarray(a), more) for a in (network.hidden, network.output)]
    return dataclasses.replace(network, hidden=weights[0], output=weights[1])


@jax.jit
def _folded_sizes(network: Network) -> tuple[Network, Array]:
    network = _fold_constants(network)
    return network, hidden_norms(network) * norm(network.output)


def prune(network: Network, tol: float = 0.0) -> Network:
    """Drop neurons whose ``||u_j|| ||v_j||`` is at most ``tol`` times the largest.

    With ``tol=0`` only neurons that contribute nothing are dropped, so the function stays. At least one neuron is kept,
    possibly a zero one. The width depends on the weights, so this does not work under jit.

    Args:
      network: any network.
      tol: relative size of the largest neuron to drop.

    Returns:
      The narrower network.

    >>> import jax.numpy as jnp, jaxcvx
    >>> network = jaxcvx.Network(hidden=jnp.eye(3), output=jnp.array([[1.0], [0.0], [2.0]]))
    >>> jaxcvx.prune(network).width
    2
    """
    m = network.hidden.shape[0]
    network, sizes = jax.device_get(_folded_sizes(padded(network)))
    size = sizes[:m]
    keep = size > tol * size.max(initial=0.0)
    if not keep.any():
        keep[:1] = True
    network = dataclasses.replace(network, hidden=network.hidden[:m][keep], output=network.output[:m][keep])
    return on_device(network)


def merge_parallel(network: Network, tol: float = 1e-12) -> Network:
    """Merge neurons whose hidden weights have the same direction. The penalty does not grow.

    The function stays the same up to rounding. The width depends on the weights, so this does not work under jit.

    Args:
      network: any network.
      tol: largest difference of two unit directions that count as the same. It is at least the rounding error of the
        weights' dtype.

    Returns:
      The network without parallel neurons, balanced.

    >>> import jax.numpy as jnp, jaxcvx
    >>> network = jaxcvx.Network(hidden=jnp.array([[1.0, 2.0], [2.0, 4.0]]), output=jnp.ones((2, 1)))
    >>> jaxcvx.merge_parallel(network).width
    1
    """
    net = prune(balance(network))
    hidden, output = np.asarray(net.hidden, np.float64), np.asarray(net.output, np.float64)
    norms = np.linalg.norm(net.features.penalised(hidden), axis=1)
    if not norms.any():
        return net
    unit = hidden / norms[:, None]
    groups = merge_parallel_rows(unit, max(tol, 4 * float(jnp.finfo(net.hidden.dtype).eps)), oriented=True)
    merged = np.zeros((len(groups.first), output.shape[1]))
    np.add.at(merged, groups.owner, norms[:, None] * output)
    dtype = net.hidden.dtype
    merged_net = dataclasses.replace(
        net, hidden=jnp.asarray(unit[groups.first], dtype), output=jnp.asarray(merged, dtype)
    )
    return prune(balance(merged_net))


def concatenate(*networks: Network) -> Network:
    """The network whose function is the sum of the given networks' functions. They must have equal features."""
    skips = [n.skip for n in networks if n.skip is not None]
    biases = [n.output_bias for n in networks if n.output_bias is not None]
    return dataclasses.replace(
        networks[0],
        hidden=jnp.concatenate([n.hidden for n in networks]),
        output=jnp.concatenate([n.output for n in networks]),
        skip=sum(skips[1:], skips[0]) if skips else None,
        output_bias=sum(biases[1:], biases[0]) if biases else None,
    )


def with_output_bias(network: Network, problem: Problem) -> Network:
    """The network with an output bias of 0 where the problem's networks have one and this network has none.

    Its features become those of the problem if they differ in the output bias only.
    """
    if not problem.features.output_bias:
        return network
    features, bias = network.features, network.output_bias
    if features.without_output_bias() == problem.features.without_output_bias():
        features = problem.features
    bias = jnp.zeros(problem.num_outputs, network.output.dtype) if bias is None else bias
    return dataclasses.replace(network, features=features, output_bias=bias)


def zero_network(problem: Problem, width: int = 1) -> Network:
    """A network of zero weights with the shapes that fit ``problem``."""
    p, q, dtype = problem.rows.shape[1], problem.num_columns, problem.X.dtype
    skip = jnp.zeros((p, q), dtype) if problem.features.skip else None
    bias = jnp.zeros(problem.num_outputs, dtype) if problem.features.output_bias else None
    return Network(jnp.zeros((width, p), dtype), jnp.zeros((width, q), dtype), skip, problem.features, bias)


@with_full_precision
def training_objective(
    network: Network,
    X: object,
    Y: object,
    beta: object,
    loss: str | Loss = "squared",
    *,
    sample_weight: object = None,
) -> Float[Array, ""]:
    """The training objective ``loss(f(X), Y) + beta/2 sum_j (||u_j||^2 + ||v_j||^2) (+ beta ||S||_F)``.

    Args:
      network: the network, whose weights are used as given. (``balance`` gives the least penalty.)
      X: inputs, (n, d) or the shape that the features expect.
      Y: targets as in :func:`jaxcvx.make_problem`.
      beta: weight decay. It is absolute: the loss is a sum over samples, not a mean.
      loss: name of a loss, or a Loss.
      sample_weight: weights (n,) of the samples' losses, or None for equal weights of 1.

    Returns:
      The objective, a scalar.

    Raises:
      InvalidInputError: the data are invalid, or their shapes do not fit the network.
      InvalidTypeError: an argument has a wrong type.

    >>> import jax.numpy as jnp, jaxcvx
    >>> network = jaxcvx.Network(hidden=jnp.array([[1.0]]), output=jnp.array([[1.0]]))
    >>> float(jaxcvx.training_objective(network, X=[[2.0]], Y=[3.0], beta=0.5))  # (2 - 3)^2 / 2 + 0.5 (1 + 1) / 2
    1.0
    """
    problem = problem_for(network, X, Y, beta, loss, sample_weight)
    network = checked_network(network)
    traced = is_traced(jnp.zeros(()), *jax.tree.leaves((network, problem)))
    return network_objective(network, problem) if traced else objective_on_host(network, problem)


def checked_network(network: object) -> Network:
    """Return a network with jax arrays, after a check that its numbers are finite and its shapes fit each other.

    Raises:
      InvalidInputError: an array has NaN, infinity or a bad shape. The message names the field.
      InvalidTypeError: the argument is not a network, or an array is not numeric.
    """
    if not isinstance(network, Network):
        raise wrong_type("network", network, "jaxcvx.Network")
    if not isinstance(network.features, Features):
        raise wrong_type("network.features", network.features, "Dense(...), FreeBias() or a convolution")
    hidden, output = as_real_matrix("network.hidden", network.hidden), as_real_matrix("network.output", network.output)
    if hidden.shape[0] != output.shape[0]:
        got = f"{hidden.shape[0]} hidden and {output.shape[0]} output rows"
        raise invalid("network", got, "as many rows in hidden (m, p) as in output (m, q)")
    skip, bias = network.skip, network.output_bias
    if skip is not None:
        skip, fitting = as_real_matrix("network.skip", skip), (hidden.shape[1], output.shape[1])
        if skip.shape != fitting:
            raise invalid("network.skip", f"shape {skip.shape}", f"{fitting}, inputs by outputs")
    if bias is not None:
        bias = as_real_matrix("network.output_bias", bias, 1)
        if not network.features.output_bias or output.shape[1] % bias.shape[0]:  # every position has c columns
            got = f"shape {bias.shape} with {network.features}"
            expected = "one number for each output with output_bias=True or FreeBias(), else None"
            raise invalid("network.output_bias", got, expected)
    return dataclasses.replace(network, hidden=hidden, output=output, skip=skip, output_bias=bias)


def problem_for(
    network: Network, X: object, Y: object, beta: object, loss: str | Loss, sample_weight: object = None
) -> Problem:
    """Build a problem with the network's features from data that must fit the network's shapes."""
    network = checked_network(network)
    resolved = resolve_loss(loss)
    X = as_real_matrix("X", X, network.features.ndims)
    sample_shape, q = X.shape[1:], network.output.shape[1]
    if network.features.num_weights(*sample_shape) != network.hidden.shape[1]:
        got = f"{X.shape[1]} columns" if X.ndim == 2 else f"shape {X.shape}"
        raise invalid("X", got, f"inputs for hidden weights of length {network.hidden.shape[1]}")
    readout = network.features.readout(*sample_shape)
    c = readout.outputs(q)
    if c == 0 or readout.columns(c) != q:
        raise invalid("X", f"{readout.positions} positions", f"a divisor of {q}, the columns of network.output")
    if network.output_bias is not None and network.output_bias.shape != (c,):
        raise invalid("network.output_bias", f"shape {network.output_bias.shape}", f"({c},), a number for each output")
    Y = as_targets(resolved, Y, X.shape[0], X.dtype, num_classes=c)
    if Y.shape[1] != c:
        raise invalid("Y", f"{Y.shape[1]} outputs", f"{c}, the network's number of outputs")
    weight = as_sample_weight(sample_weight, X.shape[0], X.dtype)
    return Problem(X, Y, as_beta(beta, X.dtype), None, resolved, network.features, sample_weight=weight)
