"""scikit-learn estimators on data of every kind: finite predictions and a true bound, or one clear error."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from jaxcvx import JaxcvxError
from jaxcvx.estimators import ConvexReLUClassifier, ConvexReLURegressor
from tests.reliability.inputs import FLAWS, Counts, anything, flawed, seeds

SIZES = (1.0,) * 6 + (1e-8, 1e8, 1e-120, 1e120, 1e-170, 1e200)
SETTINGS: dict[str, tuple[Any, ...]] = {
    "beta": (0.3, 0.3, "auto", 0.1, 0, 1e-300, 1e300, -1, np.nan, "x", None, True),
    "beta_scale": ("relative", "absolute", "x", None),
    "n_cells": ("deprecated", 4, 4, 4, 0, -1, 2.5, None, "4"),
    "loss": ("auto", "auto", "auto", "squared", "logistic", "softmax", "hinge", None, 3),
    "bias": (True, True, False),
    "max_iter": (5, 5, 5, 5, 0, None, 1.5),
    "random_state": (0, 0, 0, None, "x", -1),
}


def labels(rng: np.random.Generator, n: int, kind: int) -> Any:
    if kind == 0:
        return np.where(rng.uniform(size=n) < 0.5, "yes", "no")
    return (np.zeros(n, int), rng.integers(2, size=n), rng.integers(3, size=n), rng.standard_normal(n))[kind - 1]


def fit(counts: Counts, make: Any, options: dict[str, Any], X: Any, y: Any, weights: Any) -> Any:
    """The fitted estimator, or None where it refused: scikit-learn's own checks raise ValueError or TypeError."""
    counts["tried"] += 1
    try:
        model = make(**options).fit(X, y, sample_weight=weights)
    except JaxcvxError as err:
        assert str(err).split(":")[0] in ("X", "y", "sample_weight", *options), str(err)
    except (ValueError, TypeError) as err:
        frames, tb = [], err.__traceback__
        while tb is not None:
            frames.append(tb.tb_frame.f_globals.get("__name__", ""))
            tb = tb.tb_next
        assert frames[-1].split(".")[0] in ("sklearn", "numpy") and any(f.startswith("sklearn") for f in frames), err
    else:
        counts["answered"] += 1
        return model
    counts["refused"] += 1
    return None


def fuzz(make: Any, examples: int) -> None:
    counts = Counts()

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
    @given(seeds, st.sampled_from(FLAWS), st.sampled_from(SIZES), st.sampled_from(SIZES), st.integers(0, 4), anything())
    def one(seed, flaw, in_size, out_size, kind, odd):
        rng = np.random.default_rng(seed)
        options = {name: values[0] for name, values in SETTINGS.items()}
        if rng.integers(2) == 0:  # one of them odd, perhaps, so that data are looked at too
            name = list(SETTINGS)[rng.integers(len(SETTINGS))]
            options[name] = SETTINGS[name][rng.integers(len(SETTINGS[name]))]
        n = 8
        X = in_size * flawed(rng, (n, 2), flaw)
        if make is ConvexReLURegressor:
            y: Any = out_size * flawed(rng, (n,), FLAWS[rng.integers(len(FLAWS))] if seed % 4 == 0 else "none")
        else:
            y = labels(rng, n, kind)
        weights = None if seed % 3 else rng.choice([0.0, 1.0, 2.0], n)
        if seed % 9 == 0:
            X, y, weights = (odd, y, weights) if seed % 2 else (X, odd, odd)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            model = fit(counts, make, options, X, y, weights)
            if model is None:
                return
            assert np.isfinite(model.objective_) and np.isfinite(model.beta_)
            assert not np.isnan(model.heuristic_bound_) and model.heuristic_bound_ <= model.objective_
            assert not np.isnan(model.lower_bound_) and model.lower_bound_ <= model.objective_
            assert not np.isnan(model.gap_)
            for a in (model.network_.hidden, model.network_.output):
                assert np.isfinite(a).all()
            shown = model.predict(X)
            assert len(shown) == len(X)
            if make is ConvexReLUClassifier:
                assert set(shown) <= set(model.classes_)
                if hasattr(model, "predict_proba"):
                    assert np.allclose(model.predict_proba(X).sum(axis=1), 1)
            else:
                assert np.isfinite(shown).all()

    one()
    counts.report(make.__name__)


def test_regressor():
    fuzz(ConvexReLURegressor, 25)


def test_classifier():
    fuzz(ConvexReLUClassifier, 25)


@pytest.mark.soak
@pytest.mark.parametrize("make", [ConvexReLURegressor, ConvexReLUClassifier])
def test_many_fits(make):
    fuzz(make, 600)


def test_units_do_not_matter_unless_squares_overflow():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((8, 2)), rng.standard_normal(8)
    options: dict[str, Any] = {"max_iter": 5, "random_state": 0, "beta": 0.1, "beta_scale": "relative"}
    plain = ConvexReLURegressor(bias=False, **options).fit(X, y)
    large = ConvexReLURegressor(bias=False, **options).fit(2.0**400 * X, 2.0**300 * y)
    assert np.allclose(large.predict(2.0**400 * X) / 2.0**300, plain.predict(X), rtol=1e-9)
    with pytest.raises(JaxcvxError, match=r"^y: "):
        ConvexReLURegressor(**options).fit(X, 1e200 * y)
