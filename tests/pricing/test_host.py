"""Prices and ascents in numpy: against their definitions, and on data of any scale."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcvx.pricing.host import ascend, ascend_on_host, price_of, unit
from tests.helpers import gaussian_data
from tests.pricing.exact import exact_value


def test_the_price_is_its_definition():
    Z, R, u = np.array([[1.0, 2.0], [-1.0, 0.5]]), np.array([[3.0, -1.0], [2.0, 2.0]]), np.array([1.0, 1.0])
    assert price_of(Z, R, u) == pytest.approx(3.0 * np.hypot(3.0, 1.0))  # z u is 3 and -0.5


def test_units_keep_rows_of_zeros():
    np.testing.assert_allclose(unit(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]])


def test_more_steps_are_never_worse_and_the_price_is_that_of_the_neuron():
    Z, R = gaussian_data(0, 30, 4, 2)
    U = unit(np.random.default_rng(0).standard_normal((8, 4)))
    found = [ascend(Z, R, U, steps) for steps in (0, 1, 5, 40)]
    assert all(np.diff([price for price, _ in found]) >= 0) and found[-1][0] > found[0][0]
    for price, u in found:
        np.testing.assert_allclose([price, 1.0], [price_of(Z, R, u), np.linalg.norm(u)], rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_the_largest_price_of_small_data_is_found(scale):
    Z, r = gaussian_data(1, 12, 2)
    u, price = ascend_on_host(scale * Z, r)
    np.testing.assert_allclose(price, scale * exact_value(Z, r), rtol=1e-2)
    better, same = ascend_on_host(scale * Z, r, starts=u[None])
    assert same >= price * (1 - 1e-12) and better.shape == (2,)
