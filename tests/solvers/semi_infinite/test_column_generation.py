"""ColumnGeneration against reference optima, Clarabel's lower bounds, closed forms, and Adam runs."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import (
    ColumnGeneration,
    Dense,
    GradientDescent,
    Network,
    Status,
    certify,
    enumerate_arrangements,
    make_problem,
    sample_arrangements,
    solve,
    training_objective,
)
from jaxcvx.datasets import spiral
from jaxcvx.errors import InvalidInputError, InvalidTypeError
from tests.helpers import adam_objectives, cone_optimum, gaussian_data, network_value, targets_for

TIGHT = ColumnGeneration(tol=1e-8, width=32, move_steps=100, moves=2, rounds=4)


def one_hot_instance() -> tuple[np.ndarray, np.ndarray]:
    """The instance n=10, d=4, c=4 on which the doubly non-negative relaxation is not exact."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((10, 4))
    rng.standard_normal((4, 20)), rng.standard_normal((20, 4))
    return X, np.eye(4)[rng.integers(0, 4, 10)]


def planted_instance() -> tuple[np.ndarray, np.ndarray]:
    """n=25, d=2, c=5 from a planted network of 100 neurons."""
    rng = np.random.default_rng(1)
    X, U, V = rng.standard_normal((25, 2)), rng.standard_normal((2, 100)), rng.standard_normal((100, 5))
    return X, np.maximum(X @ U, 0) @ V


def spiral_instance(per_arm: int) -> tuple[np.ndarray, np.ndarray]:
    """Three arms, one-hot targets."""
    X, arm = spiral(per_arm)
    return X, np.eye(3)[arm]


REFERENCES = {
    "spiral 12": (spiral_instance(4), 0.1, 4.157960, 5e-7),
    "spiral 60": (spiral_instance(20), 0.1, 17.3710526, 5e-8),
    "planted": (planted_instance(), 0.1, 7.014525, 5e-7),
    "one-hot": (one_hot_instance(), 0.3, 1.7792828, 5e-8),
}


@pytest.mark.routine("spiral 60")
@pytest.mark.parametrize("name", REFERENCES)
def test_reference_optima(name):
    (X, Y), beta, value, digits = REFERENCES[name]
    solution = solve(make_problem(X, Y, beta, arrangements=enumerate_arrangements(X)), TIGHT)
    assert solution.status == Status.CONVERGED and solution.scope == "global"
    assert 0 <= solution.gap <= 1e-7 and solution.program_gap == solution.gap
    assert solution.upper_bound == pytest.approx(value, abs=digits + 1e-7 * value)
    assert solution.lower_bound <= solution.upper_bound
    network = solution.network
    assert network.width <= Y.size + 1
    own = network_value(np.asarray(network.hidden), np.asarray(network.output), X, Y, beta)
    assert solution.upper_bound == pytest.approx(own, rel=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("d", [2, 3])
def test_scalar_optimum_equals_that_of_clarabel(d):
    X, Y = gaussian_data(d, 9, d)
    cells = enumerate_arrangements(X)
    solution = solve(make_problem(X, Y, 0.3, arrangements=cells), TIGHT)
    optimum = cone_optimum(X, cells.masks, Y, 0.3)
    assert solution.upper_bound == pytest.approx(optimum, rel=1e-7)
    assert solution.lower_bound <= optimum * (1 + 1e-7)


@pytest.mark.long
def test_few_cells_are_enumerated_also_with_a_bias():
    X, Y = gaussian_data(5, 12, 1, 2)
    solution = solve(make_problem(X, Y, 0.2, features=Dense(bias=True)), TIGHT)
    assert solution.scope == "global" and solution.gap <= 1e-7
    Z = np.concatenate([X, np.ones((12, 1))], axis=1)
    assert solution.lower_bound <= adam_objectives(Z, Y, 0.2, runs=10).min()


def test_another_loss_to_its_optimum():
    X, raw = gaussian_data(6, 10, 2, 3)
    labels = targets_for("softmax", raw)
    solution = solve(make_problem(X, labels, 0.3, loss="softmax"), ColumnGeneration(tol=1e-5, width=32))
    assert solution.scope == "global" and solution.gap <= 1e-4
    run = solve(
        make_problem(X, labels, 0.3, loss="softmax"),
        GradientDescent(width=30, max_steps=3000, schedule="cosine"),
        key=jax.random.key(1),
    )
    assert solution.lower_bound <= run.upper_bound
    assert solution.upper_bound <= run.upper_bound * (1 + 1e-5)


def test_a_bound_over_sampled_cells_has_their_scope():
    X, Y = gaussian_data(7, 12, 3)
    cells = sample_arrangements(jax.random.key(0), X, 10)
    solution = solve(make_problem(X, Y, 0.3, arrangements=cells), ColumnGeneration(pricing="exact", width=16))
    assert solution.scope == "sampled-cells"
    everything = certify(solution.network, X, Y, 0.3, arrangements=enumerate_arrangements(X))
    assert everything.lower <= solution.upper_bound
    assert solution.lower_bound <= solution.upper_bound


@pytest.fixture(scope="module")
def heuristic():
    with jax.enable_x64(True):
        X, Y = gaussian_data(8, 60, 6)
        problem = make_problem(X, Y, 3.0)
        solver = ColumnGeneration(
            pricing="multistart", width=32, max_steps=8, moves=2, rounds=2, num_starts=32, final_starts=512
        )
        return problem, solver, solve(problem, solver, key=jax.random.key(3))


def test_multistart_beats_adam_and_has_no_proved_bound(heuristic):
    problem, _, solution = heuristic
    assert solution.scope == "heuristic" and solution.lower_bound == -np.inf and solution.gap == np.inf
    X, Y = np.asarray(problem.X), np.asarray(problem.Y)
    assert solution.upper_bound <= adam_objectives(X, Y, 3.0, width=32, runs=10).min() * (1 + 1e-6)
    assert solution.heuristic_bound <= solution.upper_bound
    assert (solution.upper_bound - solution.heuristic_bound) / solution.upper_bound < 0.2
    value = training_objective(solution.network, X, Y, 3.0)
    assert solution.upper_bound == pytest.approx(float(value), rel=1e-12)


def test_the_objective_falls_from_round_to_round(heuristic):
    _, _, solution = heuristic
    objective = np.asarray(solution.history.objective)
    assert len(objective) == solution.num_steps + 1 >= 2
    assert np.all(np.diff(objective) <= 1e-5 * objective[:-1])


def test_same_key_gives_the_same_network(heuristic):
    problem, solver, solution = heuristic
    again = solve(problem, solver, key=jax.random.key(3))
    np.testing.assert_array_equal(again.network.hidden, solution.network.hidden)
    assert again.heuristic_bound == solution.heuristic_bound


@pytest.mark.long
def test_the_result_is_never_worse_than_the_starting_networks(heuristic):
    problem, solver, _ = heuristic
    runs = [solve(problem, GradientDescent(width=20, max_steps=500), key=jax.random.key(seed)) for seed in (0, 1)]
    short = ColumnGeneration(pricing="multistart", max_steps=2, move_steps=100, final_starts=64, num_starts=16)
    from_network = solve(problem, short, init=runs[0].network)
    assert from_network.upper_bound <= runs[0].upper_bound
    from_list = solve(problem, short, init=[run.network for run in runs])
    assert from_list.upper_bound <= max(run.upper_bound for run in runs)


@pytest.mark.long
def test_units_do_not_matter():
    X, Y = gaussian_data(9, 10, 2, 2)
    small = solve(make_problem(X, Y, 0.2), TIGHT)
    large = solve(make_problem(1e6 * X, 1e-5 * Y, 0.2 * 1e6 * 1e-5), TIGHT)
    assert large.upper_bound == pytest.approx(1e-10 * small.upper_bound, rel=1e-6)
    assert large.gap <= 1e-7


def test_callbacks_time_and_rounds_stop(heuristic):
    problem, solver, _ = heuristic
    seen = []
    stopped = solve(problem, solver, callback=lambda info: seen.append(info) or info.step >= 1)
    assert stopped.status == Status.STOPPED and [info.step for info in seen] == [0, 1]
    assert seen[0].solver == "ColumnGeneration" and seen[1].objective <= seen[0].objective
    timed = solve(problem, ColumnGeneration(pricing="multistart", max_seconds=0.0, final_starts=64, width=32))
    assert timed.status == Status.MAX_STEPS and timed.num_steps == 0


@pytest.mark.long
@pytest.mark.float32
def test_float32_ends_at_its_resolution():
    X, Y = (a.astype(np.float32) for a in spiral_instance(4))
    solution = solve(make_problem(X, Y, 0.1, arrangements=enumerate_arrangements(X)), ColumnGeneration(width=32))
    assert solution.network.hidden.dtype == jnp.float32
    assert solution.upper_bound == pytest.approx(4.157960, rel=1e-4)
    assert solution.lower_bound <= 4.157961 and solution.gap <= 1e-4


def test_beta_at_its_maximum_gives_the_zero_network():
    X, Y = gaussian_data(10, 10, 2)
    problem = make_problem(X, Y, 1.0, arrangements=enumerate_arrangements(X))
    top = float(problem.beta_max("network"))
    solution = solve(problem.replace(beta=1.001 * top), TIGHT)
    assert solution.upper_bound == pytest.approx(0.5 * (Y**2).sum(), rel=1e-9) and solution.gap <= 1e-7
    assert float(jnp.abs(solution.network.output).max()) == 0


@pytest.mark.parametrize(
    ("solver", "words"),
    [
        (ColumnGeneration(pricing="guess"), "^pricing: got 'guess'"),
        (ColumnGeneration(width=0), "^width: got 0"),
        (ColumnGeneration(max_seconds=-1.0), "^max_seconds: got -1.0"),
        (ColumnGeneration(move_steps=-1), "^move_steps: got -1"),
    ],
)
def test_bad_settings_are_refused(solver, words):
    with pytest.raises(InvalidInputError, match=words):
        solve(make_problem(*gaussian_data(0, 6, 2), 0.1), solver)


def test_unsupported_problems_are_refused():
    X, Y = gaussian_data(0, 6, 2)
    with pytest.raises(InvalidInputError, match="^loss: got 'hinge'"):
        solve(make_problem(X, np.sign(Y), 0.1, loss="hinge"), ColumnGeneration())
    with pytest.raises(InvalidInputError, match="^features: got a skip"):
        solve(make_problem(X, Y, 0.1, features=Dense(skip=True)), ColumnGeneration())
    with pytest.raises(InvalidInputError, match="^beta: got 0.0"):
        solve(make_problem(X, Y, 0.0), ColumnGeneration())
    with pytest.raises(InvalidInputError, match="^problem: got NaN"):
        solve(make_problem(X, Y, 0.1).replace(Y=jnp.asarray(Y) * jnp.nan), ColumnGeneration())
    with pytest.raises(InvalidTypeError, match="^init: got int"):
        solve(make_problem(X, Y, 0.1), ColumnGeneration(), init=3)
    with pytest.raises(InvalidInputError, match="^init: got weights of lengths"):
        solve(make_problem(X, Y, 0.1), ColumnGeneration(), init=Network(jnp.ones((2, 3)), jnp.ones((2, 1))))


@pytest.mark.long
def test_multistart_continues_in_float64_below_float32_rounding():
    """The loop moves neurons in float32. When this brings no more progress, weights are fitted in float64."""
    X, Y = gaussian_data(5, 20, 3)
    problem = make_problem(X, Y, 0.2)
    exact = solve(problem, TIGHT)
    multistart = ColumnGeneration(
        pricing="multistart", tol=1e-7, width=32, max_steps=40, move_steps=200, num_starts=64, final_starts=256
    )
    heuristic = solve(problem, multistart)
    gap = 1 - heuristic.history.bound[-1] / heuristic.history.objective[-1]
    assert heuristic.status == Status.CONVERGED and heuristic.scope == "heuristic" and gap <= 1e-7
    assert float(heuristic.upper_bound) == pytest.approx(float(exact.upper_bound), rel=1e-5)
    assert heuristic.upper_bound >= exact.lower_bound


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [4, 24])  # few rows: exact pricing over all cells
def test_wide_data_have_the_optimum_of_their_turned_rows(rows, bias):
    X, Y = gaussian_data(3, rows, 60, 1)
    Z = np.asarray(jaxcvx.Dense(bias=bias).matrix(X))
    turned = Z @ np.linalg.qr(Z.T)[0]
    solver = jaxcvx.ColumnGeneration(tol=1e-7, move_steps=20, branch_nodes=10)
    wide = jaxcvx.solve(jaxcvx.make_problem(X, Y, 2.0, features=jaxcvx.Dense(bias=bias)), solver)
    same = jaxcvx.solve(jaxcvx.make_problem(turned, Y, 2.0), solver)
    assert wide.network.hidden.shape[1] == Z.shape[1] and wide.scope == same.scope
    assert float(wide.upper_bound) == pytest.approx(float(same.upper_bound), rel=1e-5)
    assert float(wide.gap if wide.scope == "global" else 0.0) < 1e-6
    again = jaxcvx.solve(jaxcvx.make_problem(X, Y, 2.0, features=jaxcvx.Dense(bias=bias)), solver, init=wide.network)
    assert float(again.upper_bound) <= float(wide.upper_bound) * (1 + 1e-6)


def test_time_hardly_grows_with_the_columns():
    """From 40 to 4000 columns work on n x p arrays grows a hundredfold, but it is none of the time."""
    seconds = {}
    solver = jaxcvx.ColumnGeneration(tol=1e-4, move_steps=20)
    for columns in (40, 4000):
        X, Y = gaussian_data(3, 20, columns, 1)
        problem = jaxcvx.make_problem(X, Y, 10.0)
        for _ in range(2):  # the first time compiles
            began = time.perf_counter()
            jaxcvx.solve(problem, solver, key=jax.random.key(0))
            seconds[columns] = time.perf_counter() - began
    assert seconds[4000] < 10 * seconds[40] + 3
