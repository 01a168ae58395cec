"""Add rows and cells that do not change the problem, so that every device gets the same number of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcvx.errors import invalid
from jaxcvx.losses.entrywise import Logistic
from jaxcvx.losses.softmax import SoftmaxCrossEntropy
from jaxcvx.problems.training import Problem


def weighted_for_padding(problem: Problem, wanted: str) -> Problem:
    """Return the same problem in a form where zero rows of X and Y, with weight 0, change no objective or bound.

    The logistic and softmax losses get sample weights of 1. Another loss without weights is kept under two conditions:
    it is zero at F = Y = 0, and every network predicts zero for a zero row, as there is no bias.

    Args:
      problem: the problem without the rows.
      wanted: the number of samples that needs no padding, in words for the error message.

    Raises:
      InvalidInputError: there is no such form. This is so for the hinge, and for biases with another loss; problems
        with sample weights always have one.
    """
    loss = problem.loss
    if problem.sample_weight is not None:
        return problem
    if isinstance(loss, Logistic | SoftmaxCrossEntropy):
        return problem.replace(sample_weight=np.ones(problem.num_samples))
    zero = jnp.zeros((1, problem.num_outputs), problem.dtype)
    values = loss.value(zero, zero), loss.grad(zero, zero), loss.dual_value(zero, zero)
    if any(np.any(np.asarray(a)) for a in values):
        raise invalid("problem.loss", f"{loss.name!r} and rows to pad, which would count", wanted)
    if np.any(np.asarray(problem.features.matrix(jnp.zeros((1, *problem.X.shape[1:]), problem.dtype)))):
        raise invalid(
            "features",
            f"{type(problem.features).__name__} with a bias, loss {loss.name!r}, and rows to pad, which would count",
            f"{wanted}, or a column of ones in X instead of the bias",
        )
    if problem.features.output_bias:
        got = f"an output bias, loss {loss.name!r}, and rows to pad, which would count"
        raise invalid("features", got, f"{wanted}, or sample_weight=numpy.ones({problem.num_samples})")
    return problem


def padded_rows(problem: Problem, extra: int) -> Problem:
    """Add ``extra`` samples with zero rows of X and Y, and weight 0 if there are weights. All cells contain them.

    Runs on the host.

    Raises:
      InvalidInputError: such rows would change the problem.
    """
    if not extra:
        return problem
    wanted = f"a number of samples that the devices divide, such as {problem.num_samples + extra}"
    problem = weighted_for_padding(problem, wanted)
    X, Y, weight, cells = problem.X, problem.Y, problem.sample_weight, problem.arrangements
    if cells is not None:
        masks = _grown(cells.masks, 1, extra * problem.readout.positions, True)
        cells = dataclasses.replace(cells, masks=masks)
    return dataclasses.replace(
        problem,
        X=_grown(X, 0, extra, 0),
        Y=_grown(Y, 0, extra, 0),
        arrangements=cells,
        sample_weight=None if weight is None else _grown(weight, 0, extra, 0),
    )


def padded_cells(problem: Problem, extra: int) -> Problem:
    """Add ``extra`` cells without samples. Their blocks do not change predictions and stay zero. Runs on the host."""
    cells = problem.arrangements
    if cells is None or not extra:
        return problem
    masks, gates = (_grown(a, 0, extra, 0) for a in (cells.masks, cells.gates))
    return dataclasses.replace(problem, arrangements=dataclasses.replace(cells, masks=masks, gates=gates))


def _grown(a: Array, axis: int, extra: int, value: Any) -> Array:
    widths = [(0, extra if k == axis else 0) for k in range(a.ndim)]
    return jnp.asarray(np.pad(np.asarray(a), widths, constant_values=value))
