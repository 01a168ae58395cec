"""Train deeper networks by alternation: gradient steps on the backbone, a convex program for the head.

Both lower the same objective, a sum over all samples,

    J = loss(head(backbone(x)), y) + beta * head.penalty() + decay/2 * ||backbone's parameters||^2.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.errors import invalid, require_extra, wrong_type
from jaxcvx.integrations.flax import ConvexReLU, from_nnx, store
from jaxcvx.integrations.flax_features import check_count, run_in_batches
from jaxcvx.integrations.flax_layer import ConvexLayer
from jaxcvx.losses.base import Loss
from jaxcvx.losses.entrywise import resolve_loss
from jaxcvx.losses.targets import as_targets
from jaxcvx.numerics.arrays import plain_array
from jaxcvx.numerics.precision import default_promotion
from jaxcvx.numerics.validation import as_beta
from jaxcvx.solvers.core.protocol import AnySolver
from jaxcvx.solvers.core.solution import Solution

require_extra("flax", "flax")
require_extra("optax", "flax")

import optax  # noqa: E402
from flax import nnx  # noqa: E402

_HALVINGS = 6


class Alternation(NamedTuple):
    """The record of :func:`alternate`.

    Attributes:
      objective: (rounds + 1,) J after the first solve for the head, and after each round.
      after_backbone: (rounds,) J after the backbone steps of a round, before its solve for the head.
      kept: (rounds,) the share of the backbone's change that was kept: 1 all, 0.5 half of it, 0 none.
      solution: the solution of the last solve for the head. If that solve was rejected, these weights are not stored.
    """

    objective: np.ndarray
    after_backbone: np.ndarray
    kept: np.ndarray
    solution: Solution


def alternate(
    backbone: nnx.Module,
    head: ConvexLayer | ConvexReLU,
    data: tuple[Any, Any],
    beta: Any,
    optimizer: optax.GradientTransformation,
    rounds: int,
    *,
    steps_per_round: int = 50,
    batch_size: int = 128,
    monotone: bool = True,
    loss: str | Loss | None = None,
    decay: float = 0.0,
    solver: AnySolver | None = None,
    key: Any = None,
) -> Alternation:
    """Train a backbone and its head in turns. Both modules are changed in place.

    First the program of the head is solved. Each round then takes ``steps_per_round`` optimiser steps on the backbone,
    with gradients of J/n on random batches and a fixed head. After that it solves the program of the head on the
    features of all data.

    With ``monotone`` J never rises. If the change of the backbone in a round raises J, half of the change is tried,
    then a quarter, down to 1/64. If none of them helps, the change is undone. In all these cases the optimiser starts
    anew. Solved weights of the head are rejected if they are worse than the previous ones. This happens if a solver
    stops early, or if the given cells do not contain those of the head.

    Args:
      backbone: an ``nnx.Module`` from inputs to features (n, d). Its ``nnx.Param`` are trained in train mode (dropout,
        batch statistics), if it has one. J is computed in evaluation mode.
      head: a ConvexLayer (the gated program, started from the last solution) or a ConvexReLU (its ``fit``).
      data: inputs (n, ...), and targets in the form that the loss needs.
      beta: weight decay of the head. For a ConvexLayer it is on the layer's scale, and None means the layer's own beta.
        For a ConvexReLU it is absolute.
      optimizer: an optax transformation, such as ``optax.adam(1e-3)``.
      rounds: number of rounds.
      steps_per_round: optimiser steps in each round.
      batch_size: samples in a step, and in a forward pass elsewhere.
      monotone: True for the behaviour above; False keeps every change and every solution.
      loss: name or Loss. None means the layer's own loss for a ConvexLayer, and "squared" for a ConvexReLU.
      decay: weight decay of the backbone, absolute. Without it J can be lowered just by scaling up the backbone's
        outputs, unless the backbone or a ConvexLayer normalises them.
      solver: solver for the head. None means the default of ``freeze`` for a ConvexLayer, and ``ColumnGeneration`` for
        a ConvexReLU.
      key: random key that draws the batches; None means ``jax.random.key(0)``.

    Returns:
      The record of J, and the last Solution.

    Raises:
      InvalidInputError, InvalidTypeError: bad arguments, or data that do not fit the modules.

    Example:
      >>> import optax
      >>> from flax import nnx
      >>> import jax.numpy as jnp
      >>> from jaxcvx.flax import ConvexLayer, alternate
      >>> inputs = jnp.array([[0.0, 1.0], [1.0, 0.0], [1.0, 2.0]])
      >>> targets = jnp.array([[1.0], [0.0], [1.0]])
      >>> backbone = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
      >>> head = ConvexLayer(2, 1, num_gates=4, beta=0.1, rngs=nnx.Rngs(1))
      >>> record = alternate(backbone, head, (inputs, targets), None, optax.adam(1e-2), rounds=2, steps_per_round=5)
      >>> record.objective.shape, bool(record.objective[-1] <= record.objective[0])
      ((3,), True)
    """
    work = _checked(backbone, head, data, beta, loss, decay, batch_size)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise wrong_type("optimizer", optimizer, "an optax transformation")
    check_count("rounds", rounds, 0)
    check_count("steps_per_round", steps_per_round)
    keys = jax.random.split(jax.random.key(0) if key is None else key, rounds + 1)
    features = work.features(backbone)
    current = work.objective(backbone, features, head)
    solution, current = _solve_head(work, backbone, features, head, solver, keys[0], monotone, current, rounds == 0)
    objectives, after, kept, state = [current], [], [], None
    for number in range(1, rounds + 1):
        before = jax.tree.map(jnp.copy, nnx.state(backbone))
        state = _descend(work, backbone, head, optimizer, state, keys[number], steps_per_round)
        proposed, share = nnx.state(backbone), 1.0
        features = work.features(backbone)
        value = work.objective(backbone, features, head)
        while monotone and not value <= current:
            state, share = None, 0.5 * share if share > 0.5**_HALVINGS else 0.0
            nnx.update(backbone, _between(before, proposed, share))
            features = work.features(backbone)
            value = work.objective(backbone, features, head) if share > 0 else current
        after.append(value)
        kept.append(share)
        solution, current = _solve_head(
            work, backbone, features, head, solver, keys[number], monotone, value, number == rounds
        )
        objectives.append(current)
    return Alternation(np.asarray(objectives), np.asarray(after), np.asarray(kept), solution)


@dataclasses.dataclass(frozen=True)
class _Work:
    """The validated data, and the objective J."""

    inputs: Any
    targets: Any  # (n, c), in the form that the loss needs
    beta: Any  # absolute
    given_beta: Any  # the argument for the head's own methods
    loss: Loss
    decay: float
    batch_size: int

    def features(self, backbone: nnx.Module) -> np.ndarray:
        return run_in_batches(backbone, self.inputs, self.batch_size)

    def objective(self, backbone: nnx.Module, features: np.ndarray, head: Any) -> float:
        """Compute J. It is infinite if numbers overflow."""
        if not np.isfinite(features).all():
            return float("inf")
        value = self.loss.value(head(jnp.asarray(features)), self.targets) + self.beta * head.penalty()
        squares = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(nnx.state(backbone, nnx.Param)))
        value = float(value) + 0.5 * self.decay * squares
        return value if np.isfinite(value) else float("inf")


def _checked(backbone: Any, head: Any, data: Any, beta: Any, loss: Any, decay: Any, batch_size: Any) -> _Work:
    if not isinstance(backbone, nnx.Module):
        raise wrong_type("backbone", backbone, "an nnx.Module")
    if not isinstance(head, ConvexLayer | ConvexReLU):
        raise wrong_type("head", head, "a ConvexLayer or a ConvexReLU")
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise wrong_type("data", data, "a pair (inputs, targets)")
    check_count("batch_size", batch_size)
    inputs, targets = data
    inputs = jnp.asarray(inputs if isinstance(inputs, jax.Array) else plain_array("data[0]", inputs))
    if isinstance(head, ConvexLayer):
        loss = resolve_loss(loss or head.loss)
        if loss != head.loss:
            raise invalid("loss", repr(loss.name), f"{head.loss.name!r}, the layer's own")
        columns, dtype = head.out_features, head.weights[...].dtype
    else:
        loss = resolve_loss(loss or "squared")
        columns, dtype = head.output.out_features, head.output.kernel[...].dtype
    targets = as_targets(loss, targets, inputs.shape[0], dtype, columns)
    if targets.shape[1] != columns:
        raise invalid("data", f"targets of {targets.shape[1]} columns", f"{columns}, as the head was made for")
    given = None if beta is None else float(as_beta(beta, dtype))
    absolute = given
    if isinstance(head, ConvexLayer):
        absolute = head.absolute_beta(inputs.shape[0], given)
    elif beta is None:
        raise invalid("beta", "None", "a number: a ConvexReLU has none of its own")
    return _Work(inputs, targets, absolute, given, loss, float(as_beta(decay, dtype)), int(batch_size))


def _solve_head(
    work: _Work,
    backbone: nnx.Module,
    features: np.ndarray,
    head: Any,
    solver: Any,
    key: Any,
    monotone: bool,
    current: float,
    last: bool,
) -> tuple[Any, float]:
    """Fit the head. Return its Solution and J.

    For a ConvexLayer the Solution is computed only the last time (it needs work on the host); otherwise it is None.
    """
    old: Any = from_nnx(head) if isinstance(head, ConvexReLU) else head.weights[...]
    solution = None
    if isinstance(head, ConvexReLU):
        solution = head.fit(features, work.targets, work.given_beta, loss=work.loss, solver=solver, key=key)
    elif last:
        solution = head.freeze(features, work.targets, work.given_beta, solver=solver)
    else:
        _refresh(head, jnp.asarray(features), work.targets, work.given_beta, solver)
    value = work.objective(backbone, features, head)
    if not monotone or value <= current:
        return solution, value
    if isinstance(head, ConvexReLU):
        store(head, old)
    else:
        head.weights[...] = old
    return solution, current


def _refresh_layer(head: Any, features: Any, targets: Any, beta: Any, solver: Any) -> None:
    head.refresh(features, targets, beta, solver=solver)


_refresh: Any = nnx.jit(_refresh_layer, static_argnums=4)


def _descend(work: _Work, backbone: nnx.Module, head: Any, optimizer: Any, state: Any, key: Any, steps: int) -> Any:
    """Take optimiser steps on the backbone, in place. Return the optimiser's state."""
    graph, *states = nnx.split(backbone, nnx.Param, ...)
    params, rest = states
    if state is None:
        state = optimizer.init(params)
    size = min(work.batch_size, work.inputs.shape[0])
    data = (work.inputs, work.targets, work.decay / work.inputs.shape[0])
    head_graph, head_state = nnx.split(head)
    statics = (graph, head_graph, optimizer, work.loss, size, int(steps))
    params, rest, state = _steps(statics, params, rest, state, head_state, data, key)
    nnx.update(backbone, params, rest)
    return state


@functools.partial(jax.jit, static_argnums=0)
def _steps(statics: Any, params: Any, rest: Any, state: Any, head_state: Any, data: Any, key: Any) -> Any:
    graph, head_graph, optimizer, loss, size, steps = statics
    inputs, targets, decay = data

    def mean_loss(params, rest, rows):
        model = nnx.merge(graph, params, rest, copy=True)  # a copy within this trace: its batch statistics may change
        model.train()
        F = nnx.merge(head_graph, head_state)(model(inputs[rows]))
        squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return loss.value(F, targets[rows]) / size + 0.5 * decay * squares, nnx.state(model, nnx.Not(nnx.Param))

    def step(i, carry):
        params, rest, state = carry
        rows = jax.random.permutation(jax.random.fold_in(key, i), len(inputs))[:size]
        gradient, rest = jax.grad(mean_loss, has_aux=True)(params, rest, rows)
        with default_promotion():
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), rest, state

    return jax.lax.fori_loop(0, steps, step, (params, rest, state))


def _between(before: Any, after: Any, share: float) -> Any:
    """Return ``before`` plus a share of the change to ``after``. Arrays that are not floating are those of ``after``.

    With share 0 everything is that of ``before``.
    """
    if share == 0:
        return before

    def blend(a, b):
        return a + share * (b - a) if jnp.issubdtype(jnp.asarray(b).dtype, jnp.floating) else b

    return jax.tree.map(blend, before, after)
