"""Features of a frozen backbone: batches, unchanged modes and state, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxcvx
from jaxcvx.integrations.flax_features import check_count, run_in_batches
from tests.helpers import gaussian_data


class Backbone(nnx.Module):
    """A module with dropout and batch statistics. Neither may change while it is frozen."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(5, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return jnp.tanh(self.dropout(self.norm(self.linear(x))))


def test_features_are_computed_in_batches_by_a_frozen_copy():
    model = Backbone(nnx.Rngs(0))
    X, _ = gaussian_data(0, 11, 5)
    before = [np.asarray(jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a)
              for a in jax.tree.leaves(nnx.state(model))]  # fmt: skip
    got = jaxcvx.flax.extract_features(model, X, batch_size=4)
    after = [np.asarray(jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a)
             for a in jax.tree.leaves(nnx.state(model))]  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert not model.dropout.deterministic and not model.norm.use_running_average
    model.eval()
    np.testing.assert_allclose(got, model(jnp.asarray(X)), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(jaxcvx.flax.extract_features(lambda x: x[:, :2], X, batch_size=4), X[:, :2])


@pytest.mark.routine(2)
@pytest.mark.parametrize("n, batch_size, shapes", [(11, 4, [4, 4, 3]), (3, 8, [3]), (8, 4, [4, 4])])
def test_callables_get_batches_without_padding(n, batch_size, shapes):
    X, seen = gaussian_data(0, n, 3)[0], []

    def model(x):
        seen.append(len(x))
        return 2 * x

    np.testing.assert_array_equal(run_in_batches(model, X, batch_size), 2 * X)
    assert seen == shapes


def test_only_extract_features_refuses_outputs_that_are_not_finite():
    X = gaussian_data(0, 4, 3)[0]
    assert np.isnan(run_in_batches(lambda x: x * np.nan, X, 4)).all()
    with pytest.raises(jaxcvx.InvalidInputError, match="outputs"):
        jaxcvx.flax.extract_features(lambda x: x * np.nan, X)


@pytest.mark.routine(2)
@pytest.mark.parametrize("value", [0, 2.0, True, "3"])
def test_counts(value):
    check_count("size", np.int64(2))
    with pytest.raises(jaxcvx.InvalidInputError, match="^size: "):
        check_count("size", value)
