"""The protocol: defaults of the hooks, and declarations that agree with what solvers implement."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

import jaxcvx
from jaxcvx.errors import InvalidInputError
from jaxcvx.networks.network import zero_network
from jaxcvx.solvers.core.protocol import HostSolver, Solver
from tests.cases import CASES

SOLVERS = [
    value for name in jaxcvx.__all__ if isinstance(value := getattr(jaxcvx, name), type) and issubclass(value, Solver)
]


class Constant(Solver):
    """A solver with the required methods only."""

    def initial_params(self, problem, key):
        return jnp.zeros(2)

    def init(self, problem, key, params): ...

    def step(self, problem, state): ...

    def check(self, problem, state): ...

    def finish(self, problem, state): ...

    def evaluate(self, problem, outcome): ...


@pytest.mark.parametrize("base", [Solver, HostSolver])
def test_bases_cannot_be_made(base):
    with pytest.raises(TypeError, match="abstract"):
        base()


def test_hooks_have_defaults_that_change_nothing():
    solver, problem, params = Constant(), CASES["gated"].make(), jnp.ones(2)
    assert solver.run_phases(problem) == (solver,) and solver.warm() is solver
    assert solver.prepare(problem) is problem and solver.adopt(problem, params) is params
    assert solver.predict(problem, [params, 2 * params]) is params
    assert solver.gives_up(problem, None) is False and solver.room(problem, None) is None
    assert solver.optimality(problem, params) is None and solver.scope(problem) == "none"
    assert not solver.differentiable and not solver.keeps_better_start


def test_a_network_as_start_is_refused_by_default():
    problem = CASES["gated"].make()
    with pytest.raises(InvalidInputError, match="^init: got a Network, expected the params of Constant"):
        Constant().adopt(problem, zero_network(problem))


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.__name__)
def test_differentiable_solvers_are_those_with_optimality_conditions(solver):
    assert solver.differentiable == (solver.optimality is not Solver.optimality)
