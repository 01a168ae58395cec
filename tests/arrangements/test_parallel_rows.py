"""Groups of parallel rows against a comparison of all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcvx.arrangements.parallel_rows import merge_parallel_rows


def rows_with_copies(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows (60, 4), and for each the signed index of the row of 20 that it copies."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((20, 4))
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    source, sign = rng.integers(0, 20, 60), rng.choice([-1.0, 1.0], 60)
    return sign[:, None] * base[source] + 1e-14 * rng.standard_normal((60, 4)), sign * (source + 1)


@pytest.mark.routine(2)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("oriented", [False, True])
def test_groups(seed, oriented):
    unit, label = rows_with_copies(seed)
    groups = merge_parallel_rows(unit, 1e-12, oriented=oriented)
    same = label[:, None] == label[None, :]
    if not oriented:
        same |= label[:, None] == -label[None, :]
    np.testing.assert_array_equal(groups.owner[:, None] == groups.owner[None, :], same)
    leaders = groups.first[groups.owner]
    np.testing.assert_array_equal(groups.flip, np.sign(label) != np.sign(label[leaders]))
    np.testing.assert_array_equal(leaders, same.argmax(axis=1))  # the first of each group


def test_rows_apart_by_more_than_the_tolerance_stay_apart():
    unit = np.array([[1.0, 0.0], [np.cos(1e-6), np.sin(1e-6)], [-1.0, 0.0]])
    assert len(merge_parallel_rows(unit, 1e-9).first) == 2
    assert len(merge_parallel_rows(unit, 1e-5).first) == 1
    assert len(merge_parallel_rows(unit, 1e-9, oriented=True).first) == 3


@pytest.mark.routine(2)
@pytest.mark.parametrize("seed", range(10))
def test_rounding_does_not_hide_copies(seed):
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((1, 30)).astype(np.float32)
    unit = np.repeat(base / np.linalg.norm(base), 8, axis=0).astype(np.float64)
    unit += 1e-7 * rng.uniform(-1, 1, unit.shape)
    assert len(merge_parallel_rows(unit, 3e-7).first) == 1
