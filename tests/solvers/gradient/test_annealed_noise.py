"""AnnealedNoise: the transformation in a solver, escapes spurious minima, on every smooth problem."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcvx
from jaxcvx.errors import InvalidInputError
from jaxcvx.networks.objective import TrainingObjective
from jaxcvx.problems.smooth import SmoothProblem
from jaxcvx.problems.teacher_cnn import TeacherCNN
from tests.helpers import gaussian_data, spiral_data

KEY = jax.random.key(7)
RUNS = 24


def _rates(solver, ratio, start=TeacherCNN.initial_params, seed=0):
    """Share of runs that end below 1e-3, and all solutions."""

    def one(key):
        teacher, first, noise = jax.random.split(key, 3)
        problem = TeacherCNN.random(teacher, 25, 6, ratio, jnp.float32)
        return jaxcvx.solve(problem, solver, init=start(problem, first), key=noise)

    solutions = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), RUNS))
    return float((solutions.upper_bound < 1e-3).mean()), solutions


@pytest.mark.float32
def test_escapes_where_gradient_descent_is_trapped():
    plain, _ = _rates(jaxcvx.GradientDescent(optimizer=optax.sgd(0.1), max_steps=8000, check_every=400), 1.0)
    assert 0.2 <= plain <= 0.8
    annealed, solutions = _rates(jaxcvx.AnnealedNoise(), 1.0)
    assert annealed >= 0.9
    assert (solutions.num_steps <= 8000).all() and solutions.lower_bound.max() == 0
    # From the spurious point itself, where every gradient is zero.
    trapped, _ = _rates(jaxcvx.AnnealedNoise(), 1.0, lambda problem, key: problem.spurious_point())
    assert trapped >= 0.6


@pytest.mark.long
@pytest.mark.float32
def test_noise_has_to_be_annealed():
    forever, solutions = _rates(jaxcvx.AnnealedNoise(radius_decay=1.0), 1.0)
    assert forever == 0
    assert (solutions.status == jaxcvx.Status.MAX_STEPS).all()


@pytest.mark.float32
@pytest.mark.long
def test_patience_finds_the_hardest_teachers():
    rate, _ = _rates(jaxcvx.AnnealedNoise.patient(), 0.0)
    assert rate == 1


def _teacher():
    problem = TeacherCNN.random(jax.random.key(0), 9, 4, 1.0)
    return problem, problem.initial_params(KEY)


def test_is_the_transformation():
    problem, params = _teacher()
    solver = jaxcvx.AnnealedNoise(max_steps=30, check_every=10, epoch_length=7)
    lr, decay = jaxcvx.epochwise_geometric(0.1, 0.8, 7), jaxcvx.epochwise_geometric(1.0, 0.4, 7)
    radii = {"w": lambda t: 36 * decay(t), "a": decay}
    tx = jaxcvx.noise_annealed_gd(lr, radii, KEY, type(params)(True, False))
    state, expected = tx.init(params), params
    inner = solver.init(problem, KEY, params)
    for _ in range(30):
        updates, state = tx.update(None, state, expected, grad_fn=jax.grad(problem.objective))
        expected = optax.apply_updates(expected, updates)
        inner = solver.step(problem, inner)
    for mine, theirs in zip(inner.current, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


def test_readings_by_hand():
    problem, params = _teacher()
    noisy = jax.tree.map(lambda x: 3 * x + 0.1, params)
    unit = problem.retract(noisy)
    names = ("tangent", "wn", "angle")
    at = {name: jaxcvx.AnnealedNoise(reading=name)._gradient(problem, noisy, None) for name in names}
    np.testing.assert_allclose(at["tangent"].w, problem.gradient(unit).w, atol=1e-13)
    length = jnp.linalg.norm(noisy.w)
    np.testing.assert_allclose(at["wn"].w, problem.tangent(unit, problem.gradient(unit)).w / length, atol=1e-13)
    np.testing.assert_allclose(at["angle"].w, problem.angle_gradient(noisy).w, atol=1e-13)
    for gradient in at.values():
        np.testing.assert_allclose(gradient.a, at["angle"].a, atol=1e-13)


def test_returns_the_best_iterate_that_a_check_has_seen():
    problem, params = _teacher()
    solver = jaxcvx.AnnealedNoise(max_steps=200, check_every=10, radius_decay=1.0, learning_rate=0.5)
    solution = jaxcvx.solve(problem, solver, init=params, key=KEY)
    np.testing.assert_allclose(solution.objective, solution.history.objective.min(), rtol=1e-12)
    np.testing.assert_allclose(solution.objective, problem.objective(solution.params), rtol=1e-13)
    assert solution.objective == solution.upper_bound
    assert solution.scope == "global" and solution.lower_bound == 0
    np.testing.assert_allclose(jnp.linalg.norm(solution.params.w), 1, rtol=1e-12)


@pytest.mark.long
def test_minibatches_use_the_samples():
    problem, params = _teacher()
    solver = jaxcvx.AnnealedNoise(batch_size=64, max_steps=2000, epoch_length=100, check_every=500)
    solution = jaxcvx.solve(problem, solver, init=params, key=KEY)
    assert solution.objective < 1e-4


@pytest.mark.long
def test_trains_relu_networks_better_than_adam():
    X, Y = spiral_data()
    problem = jaxcvx.make_problem(X, Y, 0.01)

    def share(solver):
        one = lambda key: jaxcvx.solve(problem, solver, key=key).upper_bound  # noqa: E731
        ends = jax.jit(jax.vmap(one))(jax.random.split(KEY, 16)) / 2.5625067 - 1
        assert ends.min() > -1e-7
        return float((ends < 1e-3).mean())

    assert share(jaxcvx.GradientDescent(width=10, max_steps=8000, check_every=400, schedule="cosine")) <= 0.6
    assert share(jaxcvx.AnnealedNoise(width=10, check_every=400)) >= 0.75


def test_solve_of_training_objective_equals_solve_of_problem():
    X, Y = gaussian_data(0, 20, 3)
    problem = jaxcvx.make_problem(X, Y, 0.1)
    solver = jaxcvx.AnnealedNoise(width=12, max_steps=100, epoch_length=10)
    solution = jaxcvx.solve(problem, solver, key=KEY)
    smooth = TrainingObjective(problem, 12)
    same = jaxcvx.solve(smooth, solver, key=KEY)
    np.testing.assert_allclose(same.objective, solution.upper_bound, rtol=1e-9)
    # Radii in units of the weights at the start, unless they are given.
    network = smooth.initial_params(KEY)
    radii = solver.init(problem, KEY, network).radii
    np.testing.assert_allclose(radii.hidden, 0.5 * jnp.linalg.norm(network.hidden), rtol=1e-12)
    given = dataclasses.replace(solver, radius={"hidden": 0.2, "output": 0.0}).init(problem, KEY, network).radii
    assert (float(given.hidden), float(given.output)) == (0.2, 0.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ripples(SmoothProblem):
    """``x^2 / 2 + 1 - cos(5 x)`` in every coordinate: local minima on the slopes of a bowl."""

    start: jax.Array

    def objective(self, params):
        return jnp.sum(params**2 / 2 + 1 - jnp.cos(5 * params))

    def initial_params(self, key):
        return self.start


def test_climbs_over_ripples():
    problem = Ripples(jnp.array([2.4]))
    options = {"max_steps": 2000, "optimizer": optax.sgd(0.01)}
    plain = jaxcvx.solve(problem, jaxcvx.GradientDescent(**options))
    noisy = jaxcvx.AnnealedNoise(radius=1.5, epoch_length=200, radius_decay=0.5, **options)
    smoothed = jaxcvx.solve(problem, noisy, key=KEY)
    assert plain.objective > 1 and smoothed.objective < 1e-2
    still = jaxcvx.solve(problem, jaxcvx.AnnealedNoise(radius=0.0, **options), key=KEY)
    np.testing.assert_allclose(still.objective, plain.objective, rtol=1e-6)
    assert still.converged


def test_stationary_starts_do_not_stop_the_noise():
    problem = Ripples(jnp.zeros(2))
    solution = jaxcvx.solve(problem, jaxcvx.AnnealedNoise(max_steps=400, radius=1.0), key=KEY)
    assert solution.num_steps == 400 and solution.objective == 0


@pytest.mark.parametrize(
    "changes, name",
    [
        ({"reading": "x"}, "reading"),
        ({"noise": "x"}, "noise"),
        ({"radius": -1.0}, "radius"),
        ({"radius": {"w": 1.0}}, "radius"),
        ({"radius_decay": 1.5}, "radius_decay"),
        ({"learning_rate_decay": 0.0}, "learning_rate_decay"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"epoch_length": 0}, "epoch_length"),
        ({"reading": "angle", "batch_size": 4}, "batch_size"),
    ],
)
def test_bad_settings_are_named(changes, name):
    problem, params = _teacher()
    with pytest.raises(InvalidInputError, match=name):
        jaxcvx.solve(problem, jaxcvx.AnnealedNoise(**changes), init=params, key=KEY)


def test_key_and_teacher_are_asked_for():
    problem, params = _teacher()
    with pytest.raises(InvalidInputError, match="key"):
        jaxcvx.solve(problem, jaxcvx.AnnealedNoise(), init=params)
    with pytest.raises(InvalidInputError, match="reading.*Ripples"):
        jaxcvx.solve(Ripples(jnp.ones(1)), jaxcvx.AnnealedNoise(reading="angle"), key=KEY)
