"""The exceptions: what they derive from, how they read."""

from __future__ import annotations

import inspect
import pickle

import numpy as np
import pytest

import jaxcvx
from jaxcvx import errors
from jaxcvx.errors import JaxcvxError, MissingExtraError, TooManyArrangements, invalid, require_extra

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Exception) and kind is not JaxcvxError
]


def test_every_exception_derives_from_ours_and_from_a_builtin():
    natures = {
        "InvalidInputError": ValueError,
        "InvalidTypeError": TypeError,
        "FileFormatError": OSError,
        "MissingExtraError": ImportError,
        "TooManyArrangements": MemoryError,
    }
    assert {kind.__name__ for kind in KINDS} >= set(natures)
    for kind in KINDS:
        assert issubclass(kind, JaxcvxError) and kind.__doc__
        assert kind.__name__ not in natures or issubclass(kind, natures[kind.__name__])


def test_input_errors_read_alike():
    error = invalid("beta", -1, "a number >= 0")
    assert str(error) == "beta: got -1, expected a number >= 0."
    assert isinstance(error, ValueError)


def test_a_missing_extra_names_the_command():
    with pytest.raises(MissingExtraError, match=r"no_such_module.*pip install 'jaxcvx\[plots\]'"):
        require_extra("no_such_module", "plots")
    assert require_extra("math", "plots").pi == pytest.approx(np.pi)


def test_too_many_arrangements_carries_the_numbers():
    with pytest.raises(TooManyArrangements) as caught:
        jaxcvx.enumerate_arrangements(np.random.default_rng(0).standard_normal((50, 6)), max_cells=1000)
    assert caught.value.max_cells == 1000 < caught.value.count
    copy = pickle.loads(pickle.dumps(caught.value))  # as multiprocessing and xdist do
    assert str(copy) == str(caught.value) and copy.count == caught.value.count


def test_public_names_are_exported():
    assert jaxcvx.JaxcvxError is JaxcvxError
    assert jaxcvx.TooManyArrangements is TooManyArrangements
    assert jaxcvx.InvalidInputError is errors.InvalidInputError
