"""Rows and cells that change nothing, so that every device gets equally many."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcvx.errors import invalid
from jaxcvx.problems.losses import Hinge, Logistic, Loss, SoftmaxCrossEntropy
from jaxcvx.problems.relu import Problem
from jaxcvx.problems.weighted import WeightedLogistic, WeightedSoftmax


def padded_loss(loss: Loss) -> Loss:
    """The loss under which a row of zero targets has weight zero, or counts for nothing if it is predicted as zero.

    Raises:
      InvalidInputError: the hinge, for which there is none.
    """
    if type(loss) is Logistic:
        return WeightedLogistic()
    if type(loss) is SoftmaxCrossEntropy:
        return WeightedSoftmax()
    if isinstance(loss, Hinge):
        raise invalid("problem.loss", "'hinge' and rows to pad", "a number of samples that the devices divide")
    return loss


def check_zero_rows(problem: Problem, loss: Loss) -> None:
    """Raise unless a zero row of X and of Y changes no objective, gradient or bound.

    Raises:
      InvalidInputError: the features of a zero row are not zero (a bias), and the loss has no weights.
    """
    zero = jnp.zeros((1, *problem.X.shape[1:]), problem.dtype)
    silent = not np.any(np.asarray(problem.features.matrix(zero)))
    if not (silent or isinstance(loss, WeightedLogistic | WeightedSoftmax)):
        raise invalid(
            "features",
            f"{type(problem.features).__name__} with a bias, loss {loss.name!r}, and rows to pad",
            "a number of samples that the devices divide, or a column of ones in X instead of the bias",
        )


def padded_rows(problem: Problem, extra: int) -> Problem:
    """``extra`` more samples: zero rows of X and Y, all cells open on them. On the host."""
    if not extra:
        return problem
    loss = padded_loss(problem.loss)
    check_zero_rows(problem, loss)
    X, Y, cells = problem.X, problem.Y, problem.arrangements
    if cells is not None:
        masks = _grown(cells.masks, 1, extra * problem.readout.positions, True)
        cells = dataclasses.replace(cells, masks=masks)
    return dataclasses.replace(
        problem, X=_grown(X, 0, extra, 0), Y=_grown(Y, 0, extra, 0), arrangements=cells, loss=loss
    )


def padded_cells(problem: Problem, extra: int) -> Problem:
    """``extra`` more cells that no sample is in: their blocks predict nothing and stay zero. On the host."""
    cells = problem.arrangements
    if cells is None or not extra:
        return problem
    masks, gates = (_grown(a, 0, extra, 0) for a in (cells.masks, cells.gates))
    return dataclasses.replace(problem, arrangements=dataclasses.replace(cells, masks=masks, gates=gates))


def _grown(a: Array, axis: int, extra: int, value: Any) -> Array:
    widths = [(0, extra if k == axis else 0) for k in range(a.ndim)]
    return jnp.asarray(np.pad(np.asarray(a), widths, constant_values=value))
