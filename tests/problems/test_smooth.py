"""SmoothProblem: a subclass with two methods is enough, and the defaults of the others change nothing."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.errors import InvalidInputError
from jaxcvx.problems.smooth import SmoothProblem


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bowl(SmoothProblem):
    """``1/2 ||w - center||^2``."""

    center: jax.Array

    def objective(self, params):
        return 0.5 * jnp.sum((params - self.center) ** 2)

    def initial_params(self, key):
        return jnp.zeros_like(self.center)


@dataclasses.dataclass(frozen=True)
class Circle(Bowl):
    """The same on the unit sphere."""

    def sphere(self, params):
        return True


CENTER = jnp.array([3.0, 4.0])


def test_gradient_descent_solves_it():
    solution = jaxcvx.solve(Bowl(CENTER), jaxcvx.GradientDescent(max_steps=2000), key=jax.random.key(0))
    np.testing.assert_allclose(solution.params, CENTER, atol=1e-3)
    assert solution.lower_bound == -np.inf and solution.network is None


def test_defaults_change_nothing():
    bowl, params = Bowl(CENTER), jnp.array([1.0, 2.0])
    assert bowl.project(params) is params and bowl.adopt(params) is params
    assert bowl.sphere(params) is None and bowl.default_optimizer() is None
    np.testing.assert_array_equal(bowl.tangent(params, CENTER), CENTER)
    np.testing.assert_array_equal(bowl.retract(params), params)
    assert bowl.dtype == CENTER.dtype and bool(bowl.is_valid()) and not bool(Bowl(CENTER * jnp.nan).is_valid())


def test_spheres_project_gradients_and_scale_params():
    circle, params = Circle(CENTER), jnp.array([1.0, 0.0])
    np.testing.assert_allclose(circle.tangent(params, CENTER), [0.0, 4.0], atol=1e-12)
    np.testing.assert_allclose(circle.retract(CENTER), CENTER / 5, atol=1e-12)


def test_batches_are_refused_without_samples():
    with pytest.raises(InvalidInputError, match="^batch_size: got 3, expected None: Bowl"):
        Bowl(CENTER).sampled_objective(CENTER, jax.random.key(0), 3)
