"""Spectral norms that are bounded from above."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.numerics.rounding import spectral_norm


@pytest.mark.parametrize("shape", [(5000, 4), (4, 5000), (300, 20)])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e15])
def test_spectral_norms_of_many_rows_are_bounded_from_above(shape, scale):
    A = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    A[:, 0] *= 10
    exact = scale * np.linalg.norm(A.astype(float), ord=2)
    bound = float(spectral_norm(jnp.asarray(np.float32(scale) * A)))
    assert exact * (1 - 1e-6) <= bound <= exact * 1.01
    assert float(spectral_norm(jnp.zeros((5000, 3)))) == 0
