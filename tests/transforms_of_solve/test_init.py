"""A solve that starts from an earlier solution ends no worse, and no later."""

from __future__ import annotations

import pytest

from jaxcvx.errors import InvalidInputError
from tests.cases import CASES, rows, solved


@pytest.mark.parametrize("name", rows())
def test_start_from_a_solution_ends_no_worse_and_no_later(name: str) -> None:
    case, cold = CASES[name], solved(name)
    warm = case.solve(init=cold.params)
    assert warm.objective <= cold.objective * (1 + case.rtol)
    assert warm.num_steps <= cold.num_steps and warm.status == cold.status
    if cold.converged:
        assert warm.lower_bound >= cold.lower_bound - 2 * case.rtol * abs(cold.lower_bound) or not case.on_host


@pytest.mark.parametrize("name", rows())
def test_network_of_a_solution_is_a_start_or_is_refused(name: str) -> None:
    case, cold = CASES[name], solved(name)
    if cold.network is None:
        assert case.varied != "beta"  # the variables of this problem are no network
        return
    try:
        warm = case.solve(init=cold.network)
    except InvalidInputError as refusal:
        assert str(refusal).startswith("init: got a Network")
        return
    assert warm.upper_bound <= cold.upper_bound * (1 + case.rtol)
