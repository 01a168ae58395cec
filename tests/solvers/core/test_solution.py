"""The solution's own definitions: the relative gap and the statuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcvx.solvers.core.solution import relative_gap

finite = st.floats(-1e100, 1e100, allow_subnormal=False)


@given(finite, finite)
def test_relative_gap_is_the_definition(upper, lower):
    gap = relative_gap(jnp.asarray(upper), jnp.asarray(lower))
    if abs(upper) > 1e-100:
        np.testing.assert_allclose(gap, (upper - lower) / abs(upper), rtol=1e-12)
    else:
        assert np.sign(gap) == np.sign(upper - lower)


@pytest.mark.parametrize("upper", [np.inf, -np.inf, np.nan])
def test_a_gap_to_no_number_is_infinite(upper):
    assert relative_gap(jnp.asarray(upper), jnp.asarray(1.0)) == np.inf
    slope = jax.grad(lambda lower: relative_gap(jnp.asarray(upper), lower))(1.0)
    assert np.isfinite(slope)


def test_a_missing_bound_leaves_an_infinite_gap():
    assert relative_gap(jnp.asarray(2.0), jnp.asarray(-jnp.inf)) == np.inf
