"""The patch transformer: scikit-learn's rules, and a pipeline on digits that is better than raw pixels."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxcvx
from jaxcvx.estimators import ConvexPatchFeatures


def test_rows_and_images_agree_block_by_block():
    X = load_digits().data[:300]
    rows = ConvexPatchFeatures(image_shape=(8, 8), n_filters=20, random_state=0).fit(X)
    images = ConvexPatchFeatures(n_filters=20, random_state=0).fit(X.reshape(-1, 8, 8))
    out = rows.transform(X)
    np.testing.assert_array_equal(out, images.transform(X.reshape(-1, 8, 8)))
    np.testing.assert_allclose(out, rows.features_(X.reshape(-1, 8, 8)), rtol=1e-10)
    copy = pickle.loads(pickle.dumps(rows))
    np.testing.assert_array_equal(copy.transform(X[:5]), out[:5])
    assert clone(rows).get_params() == rows.get_params()
    with pytest.raises(jaxcvx.InvalidInputError, match="X"):
        rows.transform(X[:, :60])


def test_better_than_pixels_on_digits():
    """Patch features beat pixels with the same linear head; half of the data are for training."""
    X, y = load_digits(return_X_y=True)
    train, test = np.arange(len(y)) % 2 == 0, np.arange(len(y)) % 2 == 1
    patches = ConvexPatchFeatures(image_shape=(8, 8), n_filters=60, random_state=0)
    scores = [
        make_pipeline(*stages, StandardScaler(), RidgeClassifier(10.0)).fit(X[train], y[train]).score(X[test], y[test])
        for stages in ((), (patches,))
    ]
    assert scores[1] > scores[0] + 0.02 and scores[1] > 0.96


def test_features_have_names_and_become_a_table():
    import pandas as pd

    images = np.random.default_rng(0).standard_normal((5, 16))
    features = ConvexPatchFeatures(image_shape=(4, 4), n_filters=3, filter_shape=(2, 2), random_state=0)
    plain = features.fit_transform(images)
    assert features.n_features_in_ == 16
    table = features.set_output(transform="pandas").transform(images)
    assert isinstance(table, pd.DataFrame) and list(table.columns) == list(features.get_feature_names_out())
    np.testing.assert_array_equal(table.to_numpy(), plain)
    named = pd.DataFrame(images, columns=[f"p{i}" for i in range(16)])
    assert list(features.fit(named).feature_names_in_) == list(named.columns)
    with pytest.raises(ValueError, match="feature names"):
        features.transform(named[named.columns[::-1]])
