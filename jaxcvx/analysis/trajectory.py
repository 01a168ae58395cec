"""trajectory: record the params of a solver after every step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxcvx.errors import invalid, wrong_type
from jaxcvx.solvers.core.driver import starting_params
from jaxcvx.solvers.core.protocol import Solver


def trajectory(problem: Any, solver: Any, num_steps: int, *, init: Any = None, key: Any = None, every: int = 1) -> Any:
    """Take ``num_steps`` steps of a solver, without a stopping test, and record its current params.

    Works under jit and vmap. If the solver works in several phases, only its own ``step`` is used, for the method after
    which it is named.

    Args:
      problem: any problem that the solver accepts.
      solver: any solver with compiled steps, such as ``GradientDescent(optimizer=optax.sgd(0.1))``.
      num_steps: number T of steps.
      init: params to start from, as in ``solve``.
      key: jax random key, for solvers that draw random numbers.
      every: number of steps between two records.

    Returns:
      The params with a leading axis of length ``num_steps // every + 1``. The first entry is the start.

    Raises:
      InvalidInputError, InvalidTypeError: as in ``solve``, and for solvers that run on the host.

    Example:
      >>> import jax
      >>> import jaxcvx
      >>> problem = jaxcvx.make_problem([[1.0], [2.0]], [1.0, 0.0], beta=0.1)
      >>> solver = jaxcvx.GradientDescent(width=3)
      >>> networks = jaxcvx.trajectory(problem, solver, 10, key=jax.random.key(0), every=5)
      >>> networks.hidden.shape  # the start and two records of three neurons with one weight
      (3, 3, 1)
    """
    if not isinstance(solver, Solver):
        raise wrong_type("solver", solver, "one with compiled steps")
    for name, value in (("num_steps", num_steps), ("every", every)):
        if not isinstance(value, int) or value < 1:
            raise invalid(name, value, "a positive integer")
    solver.validate(problem)
    problem = solver.prepare(problem)
    state = solver.init(problem, key, starting_params(problem, solver, init, key))

    def current(state: Any) -> Any:
        return getattr(state, "current", state.params)

    def block(state: Any, _: None) -> tuple[Any, Any]:
        state = jax.lax.fori_loop(0, every, lambda _, s: solver.step(problem, s), state)
        return state, current(state)

    start = current(state)
    _, rest = jax.jit(lambda s: jax.lax.scan(block, s, length=num_steps // every))(state)
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start, rest)
