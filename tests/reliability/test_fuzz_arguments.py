"""Arguments of any shape, dtype and value: an answer, or one error of the library that names what is wrong."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import jaxcvx
from jaxcvx import Arrangements, Network, ProximalGradient
from jaxcvx.certificates.beta_max import beta_max
from tests.reliability.inputs import Counts, anything, odd_betas, seeds

LOSSES = st.sampled_from(
    ["squared"] * 8 + ["logistic", "softmax", "huber", "hinge", "interpolation", "nope", None, 3, jaxcvx.Huber(0.5)]
)
FEATURES = st.sampled_from(
    ["dense"] * 6
    + [jaxcvx.Dense(bias=True), jaxcvx.Dense(skip=True), jaxcvx.FreeBias(), "x", None]
    + [jaxcvx.ConvPool((2,)), jaxcvx.ConvFlatten((1,))]
)
NUMBERS = st.sampled_from([0, 1, 3, 7, -1, 2.5, None, "3", True, np.int64(4), 10**6])
KEYS = [None, 3, "key", jax.random.key, np.zeros(2), [1, 2]]


def settings_for(examples: int) -> settings:
    return settings(
        max_examples=examples, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate]
    )


def fit_rows(X: Any, Y: Any) -> Any:
    """Y with as many rows as X, where both are arrays: else nearly all pairs are refused for that alone."""
    if all(isinstance(a, np.ndarray) and a.ndim and a.size for a in (X, Y)):
        return np.resize(Y, (len(X), *Y.shape[1:]))
    return Y


def ask_everything(counts: Counts, X: Any, Y: Any, beta: Any, loss: Any, features: Any, seed: int, num: Any) -> None:
    """One input, given to all that takes arrays."""
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Y = fit_rows(X, Y) if seed % 2 else Y
        problem = counts.call(jaxcvx.make_problem, X, Y, beta, loss=loss, features=features)
        if problem is not None:
            assert all(bool(jnp.isfinite(a).all()) for a in (problem.X, problem.Y, problem.beta))
        limit = 500 if seed % 3 else num
        cells = counts.call(jaxcvx.enumerate_arrangements, X, features=features, max_cells=limit)
        if cells is not None:
            assert cells.complete and len(np.unique(np.asarray(cells.masks), axis=0)) == len(cells)
        key = KEYS[rng.integers(len(KEYS))] if seed % 5 == 0 else jax.random.key(seed)
        method = ("gaussian", "data", "conv", "x")[rng.integers(4)]
        count = num if seed % 5 == 1 and num != 10**6 else 3
        drawn = counts.call(jaxcvx.sample_arrangements, key, X, count, method=method, features=features)
        counts.call(jaxcvx.merge_arrangements, cells if seed % 3 else X, drawn)

        own, two = Network(X, Y), Network(np.ones((2, 2)), np.ones((2, 1)))
        three = np.ones((3, 2))
        calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
            (jaxcvx.arrangements_of, (own, Y), {}),
            (jaxcvx.arrangements_of, (two, X), {}),
            (jaxcvx.arrangements_of, (X, X), {}),
            (jaxcvx.training_objective, (own, X, Y, beta, loss), {}),
            (jaxcvx.training_objective, (two, X, Y, beta, loss), {}),
            (jaxcvx.training_objective, (two, three, Y, beta, loss), {}),
            (jaxcvx.certify, (own, three, Y, beta), {"loss": loss}),
            (jaxcvx.certify, (X, X, Y, beta), {"loss": loss}),
            (jaxcvx.certify, (two, X, Y, beta), {"method": "x", "loss": loss}),
            (jaxcvx.certify, (two, three, np.ones(3), 0.1), {"arrangements": Arrangements(X, Y)}),
            (jaxcvx.polish, (own, three, Y, beta), {}),
            (jaxcvx.polish, (X, three, Y, beta), {}),
            (jaxcvx.make_problem, (three, np.ones(3), 0.1), {"arrangements": Arrangements(X, Y)}),
            (jaxcvx.make_problem, (three, np.ones(3), 0.1), {"arrangements": X}),
            (beta_max, (X,), {}),
            (jaxcvx.solve, (X, ProximalGradient()), {}),
            (jaxcvx.solve, (problem, X), {}),
            (jaxcvx.regularization_path, (X, [1.0], ProximalGradient()), {}),
            (jaxcvx.regularization_path, (problem, X, X), {}),
            (jaxcvx.MatrixSensing, (X, Y, num), {}),
            (jaxcvx.MatrixCompletion, (X, Y, Y, (3, 3), num), {}),
            (jaxcvx.MatrixCompletion, ([0, 1], [0, 1], [1.0, 2.0], X if seed % 3 else (num, 3), num), {}),
            (jaxcvx.MatrixCompletion, ([0, 1], [0, 1], Y, (3, 3), 1), {"row_bound": beta}),
            (jaxcvx.OneBitCompletion, (X, Y, Y, (3, 3), num), {}),
            (jaxcvx.OneBitCompletion, ([0, 1], [0, 1], [1.0, -1.0], (3, 3), 1), {"scale": beta, "row_bound": 1.0}),
            (jaxcvx.OneBitCompletion, ([0, 1], [0, 1], [1.0, -1.0], (3, 3), 1), {"row_bound": X}),
        ]
        for k in rng.permutation(len(calls))[:8]:
            function, arguments, options = calls[k]
            counts.call(function, *arguments, **options)
        if problem is not None:
            counts.call(beta_max, problem, num)


def run(examples: int) -> None:
    counts = Counts()

    @settings_for(examples)
    @given(anything(), anything(), odd_betas, LOSSES, FEATURES, seeds, NUMBERS)
    def ask(X, Y, beta, loss, features, seed, num):
        ask_everything(counts, X, Y, beta, loss, features, seed, num)

    ask()
    counts.report("arguments of every kind")


def test_arguments_of_every_kind():
    run(60)


@pytest.mark.float32
def test_arguments_of_every_kind_in_float32():
    run(40)


@pytest.mark.soak
def test_many_arguments_of_every_kind():
    run(1500)


@pytest.mark.soak
@pytest.mark.float32
def test_many_arguments_of_every_kind_in_float32():
    run(1000)


def test_faults_found_by_such_inputs():
    """Each of these once ended in an error of numpy or jax, or in none."""
    two, cells = Network([[1.0, 2.0]], [[1.0]]), jaxcvx.enumerate_arrangements(np.eye(2))
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: beta_max(np.ones(3)), "problem"),
        (lambda: jaxcvx.arrangements_of([1.0], np.eye(2)), "network"),
        (lambda: jaxcvx.arrangements_of(Network(np.eye(2) * 1j, np.eye(2)), np.eye(2)), "network.hidden"),
        (lambda: jaxcvx.certify(Network(np.full((1, 2), "a"), np.ones((1, 1))), np.eye(2), np.ones(2), 1), "network"),
        (lambda: jaxcvx.training_objective(two, np.eye(2), [[1.0], [2.0, 3.0]], 0.1), "Y"),
        (lambda: jaxcvx.make_problem(np.eye(2), np.ones(2), "1"), "beta"),
        (lambda: jaxcvx.regularization_path(None, [1.0], ProximalGradient()), "problem"),
        (lambda: jaxcvx.MatrixCompletion([0], [0], [1.0], (2.5, 2.5), 1), "shape"),
        (lambda: jaxcvx.MatrixCompletion([0], [0], [1.0], (2, 2), 1, row_bound=1j), "row_bound"),
        (lambda: jaxcvx.sample_arrangements("key", np.eye(2), 3), "key"),
        (lambda: jaxcvx.solve(jaxcvx.make_problem(np.eye(2), np.ones(2), 1.0, arrangements=cells),
                              ProximalGradient(), key=3), "key"),
    ]  # fmt: skip
    for call, name in refused:
        with pytest.raises(jaxcvx.JaxcvxError, match=rf"^{name}"):
            call()
    assert float(jaxcvx.training_objective(two, np.eye(2), np.zeros(2), 0.0)) == 2.5  # lists are arrays too
    assert len(jaxcvx.arrangements_of(two, np.eye(2))) == 1
    X = np.random.default_rng(0).standard_normal((40, 40)).astype(jnp.bfloat16)
    with pytest.raises(jaxcvx.TooManyArrangements):
        jaxcvx.enumerate_arrangements(X * 0 + X[:1], max_cells=1)


def test_messages_are_short_and_of_one_line():
    with pytest.raises(jaxcvx.JaxcvxError) as caught:
        jaxcvx.MatrixCompletion([0], [0], [1.0], np.ones((50, 50)), 1)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
