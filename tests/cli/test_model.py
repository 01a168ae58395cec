"""Preprocessing: standardisation, targets, decisions, metrics; saved models."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import Dense, Network
from jaxcvx.cli.model import Preprocessing, load_model, outputs, save_model
from jaxcvx.cli.tabular import Schema
from jaxcvx.errors import FileFormatError

SCHEMA = Schema.numeric(("a", "b"), "y")
REGRESSION = Preprocessing((1.0, 2.0), (2.0, 4.0), 10.0, 5.0, "regression", None, "squared", 0.1, SCHEMA)
CLASSES = dataclasses.replace(
    REGRESSION, task="classification", classes=("p", "q", "r"), target_mean=0.0, target_scale=1.0
)
TWO = dataclasses.replace(CLASSES, classes=("no", "yes"))


def test_inputs_and_regression_targets():
    np.testing.assert_allclose(REGRESSION.inputs(np.array([[3.0, 2.0]])), [[1.0, 0.0]])
    y = np.array([10.0, 20.0])
    np.testing.assert_allclose(REGRESSION.targets(y), [[0.0], [2.0]])
    np.testing.assert_allclose(REGRESSION.decide(REGRESSION.targets(y)), y)
    metrics = REGRESSION.metrics(np.array([[0.0], [2.4]]), y)
    assert metrics["rmse"] == pytest.approx(np.sqrt(2.0)) and metrics["r2"] == pytest.approx(1 - 2 / 25)


def test_classification_targets_by_loss():
    codes = np.array([0, 2])
    np.testing.assert_array_equal(CLASSES.targets(codes), [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(dataclasses.replace(CLASSES, loss="softmax").targets(codes), codes)
    signs = dataclasses.replace(CLASSES, loss="hinge").targets(codes)
    np.testing.assert_array_equal(signs, [[1, -1, -1], [-1, -1, 1]])
    np.testing.assert_array_equal(TWO.targets(np.array([0, 1])), [[-1], [1]])
    assert TWO.decide(np.array([[-0.1], [0.1]])).tolist() == [0, 1]
    assert CLASSES.metrics(np.array([[0.9, 0, 0], [1, 0, 0]]), codes) == {"accuracy": 0.5}


def test_saved_models_come_back(tmp_path):
    network = Network(jnp.ones((2, 3)), jnp.asarray([[1.0], [-0.5]]), None, Dense(bias=True))
    save_model(tmp_path / "model.npz", network, REGRESSION, {"width": 2})
    for path in (tmp_path, tmp_path / "model.npz"):
        loaded, prep, extra = load_model(path)
        assert prep == REGRESSION and extra["width"] == 2 and loaded.features == Dense(bias=True)
        X = np.array([[3.0, 2.0], [0.0, 1.0]])
        np.testing.assert_allclose(outputs(loaded, prep, X), network(jnp.asarray(prep.inputs(X))))


def test_other_files_are_refused(tmp_path):
    jaxcvx.save(tmp_path / "net.npz", Network(jnp.ones((1, 2)), jnp.ones((1, 1))))
    with pytest.raises(FileFormatError, match="another kind"):
        load_model(tmp_path / "net.npz")
    with pytest.raises(FileFormatError):
        load_model(tmp_path / "nothing.npz")


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        ({"mean": (1.0,)}, (3, 1)),
        ({"mean": ("x", "y")}, (3, 1)),
        ({"mean": 3}, (3, 1)),
        ({"scale": (0.0, 1.0)}, (3, 1)),
        ({"scale": (1.0,)}, (3, 1)),
        ({"target_scale": "x"}, (3, 1)),
        ({"beta": float("inf")}, (3, 1)),
        ({"task": "other"}, (3, 1)),
        ({"classes": ("a", "b")}, (3, 1)),
        ({"task": "classification"}, (3, 1)),
        ({"task": "classification", "classes": ("a", 2)}, (3, 1)),
        ({"task": "classification", "classes": ("a", "b", "c")}, (3, 1)),
        ({"loss": 3}, (3, 1)),
        ({}, (4, 1)),
        ({}, (3, 2)),
    ],
)
def test_models_whose_parts_do_not_fit_are_refused(tmp_path, change, shape):
    network = Network(jnp.ones((2, shape[0])), jnp.ones((2, shape[1])), None, Dense(bias=True))
    save_model(tmp_path / "model.npz", network, dataclasses.replace(REGRESSION, **change), {})
    with pytest.raises(FileFormatError, match="damaged"):
        load_model(tmp_path)
