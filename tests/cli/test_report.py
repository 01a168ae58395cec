"""Reports: plain numbers for JSON, and readable gaps."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.cli.pipeline import percent
from jaxcvx.cli.report import finite, neuron_table


def test_numbers_arrays_and_nonfinite_values_become_json():
    given = {
        "a": np.float64(1.5),
        "b": [jnp.asarray(2), np.inf, float("nan")],
        3: (True, None, "x", np.int32(4)),
    }
    found = finite(given)
    assert found == {"a": 1.5, "b": [2.0, None, None], "3": [True, None, "x", 4]}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert type(found["3"][0]) is bool and type(found["3"][3]) is int


@pytest.mark.parametrize(
    ("value", "text"), [(np.inf, "unknown"), (1.4e-11, "1.4e-09 %"), (0.604, "60.4 %"), (0.0099, "0.99 %")]
)
def test_gaps(value, text):
    assert percent(value) == text


def test_neurons_are_listed_by_strength():
    hidden = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    network = jaxcvx.Network(hidden, np.array([[1.0], [0.0], [2.0]]))
    strong, weak = neuron_table(network, ["a", "b", "(constant)"])
    assert strong["strength"] == pytest.approx(5 / 7) and weak["strength"] == pytest.approx(2 / 7)
    assert strong["direction"] == [["b", 0.8], ["a", 0.6]] and weak["direction"] == [["b", -1.0]]
    np.testing.assert_allclose(strong["output"], [5.0])
