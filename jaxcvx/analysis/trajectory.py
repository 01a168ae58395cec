"""trajectory: the params that a solver goes through."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.solvers.core.driver import starting_params
from jaxcvx.solvers.core.protocol import Solver


def trajectory(problem: Any, solver: Any, num_steps: int, *, init: Any = None, key: Any = None, every: int = 1) -> Any:
    """Take ``num_steps`` steps of a solver, without stopping, and record its current params.

    Works under jit and vmap. Of a solver that works in phases this is the method that it is named after, alone.

    Args:
      problem: any problem that the solver takes.
      solver: any solver with compiled steps, say ``GradientDescent(optimizer=optax.sgd(0.1))``.
      num_steps: steps T.
      init: params to start from, as in ``solve``.
      key: jax random key, for solvers that draw random numbers.
      every: steps from one record to the next.

    Returns:
      The params with a leading axis of length ``num_steps // every + 1``, the start included.

    Raises:
      InvalidInputError, InvalidTypeError: as ``solve``; solvers that run on the host have no such steps.
    """
    if not isinstance(solver, Solver):
        raise InvalidTypeError(f"solver: got {type(solver).__name__}, expected one with compiled steps.")
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

    first = current(state)
    _, rest = jax.jit(lambda s: jax.lax.scan(block, s, length=num_steps // every))(state)
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)
