"""The solution object of solvers that run on the host."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx import Network, Status
from jaxcvx.certificates.certificate import make_certificate
from jaxcvx.solvers.core.host import host_solution


def test_numbers_come_from_the_certificate():
    network = Network(jnp.ones((1, 2)), jnp.ones((1, 1)))
    certificate = make_certificate(2.0, 1.5, "global")
    solution = host_solution(network, network, certificate, Status.CONVERGED, 3, [(0, 4.0, 1.0), (3, 2.0, 1.5)])
    assert solution.upper_bound == solution.objective == 2.0 and solution.lower_bound == 1.5
    assert solution.gap == solution.program_gap == 0.25 and solution.scope == "global"
    assert bool(solution.converged) and solution.num_steps == 3
    np.testing.assert_array_equal(solution.history.step, [0, 3])
    assert int(solution.history.count) == 2
    doubled = jax.tree.map(lambda a: 2 * a, solution)
    assert doubled.upper_bound == 4.0 and doubled.scope == "global"


def test_a_program_of_its_own_has_its_own_gap():
    network = Network(jnp.ones((1, 2)), jnp.ones((1, 1)))
    certificate = make_certificate(2.0, -np.inf, "heuristic", 1.9)
    solution = host_solution(network, None, certificate, Status.MAX_STEPS, 1, [(1, 5.0, 4.0)], (5.0, 4.0))
    assert solution.objective == 5.0 and solution.program_gap == 0.2
    assert solution.gap == np.inf and solution.heuristic_bound == 1.9
