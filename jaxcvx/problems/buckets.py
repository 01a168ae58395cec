"""Numbers of samples in buckets: problems of nearly equal size then share their compiled programs."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxcvx.numerics.trees import is_traced
from jaxcvx.problems.training import Problem

_SMALLEST = 32


def bucket_size(n: int) -> int:
    """The next of eight sizes between a number and its double; at least 32.

    >>> [bucket_size(n) for n in (5, 133, 300, 2000)]
    [32, 144, 320, 2048]
    """
    step = 2 ** max(0, (n - 1).bit_length() - 4)
    return max(_SMALLEST, -(-n // step) * step)


def in_bucket_of_samples(problem: Problem) -> Problem:
    """The same problem with sample weights, and with samples of weight 0 up to the next bucket. Runs on the host.

    The added samples repeat the others. Traced problems and those on several devices stay as they are.
    """
    n = problem.num_samples
    extra = bucket_size(n) - n
    leaves = jax.tree.leaves(problem)
    if is_traced(*leaves) or any(isinstance(a, jax.Array) and len(a.devices()) > 1 for a in leaves):
        return problem
    if problem.sample_weight is not None and not extra:
        return problem
    rows = np.arange(n + extra) % n

    def repeated(a: Any) -> Any:
        return jax.device_put(np.asarray(a)[rows])

    weight = np.ones(n) if problem.sample_weight is None else np.asarray(problem.sample_weight)
    padded = jax.device_put(np.pad(weight, (0, extra)).astype(problem.dtype))
    return dataclasses.replace(
        problem, X=repeated(problem.X), Y=repeated(problem.Y), arrangements=None, sample_weight=padded
    )
