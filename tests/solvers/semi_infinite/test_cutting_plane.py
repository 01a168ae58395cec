"""CuttingPlane against formulas, linear programs by HiGHS, CVXPY, and the other global solvers."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.optimize import linprog

import jaxcvx
from jaxcvx import (
    CuttingPlane,
    Dense,
    FreeBias,
    GradientDescent,
    Interpolation,
    Status,
    certify,
    fit_whitening,
    load,
    make_problem,
    save,
    solve,
    training_objective,
)
from jaxcvx.analysis.closed_forms import whitened_value
from jaxcvx.errors import InvalidInputError, InvalidTypeError
from tests.helpers import gaussian_data, targets_for

LINE = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), np.array([1.0, -1.0, 1.0, 1.0, -1.0])
NINE = np.linspace(-2, 2, 9)


def random_line(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return rng.standard_normal(n), rng.standard_normal(n)


# Samples, limits on the solver's rounds and neurons, and the value if it is known.
SPLINES = {
    "paper": (*LINE, 4, 4, 8.0),
    "6 points": (*random_line(6), 5, 6, None),
    "10 points": (*random_line(10), 7, 10, None),
    "20 points": (*random_line(20), 10, 20, None),
    "absolute value": (NINE, np.abs(NINE), 8, 2, 2.0),
    "rectifier": (NINE, np.maximum(NINE, 0), 6, 1, 1.0),
    "square": (NINE, NINE**2, 7, 8, 7.0),
}


def spline_value(x: np.ndarray, y: np.ndarray) -> float:
    """Total variation of the spline's slopes, or the sum of the outer slopes; an independent implementation."""
    order = np.argsort(x)
    s = np.diff(y[order]) / np.diff(x[order])
    return float(max(np.abs(np.diff(s)).sum(), abs(s[0] + s[-1])))


def linear_program(x: np.ndarray, y: np.ndarray) -> float:
    """Compute the least l1 norm over all kinks at samples, by HiGHS."""
    gap = x[:, None] - x
    A = np.maximum(np.concatenate([gap, -gap], axis=1), 0)
    columns = np.concatenate([A, -A, np.ones((len(x), 1)), -np.ones((len(x), 1))], axis=1)
    cost = np.r_[np.ones(2 * A.shape[1]), 0, 0]
    return float(linprog(cost, A_eq=columns, b_eq=y, bounds=(0, None), method="highs").fun)


@pytest.mark.routine(2)
@pytest.mark.parametrize("name", SPLINES)
def test_interpolation_on_a_line(name):
    x, y, rounds, neurons, value = SPLINES[name]
    problem = make_problem(x[:, None], y, 1.0, loss="interpolation", features=FreeBias())
    solution = solve(problem, CuttingPlane(tol=1e-8))
    assert solution.status == Status.CONVERGED and solution.scope == "global"
    expected = spline_value(x, y) if value is None else value
    assert spline_value(x, y) == pytest.approx(expected, rel=1e-12)
    assert linear_program(x, y) == pytest.approx(expected, rel=1e-8)
    assert solution.upper_bound == pytest.approx(expected, rel=1e-8)
    assert solution.lower_bound == pytest.approx(expected, rel=1e-8)
    network = solution.network
    assert int(solution.num_steps) <= rounds
    assert network.width <= neurons
    norms = np.linalg.norm(network.hidden[:, :-1], axis=1) * np.linalg.norm(network.output, axis=1)
    assert norms.sum() == pytest.approx(expected, rel=1e-8)
    order = np.argsort(x)
    grid = np.linspace(x.min(), x.max(), 801)
    spline = np.interp(grid, x[order], y[order])
    np.testing.assert_allclose(np.asarray(network(grid[:, None]))[:, 0], spline, atol=1e-10)
    dual = solution.params.dual[:, 0]
    assert dual @ y == pytest.approx(expected, rel=1e-8) and abs(dual.sum()) < 1e-9 * np.abs(dual).sum()
    history = solution.history
    assert (np.diff(history.objective) <= 1e-9 * np.abs(history.objective[:-1])).all()
    assert (np.diff(history.bound) >= 0).all()


def test_the_dual_of_the_papers_example():
    x, y = LINE
    problem = make_problem(x[:, None], y, 1.0, loss="interpolation", features=FreeBias())
    solution = solve(problem, CuttingPlane(tol=1e-9, new_neurons=2))
    np.testing.assert_allclose(solution.params.dual[:, 0], [1, -3, 2, 1, -1], atol=1e-7)
    assert solution.upper_bound == pytest.approx(8, abs=1e-8)
    gap = x[:, None] - x
    prices = np.array([1, -3, 2, 1, -1]) @ np.maximum(np.concatenate([gap, -gap], axis=1), 0)
    assert np.abs(prices).max() == 1  # it is feasible, and its value is 8
    assert int(solution.num_steps) <= 5


def test_a_line_in_several_dimensions_is_one_feature():
    x, y = random_line(8)
    direction = np.array([3.0, 0.0, 4.0])
    X = np.outer(x, direction) + np.array([1.0, 2.0, 3.0])
    line, embedded = (
        solve(make_problem(data, y, 0.3, features=FreeBias()), CuttingPlane(tol=1e-9)) for data in (5 * x[:, None], X)
    )
    assert embedded.upper_bound == pytest.approx(float(line.upper_bound), rel=1e-8)
    assert embedded.scope == "global" and embedded.gap <= 1e-8


@pytest.mark.routine(2)
@pytest.mark.parametrize(
    ("loss", "features"),
    [
        ("squared", FreeBias()),
        ("huber", FreeBias()),
        ("logistic", Dense(bias=True)),
        ("hinge", FreeBias()),
        ("hinge", "dense"),
    ],
)
def test_losses_and_biases_against_gradient_descent_and_certify(loss, features):
    X, Y = gaussian_data(3, 12, 1)
    labels = targets_for(loss, Y)
    problem = make_problem(X, labels, 0.2, loss=loss, features=features)
    solution = solve(problem, CuttingPlane(tol=1e-8))
    assert solution.status == Status.CONVERGED and solution.scope == "global" and 0 <= solution.gap <= 1e-8
    run = solve(problem, GradientDescent(width=20, max_steps=1500, schedule="cosine"), key=jax.random.key(0))
    assert solution.lower_bound <= run.upper_bound
    assert run.upper_bound <= solution.upper_bound * (2 if loss == "hinge" else 1.1)
    assert (run.network.output_bias is None) == (features != FreeBias())
    own = training_objective(solution.network, X, labels, 0.2, loss)
    assert float(own) == pytest.approx(float(solution.upper_bound), rel=1e-12)
    certificate = certify(run.network, X, labels, 0.2, loss=loss)
    assert certificate.scope == "global"
    assert certificate.lower <= solution.upper_bound * (1 + 1e-9)
    assert certificate.upper >= solution.lower_bound


def test_whitened_data_need_two_neurons():
    X, Y = gaussian_data(0, 30, 40)
    X = np.asarray(fit_whitening(X)(X))
    sizes = np.linalg.norm(np.maximum(np.concatenate([Y, -Y], axis=1), 0), axis=0)
    for oracle in ("auto", "cone"):
        solution = solve(make_problem(X, Y, 0.3), CuttingPlane(tol=1e-10, oracle=oracle))
        assert solution.scope == "global" and solution.network.width == 2
        assert solution.upper_bound == pytest.approx(float(whitened_value(sizes, 0.3)), rel=1e-10)
        assert solution.lower_bound == pytest.approx(float(solution.upper_bound), rel=1e-9)


def test_start_from_a_network_and_save(tmp_path):
    x, y = random_line(10)
    problem = make_problem(x[:, None], y, 0.1, features=FreeBias())
    solution = solve(problem, CuttingPlane(tol=1e-9))
    warm = solve(problem.replace(beta=0.11), CuttingPlane(tol=1e-9), init=solution.network)
    cold = solve(problem.replace(beta=0.11), CuttingPlane(tol=1e-9))
    assert warm.num_steps <= cold.num_steps
    assert float(warm.upper_bound) == pytest.approx(float(cold.upper_bound), rel=1e-8)
    save(tmp_path / "solution", solution)
    back = load(tmp_path / "solution")
    np.testing.assert_array_equal(back.network(x[:, None]), solution.network(x[:, None]))
    assert back.network.features == FreeBias() and back.network.output_bias is not None
    np.testing.assert_array_equal(back.params.dual, solution.params.dual)
    seen = []
    stopped = solve(problem, CuttingPlane(), callback=lambda info: seen.append(info) or len(seen) == 2)
    assert stopped.status == Status.STOPPED and [info.step for info in seen] == [0, 1]
    resumed = solve(problem, CuttingPlane(tol=1e-9), init=seen[-1].params)  # from the stopped state
    assert float(resumed.upper_bound) == pytest.approx(float(solution.upper_bound), rel=1e-8)
    with pytest.raises(jaxcvx.InvalidInputError, match="init: got Cuts of shapes"):
        solve(problem.replace(Y=problem.Y[:5], X=problem.X[:5]), CuttingPlane(), init=seen[-1].params)


def test_bad_arguments_are_named():
    X, Y = gaussian_data(0, 6, 2)
    problem = make_problem(X, Y, 0.1)
    with pytest.raises(InvalidInputError, match="^oracle: got 'best'"):
        solve(problem, CuttingPlane(oracle="best"))
    with pytest.raises(InvalidInputError, match="^oracle: got 'cone', expected spike-free rows"):
        solve(problem, CuttingPlane(oracle="cone"))
    with pytest.raises(InvalidInputError, match="^oracle: got 'sweep', expected rows of rank"):
        solve(make_problem(gaussian_data(0, 6, 3)[0], Y, 0.1), CuttingPlane(oracle="sweep"))
    with pytest.raises(InvalidInputError, match="^features: got a skip connection"):
        solve(make_problem(X, Y, 0.1, features=Dense(skip=True)), CuttingPlane())
    with pytest.raises(InvalidInputError, match="^beta: got 0.0"):
        solve(problem.replace(beta=0.0), CuttingPlane())
    with pytest.raises(InvalidInputError, match="^loss: got 'softmax'"):
        solve(make_problem(X, [0, 1, 1, 0, 1, 0], 0.1, loss="softmax").replace(Y=problem.Y), CuttingPlane())
    with pytest.raises(InvalidInputError, match="^problem: got 2 output weights"):
        solve(make_problem(X, np.sign(X), 0.1, loss="hinge"), CuttingPlane())
    with pytest.raises(InvalidInputError, match="^new_neurons: got 0"):
        solve(problem, CuttingPlane(new_neurons=0))
    with pytest.raises(InvalidTypeError, match="^init: got int"):
        solve(problem, CuttingPlane(), init=3)
    with pytest.raises(InvalidInputError, match="^penalty"):
        Interpolation(-1.0)


@pytest.mark.float32
def test_float32_problems_are_solved_in_double():
    x, y = random_line(10)
    problem = make_problem(x[:, None].astype(np.float32), y.astype(np.float32), 0.1, features=FreeBias())
    solution = solve(problem, CuttingPlane(tol=1e-5))
    assert solution.network.hidden.dtype == np.float32 and solution.status == Status.CONVERGED
    assert 0 <= solution.gap <= 1e-5
