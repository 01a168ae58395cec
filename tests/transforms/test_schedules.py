"""Schedules by epochs, radii by label."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcvx
from jaxcvx.errors import InvalidInputError, InvalidTypeError
from jaxcvx.transforms.schedules import check_radius, outermost_names, radius_tree


class Pair(NamedTuple):
    w: object
    a: object


def test_epochwise_geometric_is_optax_staircase():
    ours = jaxcvx.epochwise_geometric(36.0, 0.4, 7)
    peer = optax.exponential_decay(36.0, 7, 0.4, staircase=True)
    counts = jnp.arange(50)
    np.testing.assert_allclose(jax.vmap(ours)(counts), jax.vmap(peer)(counts), rtol=1e-14)
    assert float(ours(6)) == 36.0 and float(ours(jnp.asarray(7))) == pytest.approx(14.4)


@pytest.mark.parametrize("bad", [(1.0, 0.5, 0), (1.0, 0.5, 2.5), (-1.0, 0.5, 2), (1.0, float("nan"), 2)])
def test_bad_schedules_are_refused(bad):
    with pytest.raises(InvalidInputError):
        jaxcvx.epochwise_geometric(*bad)


def test_names_are_the_outermost():
    tree = {"w": {"kernel": 0, "bias": 0}, "a": [0, 0]}
    assert outermost_names(tree) == {"w": {"kernel": "w", "bias": "w"}, "a": ["a", "a"]}
    assert outermost_names(Pair(0, 0)) == Pair("w", "a")
    assert outermost_names((0, {"x": 0})) == ("0", {"x": "1"})
    network = jaxcvx.Network(jnp.ones((2, 2)), jnp.ones((2, 1)))
    assert outermost_names(network).output == "output"
    assert outermost_names(jnp.ones(2)) == ""


def test_radii_by_number_schedule_and_label():
    params = Pair(jnp.ones(2), (jnp.ones(3), jnp.ones(1)))
    assert radius_tree(0.5, None, params, 0) == Pair(0.5, (0.5, 0.5))
    assert radius_tree(lambda t: 2 * t, None, params, 3) == Pair(6, (6, 6))
    mixed = {"w": lambda t: t, "a": 1.0}
    assert radius_tree(mixed, None, params, 3) == Pair(3, (1.0, 1.0))
    groups = {"x": 1.0, "y": 2.0}
    assert radius_tree(groups, Pair("x", ("y", "x")), params, 0) == Pair(1.0, (2.0, 1.0))
    assert radius_tree(groups, Pair("x", "y"), params, 0) == Pair(1.0, (2.0, 2.0))  # a prefix
    assert radius_tree(groups, lambda p: Pair("y", "x"), params, 0) == Pair(2.0, (1.0, 1.0))
    with pytest.raises(InvalidInputError, match="radius.*'a'"):
        radius_tree({"w": 1.0}, None, params, 0)


def test_bad_radii_are_refused():
    for bad in (-1.0, float("inf"), {"w": -2.0}):
        with pytest.raises(InvalidInputError, match="radius"):
            check_radius(bad)
    for bad in ("1", [1.0, 2.0]):
        with pytest.raises(InvalidTypeError, match="radius"):
            check_radius(bad)
