"""Small data sets for a first try of the library: five that scikit-learn contains, and a spiral."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxcvx.errors import invalid, require_extra

DATASET_NAMES: tuple[str, ...] = ("digits", "breast_cancer", "wine", "diabetes", "iris", "spiral")


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A supervised data set in memory, as numpy arrays.

    Attributes:
      name: its name in messages and reports.
      X: (n, d) float64 features, neither centred nor scaled.
      y: (n,) targets: float64 for regression. For classification int64, the indices of the labels in ``classes``.
      task: "classification" or "regression".
      feature_names: d names, one for each column of X.
      classes: the original labels as strings: row i has the label ``classes[y[i]]``. None for regression.
    """

    name: str
    X: Float[np.ndarray, "n d"]
    y: Shaped[np.ndarray, " n"]
    task: Literal["classification", "regression"]
    feature_names: tuple[str, ...]
    classes: tuple[str, ...] | None = None


def _count(argument: str, value: int) -> int:
    """Return ``value`` as a positive int, or raise InvalidInputError."""
    try:
        count = operator.index(value)
    except TypeError:
        raise invalid(argument, repr(value), "a positive integer") from None
    if count < 1:
        raise invalid(argument, count, "a positive integer")
    return count


def spiral(
    num_per_arm: int = 20, noise: float = 0.15, seed: int = 0, arms: int = 3
) -> tuple[Float[np.ndarray, "n 2"], Int[np.ndarray, " n"]]:
    """Points on spiral arms that start at the origin.

    Arm q has the radii ``linspace(0, 1, num_per_arm) / 2``. Its angles are ``linspace(4q, 4(q+1), num_per_arm)`` plus
    Gaussian noise. The point with radius r and angle t is ``(r sin t, r cos t)``. So the first point of each arm is the
    origin. The noise is drawn arm by arm from ``numpy.random.default_rng(seed)``.

    Args:
      num_per_arm: points on each arm.
      noise: standard deviation of the angles' noise, in radians.
      seed: seed of the generator.
      arms: number of arms.

    Returns:
      X of shape (arms * num_per_arm, 2), float64, and the number of each row's arm, int64.

    Raises:
      InvalidInputError: a count is below 1, the seed is negative, or the noise is negative or not finite.

    >>> from jaxcvx.datasets import spiral
    >>> X, arm = spiral(num_per_arm=20, arms=3)
    >>> X.shape, arm[:3]
    ((60, 2), array([0, 0, 0]))
    """
    num_per_arm, arms = _count("num_per_arm", num_per_arm), _count("arms", arms)
    if not (np.isfinite(noise) and noise >= 0):
        raise invalid("noise", noise, "a finite number >= 0")
    if seed < 0:
        raise invalid("seed", seed, "an integer >= 0")
    rng = np.random.default_rng(seed)
    radius = np.linspace(0.0, 1.0, num_per_arm) / 2
    rows = []
    for arm in range(arms):
        angle = np.linspace(4.0 * arm, 4.0 * (arm + 1), num_per_arm)
        angle = angle + noise * rng.standard_normal(num_per_arm)
        rows.append(np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1))
    return np.concatenate(rows), np.repeat(np.arange(arms, dtype=np.int64), num_per_arm)


def load_dataset(name: str) -> Dataset:
    """Load a data set by name.

    The sets ``digits``, ``breast_cancer``, ``wine`` and ``iris`` are for classification, and ``diabetes`` is for
    regression. scikit-learn contains them. In ``spiral``, with n = 60 and d = 2, the middle one of three arms is to be
    told from the other two. It does not need scikit-learn.

    Args:
      name: one of ``DATASET_NAMES``.

    Returns:
      The data set, with all rows in their original order.

    Raises:
      InvalidInputError: the name is unknown. The message lists the known names.
      MissingExtraError: scikit-learn is needed, but not installed.

    >>> from jaxcvx.datasets import load_dataset
    >>> data = load_dataset("spiral")
    >>> data.X.shape, data.classes
    ((60, 2), ('outer', 'middle'))
    """
    if name not in DATASET_NAMES:
        raise invalid("dataset", repr(name), f"one of {', '.join(DATASET_NAMES)}")
    if name == "spiral":
        X, arm = spiral()
        y = (arm == 1).astype(np.int64)
        return Dataset("spiral", X, y, "classification", ("x", "y"), ("outer", "middle"))
    module: Any = require_extra("sklearn.datasets", "cli")
    bunch = getattr(module, f"load_{name}")()
    X = np.asarray(bunch.data, dtype=np.float64)
    feature_names = tuple(str(feature) for feature in bunch.feature_names)
    if name == "diabetes":
        return Dataset(name, X, np.asarray(bunch.target, dtype=np.float64), "regression", feature_names)
    y = np.asarray(bunch.target, dtype=np.int64)
    classes = tuple(str(label) for label in bunch.target_names)
    return Dataset(name, X, y, "classification", feature_names, classes)
