"""Parts of the training pipeline: the split, and the choice of cells and solver."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxcvx import ConeADMM, ProximalGradient, make_problem
from jaxcvx.cli.pipeline import FEATURES, Settings, _pick_solver, choose_cells, split_data
from jaxcvx.cli.tabular import Schema
from jaxcvx.datasets import load_dataset
from jaxcvx.errors import InvalidInputError


def split_of(name: str, **settings):
    data = load_dataset(name)
    return data, split_data(data, Settings(**settings), Schema.numeric(data.feature_names, "target"))


def test_a_split_is_stratified_standardised_and_complete():
    data, split = split_of("iris", seed=3)
    assert len(split.y) == 120 and len(split.y_test) == 30
    assert np.abs(np.bincount(split.y_test) - 10).max() <= 2  # each class has about its share
    np.testing.assert_allclose(split.X.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(split.X.std(axis=0), 1, atol=1e-12)
    prep = split.prep
    raw = np.concatenate([split.X, split.X_test]) * np.array(prep.scale) + np.array(prep.mean)
    order, given = np.lexsort(raw.round(6).T), np.lexsort(data.X.round(6).T)
    np.testing.assert_allclose(raw[order], data.X[given], atol=1e-9)


def test_the_seed_determines_the_split():
    one, same, other = (split_of("diabetes", seed=seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.X_test, same.X_test)
    assert not np.array_equal(one.y_test, other.y_test)


def test_impossible_splits_are_refused():
    with pytest.raises(InvalidInputError, match="^--test-fraction"):
        split_of("iris", test_fraction=0.999)
    with pytest.raises(InvalidInputError, match="^--loss: got hinge"):
        split_of("diabetes", loss="hinge")


def test_cells_and_solvers():
    rng = np.random.default_rng(0)
    few = make_problem(rng.standard_normal((10, 2)), rng.standard_normal(10), 0.1, features=FEATURES)
    cells, sources = choose_cells(few, None, Settings(), jax.random.key(0))
    assert cells.complete and sources == {"all": cells.num_cells}
    many = make_problem(rng.standard_normal((80, 9)), rng.standard_normal((80, 2)), 0.1, features=FEATURES)
    cells, sources = choose_cells(many, None, Settings(cells=20), jax.random.key(0))
    assert not cells.complete and sources == {"sampled": cells.num_cells} and cells.num_cells <= 20
    assert isinstance(_pick_solver(Settings(), few), ConeADMM)
    assert isinstance(_pick_solver(Settings(), many), ProximalGradient)
    with pytest.raises(InvalidInputError, match="^--solver"):
        _pick_solver(Settings(solver="magic"), few)
