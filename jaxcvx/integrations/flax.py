"""flax.nnx: conversion between networks and modules, and a head that a convex program trains."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.arrangements.cells import Arrangements
from jaxcvx.arrangements.sample import sample_arrangements
from jaxcvx.errors import invalid, require_extra, wrong_type
from jaxcvx.features.dense import Dense
from jaxcvx.integrations.flax_features import extract_features
from jaxcvx.losses.base import Loss
from jaxcvx.losses.entrywise import resolve_loss
from jaxcvx.losses.targets import as_targets
from jaxcvx.networks.network import Network, weight_penalty
from jaxcvx.problems.training import make_problem
from jaxcvx.solvers.core.driver import solve
from jaxcvx.solvers.core.protocol import AnySolver
from jaxcvx.solvers.core.solution import Solution
from jaxcvx.solvers.semi_infinite.column_generation import ColumnGeneration

require_extra("flax", "flax")

from flax import nnx  # noqa: E402


class ConvexReLU(nnx.Module):
    """A two-layer network as a module: Linear, relu, Linear. Train it with optax, or with a solver by ``fit``.

    Attributes:
      hidden: ``nnx.Linear`` (in_features, width), with a bias if ``bias``. This bias is penalised.
      output: ``nnx.Linear`` (width, out_features), with a bias if ``output_bias``. This bias is not penalised:
        adding a constant to the targets adds it to the predictions.
      skip: a linear skip connection ``nnx.Linear`` (in_features, out_features), or None.

    Example:
      >>> from flax import nnx
      >>> from jaxcvx import ColumnGeneration
      >>> from jaxcvx.flax import ConvexReLU
      >>> head = ConvexReLU(1, 1, rngs=nnx.Rngs(0))
      >>> solver = ColumnGeneration(tol=1e-3, width=8, new_neurons=8, move_steps=10)
      >>> solution = head.fit([[0.0], [1.0], [2.0]], [1.0, 0.0, 1.0], beta=0.1, solver=solver)
      >>> solution.scope, head.hidden.out_features == solution.network.width
      ('global', True)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        width: int = 64,
        bias: bool = True,
        skip: bool = False,
        output_bias: bool = True,
        param_dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        dtype = jnp.result_type(float) if param_dtype is None else param_dtype
        self.hidden = nnx.Linear(in_features, width, use_bias=bias, param_dtype=dtype, rngs=rngs)
        self.output = nnx.Linear(width, out_features, use_bias=output_bias, param_dtype=dtype, rngs=rngs)
        self.skip = nnx.Linear(in_features, out_features, use_bias=bias, param_dtype=dtype, rngs=rngs) if skip else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Compute outputs (..., out_features) for inputs (..., in_features)."""
        y = self.output(nnx.relu(self.hidden(x)))
        return y if self.skip is None else y + self.skip(x)

    def penalty(self) -> jax.Array:
        """The factor of beta in the training objective: half the sum of squared weights, plus the skip's norm."""
        return weight_penalty(from_nnx(self))

    def fit(
        self,
        features: Any,
        targets: Any,
        beta: Any,
        *,
        loss: str | Loss = "squared",
        solver: AnySolver | None = None,
        arrangements: Arrangements | None = None,
        key: Any = None,
    ) -> Solution:
        """Train this head only, on the features of a frozen backbone, and store the weights.

        The module takes the width of the solution. Therefore create optimisers after this call; they continue from the
        stored weights.

        Args:
          features: (n, in_features) outputs of the backbone.
          targets: (n,) or (n, out_features) numbers, or labels (see :func:`jaxcvx.make_problem`).
          beta: weight decay, absolute.
          loss: name or Loss.
          solver: None means ``ColumnGeneration()``. Its bound is global if there are few cells (no skip connection).
            A solver that knows no output bias trains without, and the module's becomes 0.
          arrangements: cells, for solvers that need them.
          key: random key, for solvers that draw random numbers.

        Returns:
          The Solution, with ``upper_bound``, ``lower_bound``, ``gap`` and ``scope``. They certify the stored weights
          until these are trained further.

        Raises:
          InvalidInputError, InvalidTypeError: bad data, or data that do not fit this module.
        """
        solver = ColumnGeneration() if solver is None else solver
        dense: Any = _dense(self)
        if "no free bias" in getattr(solver, "requires", ()):
            dense = dense.without_output_bias()
        problem = make_problem(features, targets, beta, loss=loss, arrangements=arrangements, features=dense)
        for name, got, expected in (
            ("features", problem.X.shape[1], self.hidden.in_features),
            ("targets", problem.num_outputs, self.output.out_features),
        ):
            if got != expected:
                raise invalid(name, f"{got} columns", f"{expected}, as the module was made for")
        solution = solve(problem, solver, key=key)
        store(self, solution.network)
        return solution


def fit_head(
    model: Any,
    inputs: Any,
    targets: Any,
    beta: Any,
    *,
    head: ConvexReLU | None = None,
    loss: str | Loss = "squared",
    solver: AnySolver | None = None,
    num_cells: int | None = None,
    batch_size: int = 256,
    key: Any = None,
) -> Solution:
    """Run a frozen backbone over the data, and train a head on its features by a convex program.

    Args:
      model: the backbone, an ``nnx.Module`` or a callable from inputs to features (n, d), for example a method
        ``model.features``. It is not changed. See :func:`jaxcvx.flax.extract_features`.
      inputs: (n, ...) inputs of the backbone.
      targets: (n,) or (n, c) numbers, or labels (see :func:`jaxcvx.make_problem`).
      beta: weight decay of the head, absolute.
      head: the module to fit. It takes the weights and the width of the solution. None: no module is changed, and
        ``to_nnx(solution.network)`` is the head, with a bias.
      loss: name or Loss.
      solver: None means ``ColumnGeneration()``.
      num_cells: number of gates to draw. They give the cells that ``ProximalGradient``, ``ConeADMM`` and others need.
        None means no cells.
      batch_size: number of inputs that the backbone gets at a time.
      key: random key, for the solver and the cells. None means ``jax.random.key(0)`` for the cells.

    Returns:
      The Solution: ``upper_bound``, ``lower_bound``, ``gap`` and ``scope`` certify the head on these features.

    Raises:
      InvalidInputError, InvalidTypeError: bad data, a backbone whose outputs are not features, or a head of another
        size.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxcvx import ColumnGeneration
      >>> from jaxcvx.flax import fit_head
      >>> inputs = jnp.array([[0.0], [1.0], [2.0]])
      >>> solver = ColumnGeneration(tol=1e-3, width=8, new_neurons=8, move_steps=10)
      >>> solution = fit_head(lambda x: x - 1, inputs, [1.0, 0.0, 1.0], beta=0.1, solver=solver)
      >>> solution.scope
      'global'
    """
    if head is not None and not isinstance(head, ConvexReLU):
        raise wrong_type("head", head, "a ConvexReLU or None")
    features = extract_features(model, inputs, batch_size=batch_size)
    if head is None:
        columns = as_targets(resolve_loss(loss), targets, features.shape[0], features.dtype).shape[1]
        head = ConvexReLU(features.shape[1], columns, width=1, param_dtype=features.dtype, rngs=nnx.Rngs(0))
    cells = None
    if num_cells is not None:
        rows = Dense(bias=head.hidden.bias is not None)
        cells = sample_arrangements(jax.random.key(0) if key is None else key, features, num_cells, features=rows)
    return head.fit(features, targets, beta, loss=loss, solver=solver, arrangements=cells, key=key)


def to_nnx(network: Network) -> ConvexReLU:
    """Convert a dense network to a module with the same outputs, up to rounding.

    Raises:
      InvalidTypeError: not a network of dense features.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxcvx
      >>> from jaxcvx.flax import to_nnx
      >>> module = to_nnx(jaxcvx.Network(jnp.array([[1.0], [-1.0]]), jnp.array([[2.0], [3.0]])))
      >>> module(jnp.array([[1.0], [-1.0]])).tolist()
      [[2.0], [3.0]]
    """
    if not isinstance(network, Network):
        raise wrong_type("network", network, "jaxcvx.Network")
    if not isinstance(network.features, Dense):
        raise wrong_type("network.features", network.features, "Dense: nnx.Linear has no patches")
    module = ConvexReLU(
        network.hidden.shape[1] - int(network.features.bias),
        network.output.shape[1],
        width=network.width,
        bias=network.features.bias,
        skip=network.skip is not None,
        output_bias=network.features.output_bias,
        param_dtype=network.hidden.dtype,
        rngs=nnx.Rngs(0),
    )
    store(module, network)
    return module


def from_nnx(module: Any) -> Network:
    """Convert a module to a network with the same outputs, up to rounding.

    Args:
      module: a ConvexReLU, or ``nnx.Sequential(nnx.Linear, nnx.relu, nnx.Linear)``. In a Sequential an output bias of
        zeros counts as none.

    Raises:
      InvalidTypeError: another module.

    Example:
      >>> from flax import nnx
      >>> from jaxcvx.flax import ConvexReLU, from_nnx
      >>> from_nnx(ConvexReLU(3, 2, width=5, rngs=nnx.Rngs(0))).hidden.shape  # three inputs and the bias
      (5, 4)
    """
    skip = None
    if isinstance(module, ConvexReLU):
        hidden, output, skip = module.hidden, module.output, module.skip
    else:
        layers = list(getattr(module, "layers", ()))
        linear = len(layers) == 3 and all(isinstance(layers[i], nnx.Linear) for i in (0, 2))
        if not linear or layers[1] not in (nnx.relu, jax.nn.relu):
            raise wrong_type("module", module, "a ConvexReLU or a Sequential of Linear, relu, Linear")
        hidden, output = layers[0], layers[2]
    constant = None if output.bias is None else jnp.asarray(output.bias[...])
    if constant is not None and not isinstance(module, ConvexReLU) and not np.any(np.asarray(constant)):
        constant = None
    return Network(
        _weights(hidden).T,
        jnp.asarray(output.kernel[...]),
        None if skip is None else _weights(skip),
        Dense(bias=hidden.bias is not None, skip=skip is not None, output_bias=constant is not None),
        constant,
    )


def _dense(module: ConvexReLU) -> Dense:
    """The features of a module's networks."""
    return Dense(module.hidden.bias is not None, module.skip is not None, module.output.bias is not None)


def _weights(layer: nnx.Linear) -> jax.Array:
    """Kernel (in, out), with the bias as its last row."""
    kernel = jnp.asarray(layer.kernel[...])
    return kernel if layer.bias is None else jnp.concatenate([kernel, jnp.asarray(layer.bias[...])[None]])


def store(module: ConvexReLU, network: Network) -> None:
    """Copy the weights and the width of a network into a module with the same layers."""
    _fill(module.hidden, network.hidden.T)
    bias = network.output_bias
    if bias is None and module.output.bias is not None:
        bias = jnp.zeros(network.output.shape[1], network.output.dtype)
    _fill(module.output, network.output, bias)
    if module.skip is not None and network.skip is not None:
        _fill(module.skip, network.skip)


def _fill(layer: nnx.Linear, weights: Any, bias: Any = None) -> None:
    """Set the kernel, and the bias if it is given; else its last row is the bias. The layer takes its shape."""
    weights = jnp.asarray(weights)
    if bias is not None and layer.bias is not None:
        layer.bias = nnx.Param(jnp.asarray(bias))
    elif layer.bias is not None:
        layer.bias = nnx.Param(weights[-1])
        weights = weights[:-1]
    layer.kernel = nnx.Param(weights)
    layer.in_features, layer.out_features = weights.shape
