"""Observed entries in slots: against dense matrices, however the places are spread."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.operators.entries import observe_entries

SHAPE = (30, 20)
RNG = np.random.default_rng(0)
FACTORS = [RNG.standard_normal((d, 3)) for d in (*SHAPE, *SHAPE)]


def factors():
    """L, R, P, Q, made inside a test, so in its precision."""
    return map(jnp.asarray, FACTORS)


def places(kind):
    rng = np.random.default_rng(1)
    observed = rng.random(SHAPE) < (0.2 if kind == "even" else 0.05)
    if kind == "skewed":
        observed[3], observed[:, 5], observed[7:12] = True, False, False
    rows, cols = np.nonzero(observed)
    order = rng.permutation(len(rows))
    return rows[order], cols[order]


@pytest.fixture(params=["even", "skewed", "traced"])
def observed(request):
    rows, cols = places(request.param)
    observe = jax.jit(lambda r, c: observe_entries(r, c, SHAPE)) if request.param == "traced" else observe_entries
    return (rows, cols, observe(rows, cols) if request.param == "traced" else observe(rows, cols, SHAPE))


@pytest.mark.routine(2)
def test_entries_and_products(observed):
    (rows, cols, entries), (L, R, _P, _Q) = observed, factors()
    np.testing.assert_allclose(entries.collect(entries.apply(L, R)), (L @ R.T)[rows, cols])
    weights = np.random.default_rng(2).standard_normal(len(rows))
    dense = np.zeros(SHAPE)
    dense[rows, cols] = weights
    z = entries.spread(jnp.asarray(weights))
    np.testing.assert_allclose(entries.times(z, R), dense @ R, atol=1e-12)
    np.testing.assert_allclose(entries.transposed_times(z, L), dense.T @ L, atol=1e-12)
    np.testing.assert_allclose(entries.adjoint(z), dense)
    for got, expected in zip(entries.places(), (rows, cols), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.routine(2)
def test_line(observed):
    (rows, cols, entries), (L, R, P, Q) = observed, factors()
    z, a, b = (entries.collect(x) for x in entries.line(L, R, P, Q))
    for t in (0.0, 1.0, -0.7):
        expected = ((L + t * P) @ (R + t * Q).T)[rows, cols]
        np.testing.assert_allclose(z + t * (a + t * b), expected, atol=1e-12)


@pytest.mark.routine(2)
def test_derivatives_of_first_and_second_order(observed):
    (rows, cols, entries), (L, R, P, Q) = observed, factors()

    def ours(factors):  # not zero in empty slots, so these must be left out
        return jnp.sum(jnp.sin(entries.apply(*factors)))

    def dense(factors):
        return jnp.sum(jnp.sin((factors[0] @ factors[1].T)[rows, cols]))

    for got, expected in zip(jax.grad(ours)((L, R)), jax.grad(dense)((L, R)), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12)
    got, expected = (jax.jvp(jax.grad(f), ((L, R),), ((P, Q),))[1] for f in (ours, dense))
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-12)


@pytest.mark.routine(2)
def test_only_some_places(observed):
    (rows, cols, entries), (L, R, _, _) = observed, factors()
    kept = np.arange(len(rows)) % 3 > 0
    some = entries.only(jnp.asarray(kept))
    X, dense = np.asarray(L @ R.T), np.zeros(SHAPE)
    dense[rows[kept], cols[kept]] = X[rows[kept], cols[kept]]
    z = some.apply(L, R)
    np.testing.assert_allclose(some.times(z, R), dense @ R, atol=1e-12)
    np.testing.assert_allclose(some.transposed_times(z, L), dense.T @ L, atol=1e-12)
    np.testing.assert_allclose(some.mean_square(), kept.sum() / X.size)


def test_memory_follows_the_number_of_places():
    """One full row and column, and little else: equal rows would take 2000 x 2000 slots."""
    d = 2000
    rows = np.concatenate([np.zeros(d, int), np.arange(1, d), np.arange(1, d)])
    cols = np.concatenate([np.arange(d), np.zeros(d - 1, int), np.arange(1, d)])
    entries = observe_entries(rows, cols, (d, d))
    assert entries.by_rows.index.size < 10 * len(rows)
    z = entries.apply(jnp.ones((d, 1)), jnp.ones((d, 1)))
    np.testing.assert_array_equal(entries.times(z, jnp.ones((d, 1)))[:, 0], np.bincount(rows, minlength=d))
