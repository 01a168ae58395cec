"""Bundled data sets."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from jaxcvx.datasets import DATASET_NAMES, load_dataset, spiral
from jaxcvx.errors import InvalidInputError, MissingExtraError

EXPECTED = {
    "digits": (1797, 64, 10),
    "breast_cancer": (569, 30, 2),
    "wine": (178, 13, 3),
    "diabetes": (442, 10, None),
    "iris": (150, 4, 3),
    "spiral": (60, 2, 2),
}


def test_names_are_those_tested() -> None:
    assert set(DATASET_NAMES) == set(EXPECTED)


@pytest.mark.parametrize("name", DATASET_NAMES)
def test_bundled(name: str) -> None:
    n, d, num_classes = EXPECTED[name]
    data = load_dataset(name)
    assert data.name == name
    assert data.X.shape == (n, d) and data.X.dtype == np.float64 and np.isfinite(data.X).all()
    assert data.y.shape == (n,)
    assert len(data.feature_names) == d == len(set(data.feature_names))
    assert all(type(feature) is str for feature in data.feature_names)
    if num_classes is None:
        assert data.task == "regression" and data.classes is None and data.y.dtype == np.float64
    else:
        assert data.task == "classification" and data.y.dtype == np.int64
        assert data.classes is not None and all(type(label) is str for label in data.classes)
        np.testing.assert_array_equal(np.unique(data.y), np.arange(num_classes))
        assert len(data.classes) == num_classes
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"  # type: ignore[misc]


def test_class_names_match_the_labels() -> None:
    cancer = load_dataset("breast_cancer")
    assert cancer.classes is not None
    assert np.sum(np.array(cancer.classes)[cancer.y] == "malignant") == 212
    assert load_dataset("digits").classes == tuple("0123456789")


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(InvalidInputError) as err:
        load_dataset("mnist")
    assert "'mnist'" in str(err.value)
    assert all(name in str(err.value) for name in DATASET_NAMES)


def test_spiral_needs_no_sklearn_and_others_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m == "sklearn" or m.startswith("sklearn.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert load_dataset("spiral").X.shape == (60, 2)
    with pytest.raises(MissingExtraError, match=r"pip install 'jaxcvx\[cli\]'"):
        load_dataset("iris")


def test_spiral_follows_its_definition() -> None:
    X, arm = spiral(num_per_arm=5, noise=0.3, seed=7, arms=2)
    rng = np.random.default_rng(7)
    expected = []
    for q in range(2):
        noise = rng.standard_normal(5)
        for i in range(5):
            t, r = 4 * q + i + 0.3 * noise[i], i / 8
            expected.append((r * np.sin(t), r * np.cos(t)))
    np.testing.assert_allclose(X, expected, atol=1e-14)
    np.testing.assert_array_equal(arm, [0] * 5 + [1] * 5)


@pytest.mark.parametrize(("num_per_arm", "sigma_max"), [(20, 1.69), (4, 0.80)])
def test_spiral_is_that_of_the_reference_results(num_per_arm: int, sigma_max: float) -> None:
    """The largest singular values measured on the data behind the published optima."""
    X, arm = spiral(num_per_arm)
    assert X.shape == (3 * num_per_arm, 2) and arm.tolist() == sorted(arm.tolist())
    assert abs(np.linalg.norm(X, 2) - sigma_max) < 0.005
    np.testing.assert_array_equal(np.flatnonzero(np.all(X == 0, axis=1)), num_per_arm * np.arange(3))


def test_spiral_depends_on_the_seed_only() -> None:
    np.testing.assert_array_equal(spiral()[0], spiral()[0])
    assert not np.array_equal(spiral(seed=1)[0], spiral(seed=0)[0])
    np.testing.assert_array_equal(spiral(noise=0.0, seed=1)[0], spiral(noise=0.0, seed=0)[0])


def test_bundled_spiral_is_the_middle_arm_against_the_rest() -> None:
    data = load_dataset("spiral")
    X, arm = spiral()
    np.testing.assert_array_equal(data.X, X)
    assert data.classes == ("outer", "middle")
    np.testing.assert_array_equal(data.y, arm == 1)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("num_per_arm", 0),
        ("num_per_arm", 2.5),
        ("arms", -1),
        ("arms", "3"),
        ("noise", -0.1),
        ("noise", np.nan),
        ("noise", np.inf),
        ("seed", -1),
    ],
)
def test_spiral_refuses(argument: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=f"^{argument}: got"):
        spiral(**{argument: value})  # type: ignore[arg-type]
