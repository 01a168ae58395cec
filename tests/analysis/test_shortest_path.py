"""path_report: lengths by hand, every bound of the theory along gradient descent, and bounds that must fail."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcvx
from experiments.shortest_path import CASES
from experiments.shortest_path import case as compute_case
from jaxcvx.errors import InvalidInputError
from jaxcvx.problems.least_squares import LeastSquares, linear

case = functools.cache(lambda name: compute_case(name, small=True))
SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def test_lengths_by_hand():
    report = jaxcvx.path_report(SQUARE)
    np.testing.assert_allclose(report.distances, [0, 1, 2**0.5, 1])
    np.testing.assert_allclose(report.path_lengths, [0, 1, 2, 3])
    assert float(report.distance) == 1 and float(report.path_length) == 3 and float(report.ratio) == 3
    np.testing.assert_allclose(report.misfits, [1, 2**0.5, 1, 0])
    np.testing.assert_allclose(report.potential, [1, 1 + 2**0.5, 3, 3])
    assert report.bounds == {} and bool(report.holds)


def test_straight_path_has_a_constant_potential():
    report = jaxcvx.path_report(np.linspace(0, 1, 11)[:, None] * np.array([3.0, 4.0]))
    np.testing.assert_allclose(report.potential, 5)
    np.testing.assert_allclose([report.distance, report.path_length], 5)


def test_pytrees_lists_and_arrays_give_the_same_report():
    tree = {"a": SQUARE[:, 0], "b": SQUARE[:, 1:, None]}
    steps = [{"a": x, "b": np.array([[y]])} for x, y in SQUARE]
    for given in (tree, steps, [np.array(s) for s in SQUARE], jnp.asarray(SQUARE)):
        np.testing.assert_allclose(jaxcvx.path_report(given).path_lengths, [0, 1, 2, 3])
    alone = jaxcvx.path_report(SQUARE[:1])
    assert float(alone.distance) == 0 and float(alone.path_length) == 0


def test_misfit_and_potential_with_a_map():
    report = jaxcvx.path_report(SQUARE, lambda t: 2 * t, np.zeros(2), learning_rate=0.05)
    np.testing.assert_allclose(report.misfits, [0, 2, 8**0.5, 2])
    np.testing.assert_allclose([report.alpha, report.beta], 2)
    np.testing.assert_allclose(report.zeta, (1 - 0.05 * 4) * 2 / 2)
    np.testing.assert_allclose(report.potential, report.misfits + report.zeta * np.arange(4))
    assert not bool(report.bounds["monotone"].holds) and not bool(report.holds)


@pytest.mark.routine(2)
@pytest.mark.parametrize("name", [name for name in CASES if name != "low rank, n = dr/8"])
def test_every_bound_holds_along_gradient_descent(name):
    report = case(name).report
    failed = [key for key, bound in report.bounds.items() if not bool(bound.holds)]
    assert not failed
    assert {"potential", "path", "lower", "monotone", "rate"} <= set(report.bounds)
    assert 1 <= float(report.ratio) <= 1.3
    assert float(report.misfits[-1]) < 0.05 * float(report.misfits[0])


def test_linear_regression_lies_between_two_lines():
    report = case("linear").report
    r, d = report.misfits / report.misfits[0], report.distances / report.misfits[0]
    assert (report.alpha * d + r <= 1 + 1e-12).all() and (report.beta * d + r >= 1 - 1e-12).all()


def test_lines_are_attained_by_orthogonal_rows():
    rows = jnp.eye(3, 6) * 2
    problem = LeastSquares(rows, jnp.ones(3), jnp.zeros(6), linear)
    path = jaxcvx.trajectory(problem, jaxcvx.GradientDescent(optimizer=optax.sgd(0.1)), 50)
    report = jaxcvx.path_report(path, problem.outputs, problem.targets, learning_rate=0.1)
    np.testing.assert_allclose(report.misfits + 2 * report.distances, report.misfits[0], rtol=1e-12)
    np.testing.assert_allclose(report.ratio, 1, rtol=1e-12)
    np.testing.assert_allclose(report.bounds["lower"].tightness, 1, rtol=1e-12)


def test_bounds_fail_on_a_detour():
    """A long detour in the path of the linear case keeps the distance, but not the path length and the potential."""
    linear = case("linear")
    far = linear.path[5] + 1e3
    path = jnp.concatenate([linear.path[:5], far[None], linear.path[5:]])
    report = jaxcvx.path_report(
        path, linear.problem.outputs, linear.problem.targets, alpha=linear.report.alpha, beta=linear.report.beta
    )
    assert not any(bool(report.bounds[name].holds) for name in ("potential", "path", "monotone"))
    assert bool(report.bounds["lower"].holds)  # this bound holds for every method


def test_bounds_that_need_the_nearest_optimum():
    linear = case("linear")
    bounds = linear.report.bounds
    assert {"nearest", "contraction", "glm path"} <= set(bounds)
    wrong = jnp.asarray(linear.optimum) + 1.0
    report = jaxcvx.path_report(
        linear.path,
        linear.problem.outputs,
        linear.problem.targets,
        learning_rate=linear.rate,
        optimum=wrong,
        glm=True,
    )
    assert not bool(report.bounds["contraction"].holds)


def test_polyak_lojasiewicz_bounds():
    """Theorems 5.2 and 5.4 for the squared hinge loss on separable data, whose minimum is 0."""
    rng = np.random.default_rng(0)
    X = jnp.asarray(rng.standard_normal((10, 30)))

    def loss(theta):
        return jnp.sum(jax.nn.relu(1 - X @ theta) ** 2) / 2

    smooth = float(jnp.linalg.norm(X, 2)) ** 2

    def step(theta, _):
        return theta - jax.grad(loss)(theta) / smooth, theta

    path = jax.lax.scan(step, jnp.zeros(30), length=301)[1]
    values = jax.vmap(loss)(path)
    slopes = jnp.sum(jax.vmap(jax.grad(loss))(path) ** 2, axis=1)
    mu = float(jnp.min(jnp.where(values > 1e-14, slopes / (2 * values), jnp.inf)))
    report = jaxcvx.path_report(path)
    time = np.arange(301)
    assert (values <= (1 - mu / smooth) ** time * values[0] * (1 + 1e-9)).all()
    line = (mu / 8) ** 0.5 * report.distances + values**0.5
    assert (line <= values[0] ** 0.5 * (1 + 1e-9)).all()
    assert float(report.path_length) <= (8 * float(values[0]) / mu) ** 0.5
    assert float(report.distance) >= (2 * float(values[0] - values[-1]) / smooth) ** 0.5


def test_stochastic_rate():
    """Theorem 3.1: steps on single samples; the mean squared misfit over runs stays below its rate."""
    linear = case("linear")
    problem, report, n = linear.problem, linear.report, linear.problem.num_samples
    rows = jnp.max(jnp.linalg.norm(problem.inputs, axis=1))
    rate = float(report.alpha**2 / (3 * report.beta**2 * rows**2))
    # sampled objectives have a factor n that the steps of the paper do not have
    solver = jaxcvx.GradientDescent(optimizer=optax.sgd(rate / n), batch_size=1)
    keys = jax.random.split(jax.random.key(0), 30)
    paths = jax.vmap(lambda key: jaxcvx.trajectory(problem, solver, 5000, key=key, every=100))(keys)
    squares = jnp.mean(jnp.sum((paths @ problem.inputs.T - problem.targets) ** 2, -1), 0)
    time = 100 * np.arange(51)
    limit = (1 - rate * report.alpha**2 / (2 * n)) ** time * squares[0]
    assert (squares <= limit * (1 + 1e-9)).all() and squares[-1] < 0.9 * squares[0]


def test_works_under_jit_and_in_float32():
    with jax.enable_x64(False):
        report = jax.jit(lambda path: jaxcvx.path_report(path, lambda t: jnp.tanh(t[:1]), jnp.ones(1)))(
            jnp.asarray(SQUARE, jnp.float32)
        )
        assert report.misfits.dtype == jnp.float32
        np.testing.assert_allclose(report.path_lengths, [0, 1, 2, 3])


def test_bad_input_is_named():
    for bad in ([], {"a": SQUARE, "b": SQUARE[:2]}, np.float64(3.0)):
        with pytest.raises(InvalidInputError, match="trajectory"):
            jaxcvx.path_report(bad)
    with pytest.raises(InvalidInputError, match="y"):
        jaxcvx.path_report(SQUARE, lambda t: t)
    with pytest.raises(InvalidInputError, match="glm"):
        jaxcvx.path_report(SQUARE, lambda t: t, SQUARE[0], glm=True)


def test_report_is_a_pytree_and_can_be_saved(tmp_path):
    report = jaxcvx.path_report(SQUARE, lambda t: t, SQUARE[3])
    doubled = jax.tree.map(lambda x: 2 * x, report)
    assert float(doubled.path_length) == 6
    jaxcvx.save(tmp_path / "report", report)
    assert jaxcvx.load(tmp_path / "report").bounds.keys() == report.bounds.keys()
