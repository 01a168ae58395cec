"""Files as they are published are trained on without an option."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxcvx.cli.main import main
from jaxcvx.cli.tabular import read_features, read_training_csv

pandas = pytest.importorskip("pandas")
datasets = pytest.importorskip("sklearn.datasets")


def packaged(package: str, path: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(found.origin).parent / path


def penguins(folder: Path) -> tuple[Path, str, tuple[int, int]]:
    return packaged("palmerpenguins", "data/penguins.csv"), "species", (344, 15)


def weather(folder: Path) -> tuple[Path, str, tuple[int, int]]:
    return packaged("vega_datasets", "_data/seattle-weather.csv"), "weather", (1461, 5)


def cars(folder: Path) -> tuple[Path, str, tuple[int, int]]:
    frame = pandas.read_json(packaged("vega_datasets", "_data/cars.json"))
    frame.to_csv(folder / "cars.csv", index=False)
    return folder / "cars.csv", "Miles_per_Gallon", (398, 10)


def cancer(folder: Path) -> tuple[Path, str, tuple[int, int]]:
    frame = datasets.load_breast_cancer(as_frame=True).frame
    frame.insert(0, "id", np.random.default_rng(0).permutation(10**6)[: len(frame)])
    frame["target"] = np.where(frame.pop("target") == 0, "M", "B")
    frame.to_csv(folder / "cancer.csv", index=False)
    return folder / "cancer.csv", "target", (569, 30)


def diabetes(folder: Path) -> tuple[Path, str, tuple[int, int]]:
    frame = datasets.load_diabetes(as_frame=True).frame
    target = frame.pop("target")
    frame = frame.mask(np.random.default_rng(0).random(frame.shape) < 0.05)
    frame.assign(target=target).to_csv(folder / "diabetes.csv", index=False)
    return folder / "diabetes.csv", "target", (442, 20)


@pytest.mark.parametrize("file", [penguins, weather, cars, cancer, diabetes])
def test_files_as_published(file: Any, tmp_path: Path) -> None:
    path, target, shape = file(tmp_path)
    data, schema = read_training_csv(path, target)
    assert data.X.shape == shape and np.isfinite(data.X).all()
    assert len(schema.columns) == len(path.read_text().splitlines()[0].split(",")) - 1
    assert all(column.note for column in schema.columns)
    rows = read_features(path, schema)
    assert rows.shape[1] == shape[1] and len(rows) >= shape[0]


@pytest.mark.long
@pytest.mark.parametrize("file", [penguins, cars])
def test_train_and_predict_files_as_published(file: Any, tmp_path: Path, capsys: Any) -> None:
    path, target, (rows, _) = file(tmp_path)
    options = ["--beta", "5", "--folds", "3", "--prove", "5", "--out", str(tmp_path), "--json", "--quiet"]
    assert main(["train", str(path), "--target", target, *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["data"]["preparation"]) >= 8 and report["data"]["classes_without_test_rows"] == []
    assert main(["predict", str(tmp_path), str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["prediction"]) >= rows and "filled as in training" in found["notes"][0]
    assert main(["certify", str(tmp_path), str(path), "--seconds", "0", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["rows"] == rows and numbers["training_data"]
