"""Reports: plain numbers for JSON, and readable gaps."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.cli.report import SCOPES, _gap, finite


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


@pytest.mark.parametrize(("value", "text"), [(None, "none"), (1.4e-11, "1.4e-11"), (0.0, "0.0e+00"), (0.604, "60.4 %")])
def test_gaps(value, text):
    assert _gap(value) == text


def test_every_scope_has_words():
    assert {"global", "relaxation", "sampled-cells", "none"} <= set(SCOPES)
