"""Module paths of earlier versions: imports of them and pickles that name them still work."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path

import numpy as np
import pytest

import jaxcvx
from jaxcvx._moved import MOVED
from jaxcvx.solvers.copositive.program import Blocks

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_gives_the_names_of_the_new_modules(old: str) -> None:
    module = importlib.import_module(old)
    names = [
        (new, name)
        for new in map(importlib.import_module, MOVED[old])
        for name, value in vars(new).items()
        if getattr(value, "__module__", None) == new.__name__
    ]
    assert names
    for new, name in names:
        assert getattr(module, name) is getattr(new, name)
    with pytest.raises(AttributeError, match=MOVED[old][0]):
        _ = module.no_such_name


def test_a_pickle_of_an_earlier_version_loads() -> None:
    """The file holds a solution, its problem, features, a loss and a copositive point (data/make_old_files.py)."""
    solution, problem, features, loss, blocks = pickle.loads((DATA / "old.pickle").read_bytes())
    assert isinstance(solution, jaxcvx.Solution) and isinstance(problem, jaxcvx.Problem)
    assert type(blocks) is Blocks
    assert (features, loss) == (jaxcvx.ConvPool((3, 3)), jaxcvx.Huber(0.5))
    objective = jaxcvx.training_objective(solution.network, problem.X, problem.Y, problem.beta)
    np.testing.assert_allclose(objective, solution.upper_bound, rtol=1e-5)
