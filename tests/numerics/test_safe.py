"""Divisions and norms that are defined at zero: their values, derivatives, dtypes and module, for any numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxcvx.numerics.safe import divide, divisor, norm, unit_rows

DTYPES = [np.float32, np.float64]
MODULES = [np.asarray, jnp.asarray]

anything = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=2, max_side=4), elements={"allow_nan": False})
)
# Squares of these numbers neither overflow nor underflow.
moderate = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        (3, 4),
        elements=st.sampled_from([0.0, 1.0]) | st.floats(0.0009765625, 1024, width=32) | st.floats(-1024, -1, width=32),
    )
)
# Rows of every size whose inverse the dtype holds too: XLA divides by multiplying with the inverse, and flushes
# denormal numbers to zero.
any_scale = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        (3, 4),
        elements=st.just(0.0)
        | st.floats(
            float(np.finfo(dtype).tiny) * 4,
            float(np.finfo(dtype).max) / 8,
            width=np.finfo(dtype).bits,
            allow_subnormal=False,
        ),
    )
)


@settings(deadline=None)
@given(anything)
def test_a_divisor_is_positive_and_keeps_what_is_positive(b):
    result = divisor(b)
    assert (result > 0).all() and result.dtype == b.dtype and result.shape == b.shape
    np.testing.assert_array_equal(result[b > 0], b[b > 0])
    np.testing.assert_array_equal(result[b <= 0], 1)


@settings(deadline=None)
@given(anything)
def test_a_division_is_exact_where_the_divisor_is_positive_and_zero_elsewhere(b):
    a = np.ones_like(b) * 3
    with np.errstate(all="raise", under="ignore", over="ignore"):  # no 0 / 0 is formed
        result = divide(a, b)
    assert result.dtype == b.dtype
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(result[b > 0], a[b > 0] / b[b > 0])
    np.testing.assert_array_equal(result[b <= 0], 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("of", MODULES)
def test_divisions_at_the_ends_of_the_range(dtype, of):
    info = np.finfo(dtype)
    b = of(np.array([0.0, -0.0, np.inf, -np.inf, info.tiny, info.max], dtype))
    with np.errstate(over="ignore"):
        result = np.asarray(divide(of(np.ones(6, dtype)), b))
    np.testing.assert_allclose(result, np.array([0, 0, 0, 0, 1 / info.tiny, 1 / info.max], dtype), atol=info.tiny)


@pytest.mark.parametrize("dtype", DTYPES)
def test_denormal_divisors_count_on_the_host(dtype):
    denormal = np.array([np.finfo(dtype).smallest_subnormal], dtype)
    assert divisor(denormal) == denormal
    np.testing.assert_array_equal(divide(denormal, denormal), 1)
    np.testing.assert_array_equal(unit_rows(denormal[None]), 1)


@settings(deadline=None)
@given(moderate)
def test_norms_agree_with_numpy(A):
    for axis in (-1, 0, None, (0, 1)):
        for keepdims in (False, True):
            result = norm(A, axis, keepdims)
            assert result.dtype == A.dtype
            np.testing.assert_allclose(result, np.linalg.norm(A, axis=axis, keepdims=keepdims), rtol=1e-6)


@settings(deadline=None)
@given(any_scale)
def test_unit_rows_of_every_scale_have_norm_one(A):
    with np.errstate(all="raise", under="ignore"):
        result = unit_rows(A)
    assert result.dtype == A.dtype
    zero = ~A.any(axis=1)
    np.testing.assert_array_equal(result[zero], 0)
    np.testing.assert_allclose(np.linalg.norm(result[~zero], axis=1), 1, rtol=1e-6)
    # Rows keep their direction.
    largest = A.argmax(axis=1)
    rows = np.arange(len(A))[~zero]
    share = A[rows] / A[rows, largest[~zero]][:, None]
    np.testing.assert_allclose(result[rows] / result[rows, largest[~zero]][:, None], share, rtol=1e-5, atol=1e-30)


@settings(deadline=None, max_examples=20)
@given(any_scale)
def test_jax_and_numpy_agree(A):
    with np.errstate(over="ignore", under="ignore"):
        for function in (divisor, unit_rows, lambda A: divide(A, A[:, ::-1]), lambda A: norm(A * np.float32(1e-3))):
            np.testing.assert_allclose(function(jnp.asarray(A)), function(A), rtol=1e-5, atol=np.finfo(A.dtype).tiny)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_arrays_stay_numpy_and_jax_arrays_stay_jax(dtype):
    host, device = np.ones((2, 3), dtype), jnp.ones((2, 3), dtype)
    for function in (divisor, norm, unit_rows, lambda A: divide(A, A), lambda A: divide(1.0, A)):
        assert isinstance(function(host), np.ndarray) and function(host).dtype == dtype
        assert isinstance(function(device), jax.Array) and function(device).dtype == dtype
    assert isinstance(divide(host, device), jax.Array) and isinstance(divide(device, host), jax.Array)


def test_numpy_arrays_are_handled_without_jax(monkeypatch):
    monkeypatch.setattr(jnp, "where", None)  # every function here would call it
    for function in (divisor, norm, unit_rows, lambda A: divide(A, A)):
        function(np.ones((2, 3)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("function", "at_zero"),
    [
        (lambda x: jnp.sum(divisor(x)), 0.0),
        (lambda x: jnp.sum(divide(1.0, x)), 0.0),
        (lambda x: jnp.sum(divide(x, x)), 0.0),
        (lambda x: jnp.sum(norm(x)), 0.0),
        (lambda x: norm(x, axis=None), 0.0),
        (lambda x: jnp.sum(unit_rows(x)), 1.0),
    ],
    ids=["divisor", "divide", "quotient", "norm", "norm of all", "unit rows"],
)
def test_derivatives_at_zero_are_finite(function, at_zero, dtype):
    zero = jnp.zeros((2, 3), dtype)
    np.testing.assert_array_equal(jax.grad(function)(zero), at_zero)
    np.testing.assert_array_equal(jax.jit(jax.grad(function))(zero), at_zero)
    assert jnp.isfinite(jax.hessian(function)(zero)).all()


def test_derivatives_elsewhere_are_those_of_the_formula():
    A = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3)))
    np.testing.assert_allclose(jax.grad(lambda A: norm(A, axis=None))(A), A / jnp.linalg.norm(A), rtol=1e-6)
    b = jnp.abs(A)
    np.testing.assert_allclose(jax.grad(lambda b: jnp.sum(divide(A, b)))(b), -A / b**2, rtol=1e-6)
    direct = jax.jacobian(lambda A: A / jnp.linalg.norm(A, axis=1, keepdims=True))(A)
    np.testing.assert_allclose(jax.jacobian(unit_rows)(A), direct, atol=1e-6)


def test_all_of_them_under_vmap():
    A = jnp.asarray([[[3.0, 4.0], [0.0, 0.0]], [[0.0, 2.0], [1e-200, 0.0]]])
    for function in (divisor, norm, unit_rows, lambda A: divide(1.0, A)):
        np.testing.assert_array_equal(jax.vmap(function)(A), function(A))
