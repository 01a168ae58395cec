"""Random keys of both kinds are taken; everything else is refused by name."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.errors import InvalidTypeError
from jaxcvx.numerics.validation import check_key


@pytest.mark.parametrize("key", [jax.random.key(0), jax.random.PRNGKey(1), np.array([3, 4], np.uint32)], ids=str)
def test_one_key_of_either_kind_starts_a_solve(key):
    check_key(key)
    X = np.random.default_rng(0).standard_normal((5, 2))
    problem = jaxcvx.make_problem(X, X[:, :1], 0.1)
    solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(width=2, max_steps=1), key=key)
    same = jaxcvx.solve(problem, jaxcvx.GradientDescent(width=2, max_steps=1), key=jnp.asarray(key))
    assert np.isfinite(solution.objective) and solution.objective == same.objective


def test_traced_keys_pass():
    def draw(key):
        check_key(key)
        return jax.random.normal(key)

    assert jnp.isfinite(jax.vmap(draw)(jax.random.split(jax.random.key(0), 3))).all()


@pytest.mark.parametrize(
    "key",
    [0, 1.5, "key", None, np.array([3, 4]), np.zeros((2, 2), np.uint32), jnp.zeros(2), [1, 2]],
    ids=["int", "float", "str", "none", "int64", "matrix", "floats", "list"],
)
def test_everything_else_is_refused_by_name(key):
    with pytest.raises(InvalidTypeError, match=r"^key: got .*jax.random.key\(0\)"):
        check_key(key)


def test_several_keys_are_not_one():
    with pytest.raises(InvalidTypeError, match="^key: got "):
        check_key(jax.random.split(jax.random.key(0), 2))
