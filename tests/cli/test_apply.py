"""predict and certify on a saved model and a CSV file, against the network itself."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import Dense, Network, training_objective
from jaxcvx.cli.apply import certify_file, predict_file, write_predictions
from jaxcvx.cli.model import save_model
from jaxcvx.errors import InvalidInputError
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
    values, notes = predict_file(folder, path)
    assert notes == []
    expected = np.asarray(NETWORK(jnp.asarray(REGRESSION.inputs(X))))[:, 0] * 5.0 + 10.0
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    write_predictions(values, None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "prediction" and [float(line) for line in lines[1:]] == values
    write_predictions(values, folder + "/out.csv")
    with open(folder + "/out.csv") as stream:
        assert stream.read().splitlines() == lines


def test_labels_are_the_original_ones(tmp_path):
    save_model(tmp_path / "model.npz", NETWORK, TWO, {})
    (tmp_path / "data.csv").write_text("a,b\n3,2\n-2,9\n")
    sign = np.asarray(NETWORK(jnp.asarray(TWO.inputs(X[[0, 2]]))))[:, 0] >= 0
    assert predict_file(str(tmp_path), str(tmp_path / "data.csv"))[0] == ["yes" if s else "no" for s in sign]


def test_certificates_are_about_the_files_rows(regression):
    folder, path, y = regression
    numbers = certify_file(folder, path, "auto")
    value = training_objective(NETWORK, REGRESSION.inputs(X), REGRESSION.targets(y), 0.1)
    assert 0 <= numbers["lower"] <= numbers["upper"]
    assert numbers["upper"] == pytest.approx(float(value), rel=1e-6)  # that one in float32
    assert numbers["scope"] == "global" and numbers["rows"] == 4 and numbers["beta"] == 0.1
    bad = path.replace("data", "bad")
    with open(bad, "w") as stream:
        stream.write("a,b\n1,2\n")
    with pytest.raises(InvalidInputError, match="target column 'y'"):
        certify_file(folder, bad, "auto")
