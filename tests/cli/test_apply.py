"""predict and certify on a saved model and a CSV file, against the network itself."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import Dense, Network, training_objective
from jaxcvx.cli.apply import certify_model, describe, predict_file, write_predictions
from jaxcvx.cli.model import fingerprint, save_model, save_rows
from jaxcvx.errors import FileFormatError, InvalidInputError
from tests.cli.test_model import REGRESSION, TWO

X = np.array([[3.0, 2.0], [0.0, 1.0], [-2.0, 9.0], [4.0, -6.0]])
HIDDEN, OUTPUT = [[1.0, -1.0, 0.2], [0.3, 0.5, -0.1]], [[1.0], [-0.5]]
NETWORK = Network(jnp.asarray(HIDDEN), jnp.asarray(OUTPUT), None, Dense(bias=True))


@pytest.fixture
def regression(tmp_path):
    save_model(tmp_path / "model.npz", NETWORK, REGRESSION, {})
    y = [10.0, 12.5, 9.0, 20.0]
    lines = ["b,extra,y,a", *(f"{row[1]},7,{target},{row[0]}" for row, target in zip(X, y, strict=True))]
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    return str(tmp_path), str(tmp_path / "data.csv"), np.array(y)


def test_predictions_are_the_networks_whatever_the_order_of_columns(regression, capsys):
    folder, path, _ = regression
    columns, notes = predict_file(folder, path, ids="extra")
    assert notes == [] and columns.pop("extra") == ["7"] * 4
    values = columns["prediction"]
    expected = np.asarray(NETWORK(jnp.asarray(REGRESSION.inputs(X))))[:, 0] * 5.0 + 10.0
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    write_predictions(columns, None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "prediction" and [float(line) for line in lines[1:]] == values
    write_predictions(columns, folder + "/out.csv")
    with open(folder + "/out.csv") as stream:
        assert stream.read().splitlines() == lines


def test_labels_are_the_original_ones(tmp_path):
    save_model(tmp_path / "model.npz", NETWORK, TWO, {})
    (tmp_path / "data.csv").write_text("a,b\n3,2\n-2,9\n")
    sign = np.asarray(NETWORK(jnp.asarray(TWO.inputs(X[[0, 2]]))))[:, 0] >= 0
    columns, _ = predict_file(str(tmp_path), str(tmp_path / "data.csv"))
    assert columns == {"prediction": ["yes" if s else "no" for s in sign]}


def test_certificates_of_other_rows_on_demand(regression):
    folder, path, y = regression
    value = training_objective(NETWORK, REGRESSION.inputs(X), REGRESSION.targets(y), 0.1)
    numbers = certify_model(folder, path)
    assert "lower" not in numbers and not numbers["training_data"]
    residual = np.asarray(NETWORK(REGRESSION.inputs(X)))[:, 0] - REGRESSION.targets(y)[:, 0]
    assert numbers["mean_loss"] == pytest.approx(0.5 * float(residual @ residual) / 4, rel=1e-5)
    assert "another data set" in describe(numbers, path)[0] and "--as-training-data" in describe(numbers, path)[1]
    numbers = certify_model(folder, path, as_training_data=True)
    assert 0 <= numbers["lower"] <= numbers["upper"]
    assert numbers["upper"] == pytest.approx(float(value), rel=1e-6)  # that one in float32
    assert numbers["scope"] == "global" and numbers["rows"] == 4 and numbers["beta"] == 0.1
    bad = path.replace("data", "bad")
    with open(bad, "w") as stream:
        stream.write("a,b\n1,2\n")
    with pytest.raises(InvalidInputError, match="target column 'y'"):
        certify_model(folder, bad)


def test_the_stored_certificate_is_checked(regression):
    folder, path, y = regression
    rows, model = folder + "/training.npz", folder + "/model.npz"
    with pytest.raises(FileFormatError, match="training.npz"):
        certify_model(folder, None)
    value = float(training_objective(NETWORK, REGRESSION.inputs(X), REGRESSION.targets(y), 0.1))
    stored = {"upper": value, "lower": value / 1e4, "gap": 0.9999, "scope": "relaxation", "sentence": "so."}
    save_rows(rows, X, y)
    save_model(model, NETWORK, REGRESSION, {"rows": fingerprint(X[::-1], y[::-1]), "certificate": stored})
    for file in (None, path):
        numbers = certify_model(folder, file, seconds=0)
        assert numbers["lower"] == value / 1e4 and describe(numbers, file)[1] == "so."
    better = certify_model(model, None, seconds=10)
    assert better["lower"] > value / 1e4 and better["training_data"]
    save_rows(rows, X[:3], y[:3])
    with pytest.raises(FileFormatError, match="not the rows"):
        certify_model(folder, None)
    save_rows(rows, X, y)
    save_model(model, NETWORK, REGRESSION, {"rows": fingerprint(X, y), "certificate": stored | {"upper": 2 * value}})
    with pytest.raises(FileFormatError, match="certificate has the objective"):
        certify_model(folder, None, seconds=0)
