"""Certificates from their numbers: NaN claims nothing, and bounds never cross; double precision on the host."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import Arrangements
from jaxcvx.certificates.certificate import Certificate, bound_scope, make_certificate
from jaxcvx.numerics.precision import double_precision, to_double


@pytest.mark.routine(2)
@pytest.mark.parametrize(
    ("given", "upper", "lower", "gap"),
    [
        ((2.0, 1.5), 2.0, 1.5, 0.25),
        ((2.0, 3.0), 2.0, 2.0, 0.0),  # the excess is rounding
        ((0.0, 0.0), 0.0, 0.0, 0.0),
        ((np.nan, 1.0), np.inf, 1.0, np.inf),
        ((2.0, np.nan), 2.0, -np.inf, np.inf),
        ((2.0, -np.inf), 2.0, -np.inf, np.inf),
    ],
)
def test_bounds_and_gap(given, upper, lower, gap):
    certificate = make_certificate(*given, "global")
    assert (certificate.upper, certificate.lower, certificate.gap) == (upper, lower, gap)
    assert certificate.heuristic_bound == -np.inf and certificate.scope == "global"
    assert certificate.gap.dtype == np.float64


def test_two_objectives():
    unbalanced = make_certificate(4.0, 1.0, "global", balanced=2.0)
    assert (unbalanced.upper, unbalanced.balanced, unbalanced.gap) == (4.0, 2.0, 0.75)
    assert make_certificate(4.0, 3.0, "global", balanced=2.0).lower == 2.0  # a bound holds for both
    assert make_certificate(np.nan, 1.0, "global", balanced=2.0).gap == np.inf
    assert make_certificate(4.0, 1.0, "global").balanced == 4.0
    assert Certificate(4.0, 1.0, 0.75, -np.inf).balanced == 4.0  # as in files written before the field existed


def test_scopes():
    complete = Arrangements(jnp.ones((1, 2), bool), jnp.ones((1, 2)), complete=True)
    sampled = Arrangements(jnp.ones((1, 2), bool), jnp.ones((1, 2)))
    assert bound_scope(None, 1) == "relaxation" and bound_scope(sampled, 1) == "sampled-cells"
    assert bound_scope(complete, 1) == "global" and bound_scope(complete, 2) == "relaxation"


@pytest.mark.float32
def test_double_precision_where_the_default_is_single():
    assert jnp.ones(1).dtype == jnp.float32
    tree = {"a": jnp.ones(2), "b": jnp.ones(2, bool), "c": jnp.arange(2)}
    with double_precision():
        exact = to_double(tree)
        assert exact["a"].dtype == jnp.float64 and exact["b"].dtype == bool
        assert jnp.issubdtype(exact["c"].dtype, jnp.integer)
        assert (exact["a"] + 1e-12 != exact["a"]).all()
        assert jax.tree.leaves(exact)[0].devices() == {jax.local_devices(backend="cpu")[0]}
    assert jnp.ones(1).dtype == jnp.float32


def test_pickles_keep_both_objectives_and_earlier_ones_get_the_second():
    made = make_certificate(2.0, 1.0, "global", balanced=1.5)
    assert pickle.loads(pickle.dumps(made)).balanced == 1.5
    earlier = object.__new__(Certificate)
    earlier.__setstate__({name: value for name, value in vars(made).items() if name != "balanced"})
    assert earlier.balanced == earlier.upper == 2.0
