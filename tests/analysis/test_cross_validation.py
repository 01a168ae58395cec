"""Cross-validation along a path: its scores are those of a plain loop, folds are weights, betas keep their meaning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics
from sklearn.model_selection import KFold

import jaxcvx
from jaxcvx.analysis import cross_validation
from jaxcvx.analysis.folds import Folds, make_folds
from tests.helpers import gaussian_data, network_value

SOLVER = jaxcvx.ColumnGeneration(width=32)
DENSE = jaxcvx.Dense(bias=True)
BETAS = np.array([3.0, 1.0, 0.3])


def curve(n=30, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, 2))
    return X, np.abs(X[:, 0]) + 0.1 * rng.standard_normal(n)


@pytest.fixture(scope="module")
def result():
    with jax.enable_x64(True):
        X, y = curve()
        return jaxcvx.cross_validate(X, y, betas=BETAS, folds=3, solver=SOLVER, features=DENSE)


def at(networks, *index):
    return jax.tree.map(lambda a: jnp.asarray(a[index]), networks)


def test_scores_equal_a_plain_loop(result):
    X, y = curve()
    for fold in range(3):
        for k in range(3):
            network = at(result.networks, fold, k)
            Z = np.c_[X, np.ones(30)]
            F = np.maximum(Z @ np.asarray(network.hidden).T, 0) @ np.asarray(network.output)
            for weights, scores in ((result.train_weights, result.train_scores), (result.test_weights, result.scores)):
                rows = weights[fold] > 0
                np.testing.assert_allclose(scores[fold, k], metrics.r2_score(y[rows], F[rows, 0]), rtol=1e-9)
    np.testing.assert_allclose(result.mean, result.scores.mean(axis=0))
    np.testing.assert_allclose(result.standard_error, result.scores.std(axis=0, ddof=1) / 3**0.5)
    assert result.best == np.argmax(result.mean) and result.scoring == "r2"


def test_the_networks_of_a_fold_are_trained_on_its_share(result):
    """They are optimal for the left samples at ``beta * n_f / n``: no worse than the path on these samples alone."""
    X, y = curve()
    for fold in range(3):
        rows = result.train_weights[fold] > 0
        betas = BETAS * rows.sum() / 30
        problem = jaxcvx.make_problem(X[rows], y[rows], 1.0, features=DENSE)
        alone = jaxcvx.regularization_path(problem, betas, SOLVER)
        for k in range(3):
            network = at(result.networks, fold, k)
            Z = np.c_[X[rows], np.ones(rows.sum())]
            value = network_value(network.hidden, network.output, Z, y[rows, None], betas[k], "squared")
            assert value == pytest.approx(float(alone.upper_bound[k]), rel=5e-3)  # folds take fewer rounds


def test_the_path_is_that_of_all_data(result):
    X, y = curve()
    for k, beta in enumerate(BETAS):
        network = at(result.path.network, k)
        value = network_value(network.hidden, network.output, np.c_[X, np.ones(30)], y[:, None], beta, "squared")
        np.testing.assert_allclose(result.path.upper_bound[k], value, rtol=1e-9)
    np.testing.assert_array_equal(result.betas, BETAS)
    best = result.network()
    np.testing.assert_allclose(best(X), at(result.path.network, int(result.best))(X), atol=1e-12)
    assert best.width == result.path.num_neurons[result.best]


def test_the_rules():
    def chosen(scores, betas=(4.0, 2.0, 1.0, 0.5)):
        path = jaxcvx.Solution(*[None] * 11, betas=np.array(betas))
        scores = np.array(scores)
        made = cross_validation.summarise(path, None, Folds(scores, scores), scores, scores, "")
        return made.best, made.one_standard_error, made.index("one_standard_error")

    spread = np.array([[-1.0], [1.0]])  # a standard error of 1
    assert chosen([0.0, 1.5, 2.0, 1.0] + spread) == (2, 1, 1)
    assert chosen([0.0, 1.5, 2.0, 1.0] + 0.1 * spread) == (2, 2, 2)
    assert chosen([0.0, 2.0, 2.0, 2.0] + 0.1 * spread) == (1, 1, 1)  # of equal ones the largest beta
    assert chosen([2.0, 1.5, 2.0, 1.0] + spread, betas=(0.5, 1.0, 2.0, 4.0)) == (2, 3, 3)  # in any order
    assert chosen([np.nan, 1.5, -np.inf, 1.0] + 0 * spread) == (1, 1, 1)
    assert chosen([[0.0, 1.0, 2.0, 1.0]]) == (2, 2, 2)  # one fold has no standard error


def test_the_result_is_a_pytree(result):
    doubled = jax.tree.map(lambda a: 2 * a, result)
    np.testing.assert_array_equal(doubled.scores, 2 * result.scores)
    assert doubled.scoring == "r2"


@pytest.mark.routine("logistic")
@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_classes(loss):
    X, _ = gaussian_data(1, 36, 2)
    labels = (X[:, 0] * X[:, 1] > 0).astype(int)
    options = {"loss": loss, "betas": [1.0, 0.3], "folds": 3, "solver": SOLVER, "features": DENSE}
    right = jaxcvx.cross_validate(X, labels, **options)
    assert right.scoring == "accuracy" and right.scores.shape == (3, 2)
    counts = (right.test_weights > 0) @ np.eye(2)[labels]
    assert (np.ptp(counts, axis=0) <= 1).all()

    def share(Y, F):
        assert Y.shape == F.shape == ((24, 2) if Y.shape[0] == 24 else (12, 2)) if loss == "softmax" else (len(Y), 1)
        found = F.argmax(axis=1) if loss == "softmax" else F[:, 0] > 0
        return jnp.mean(found == (Y.argmax(axis=1) if loss == "softmax" else Y[:, 0] > 0))

    own = jaxcvx.cross_validate(X, labels, scoring=share, **options)
    np.testing.assert_allclose(own.scores, right.scores)
    np.testing.assert_allclose(own.train_scores, right.train_scores)
    logs = jaxcvx.cross_validate(X, labels, scoring="neg_log_loss", **options)
    rows = logs.test_weights[1] > 0
    F = np.asarray(at(logs.networks, 1, 1)(X))[rows]
    F = F if loss == "softmax" else np.c_[-F / 2, F / 2]
    chances = np.exp(F) / np.exp(F).sum(axis=1, keepdims=True)
    assert logs.scores[1, 1] == pytest.approx(-metrics.log_loss(labels[rows], chances), rel=1e-6)


def test_folds_of_scikit_learn_and_weights():
    """Weights 2 are repetitions: the folds' networks are as good for the repeated samples as those trained on them."""
    X, y = curve(20)
    weight = np.random.default_rng(1).permutation(np.repeat([1, 2], 10))
    pairs = list(KFold(3).split(X))
    again = np.repeat(np.arange(20), weight)
    repeated = [tuple(np.flatnonzero(np.isin(again, part)) for part in pair) for pair in pairs]
    options = {"betas": BETAS, "solver": SOLVER, "features": DENSE}
    weighted = jaxcvx.cross_validate(X, y, folds=pairs, sample_weight=weight, **options)
    plain = jaxcvx.cross_validate(X[again], y[again], folds=repeated, **options)
    values = np.empty((2, 3, 3))
    for which, fold, k in np.ndindex(values.shape):
        network, rows = at((weighted, plain)[which].networks, fold, k), again[repeated[fold][0]]
        Z, beta = np.c_[X[rows], np.ones(len(rows))], BETAS[k] * len(rows) / 30
        values[which, fold, k] = network_value(network.hidden, network.output, Z, y[rows, None], beta, "squared")
    np.testing.assert_allclose(values[0, :, :2], values[1, :, :2], rtol=2e-3)
    np.testing.assert_allclose(values[0], values[1], rtol=3e-2)  # at the smallest beta they may be other local optima
    np.testing.assert_allclose(weighted.scores[:, 0], plain.scores[:, 0], atol=3e-3)
    np.testing.assert_allclose(weighted.path.upper_bound, plain.path.upper_bound, rtol=1e-5)
    np.testing.assert_array_equal(weighted.test_weights, np.where(weighted.train_weights > 0, 0, weight))


@pytest.mark.long
def test_more_neurons_than_slots(monkeypatch):
    """Folds whose pools are full are run again with twice the capacity."""
    capacities = []
    compiled = cross_validation._follow_folds

    def follow(problem, betas, train, start, *rest):
        capacities.append(len(start.pool.weights))
        return compiled(problem, betas, train, start, *rest)

    monkeypatch.setattr(cross_validation, "_follow_folds", follow)
    monkeypatch.setattr(cross_validation, "_one_after_the_other", cross_validation._together)
    X, Y = gaussian_data(0, 24, 3)
    problem = jaxcvx.make_problem(X, Y, 1.0, features=DENSE)
    parts = make_folds(2, problem.Y, problem.loss, np.ones(24), jax.random.key(0))
    solver = jaxcvx.ColumnGeneration(width=4, move_steps=5, moves=1, rounds=3)
    top = float(solver.largest_beta(problem, None))
    # At this beta there are few neurons on all data. Larger weights in the folds stand for smaller betas.
    heavy = Folds(8 * parts.train, parts.test)
    monkeypatch.setattr(Folds, "shares", lambda self, weight: np.ones(2))
    path = jaxcvx.regularization_path(problem, [0.9 * top], solver)
    networks = cross_validation.fit_folds(problem, path, heavy, solver, jax.random.key(0))
    assert path.num_neurons[0] < 4 and capacities[:2] == [4, 8]
    assert networks.hidden.shape == (2, 1, capacities[-1], 4)
    used = (np.abs(networks.output) > 0).any(axis=-1).sum(axis=-1)
    assert capacities[0] <= used.max() < capacities[-1]


@pytest.mark.parametrize(
    "options, error, match",
    [
        ({"scoring": "accuracy"}, jaxcvx.InvalidInputError, "scoring: got 'accuracy'"),
        ({"scoring": lambda Y, F: (Y - F)[:, 0]}, jaxcvx.InvalidInputError, "scoring: got a function with values"),
        ({"scoring": lambda Y, F: float(Y[0, 0])}, jaxcvx.InvalidTypeError, "scoring: got a function that needs"),
        ({"folds": 30}, jaxcvx.InvalidInputError, "folds: got a fold that leaves out one sample"),
        ({"folds": 1}, jaxcvx.InvalidInputError, "folds: got 1"),
        ({"solver": jaxcvx.FrankWolfe()}, jaxcvx.InvalidTypeError, "solver: got FrankWolfe"),
        ({"betas": [-1.0]}, jaxcvx.InvalidInputError, "betas"),
        ({"betas": 0}, jaxcvx.InvalidInputError, "betas"),
        ({"key": 3}, jaxcvx.InvalidTypeError, "key"),
        ({"loss": "hinge"}, jaxcvx.InvalidInputError, "loss"),
        ({"sample_weight": np.zeros(30)}, jaxcvx.InvalidInputError, "sample_weight"),
    ],
)
def test_errors(options, error, match):
    X, y = curve()
    y = np.sign(y - y.mean()) if options.get("loss") == "hinge" else y
    with pytest.raises(error, match=match):
        jaxcvx.cross_validate(X, y, **({"betas": BETAS, "folds": 3, "solver": SOLVER, "features": DENSE} | options))


def test_traced_data():
    X, y = curve(12)
    with pytest.raises(jaxcvx.InvalidTypeError, match="cross_validate: got traced arrays"):
        jax.jit(lambda X: jaxcvx.cross_validate(X, y).scores)(X)


def test_the_folds_together_equal_one_after_the_other(result, monkeypatch):
    """On accelerators the folds run under vmap."""
    monkeypatch.setattr(cross_validation, "_one_after_the_other", cross_validation._together)
    X, y = curve()
    other = jaxcvx.cross_validate(X, y, betas=BETAS, folds=3, solver=SOLVER, features=DENSE)
    np.testing.assert_allclose(other.scores[:, :2], result.scores[:, :2], atol=2e-3)
    # Rounding errors differ. At the smallest beta they may lead to other networks of nearly the same objective.
    np.testing.assert_allclose(other.train_scores, result.train_scores, atol=2e-2)


def test_a_weight_of_zero_equals_the_data_without_the_samples():
    """The global optimum is unique and reached to rounding in float64, with all samples or only those that count."""
    X, y = curve(20)
    kept = np.arange(20) % 4 > 0
    whole = jaxcvx.make_problem(X, y, 1.0, features=jaxcvx.Dense(bias=True, output_bias=True), sample_weight=kept)
    part = whole.samples(kept).replace(sample_weight=None)
    betas = np.array([2.0, 1.0, 0.5])
    paths = [jaxcvx.regularization_path(problem, betas, SOLVER) for problem in (whole, part)]
    assert paths[0].num_neurons[-1] > 1
    np.testing.assert_allclose(paths[0].upper_bound, paths[1].upper_bound, rtol=1e-8)
