"""Unrolled differentiation: a fixed number of proximal gradient steps, differentiated one by one.

The derivative is that of the iterate, not of the solution. After few steps it depends on the start and the step size.
With many steps it tends to the implicit derivative of :mod:`jaxcvx.numerics.implicit`, which costs one linear solve;
unrolling costs memory and time in proportion to the steps. It is useful for few steps, and as an independent check.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import shrink_groups
from jaxcvx.solvers.gated.program import zero_blocks


@with_full_precision
def unrolled_params(problem: Problem, num_steps: int, *, init: Any = None) -> Float[Array, "P p c"]:
    """The gated ReLU program's variables after ``num_steps`` steps of accelerated proximal gradient (FISTA).

    The result is differentiable in X, Y, beta and ``init`` through every step, in forward and reverse mode. Reverse
    mode computes each step twice and stores the iterates only. The step size, from a power iteration, counts as a
    constant. It works under jit and vmap, with every smooth loss.

    Args:
      problem: with arrangements.
      num_steps: static; number of steps.
      init: (P, p, c) start; zero by default.

    Raises:
      InvalidTypeError: not a Problem.
      InvalidInputError: no arrangements, a loss that is not smooth, ``num_steps`` or the shape of ``init``.
    """
    if not isinstance(problem, Problem):
        raise InvalidTypeError(f"problem: got {type(problem).__name__}, expected one from jaxcvx.make_problem.")
    if problem.arrangements is None:
        raise invalid("problem.arrangements", None, "cells, as for ProximalGradient")
    if not problem.loss.is_smooth:
        raise invalid("loss", repr(problem.loss.name), "a smooth loss")
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise invalid("num_steps", num_steps, "a positive integer")
    W0 = zero_blocks(problem) if init is None else jnp.asarray(init, problem.dtype)
    expected = jax.eval_shape(zero_blocks, problem).shape
    if W0.shape != expected:
        raise invalid("init", f"shape {W0.shape}", f"shape {expected}")
    constant = jax.lax.stop_gradient(problem)
    # The power iteration approaches the largest curvature from below.
    largest = 1.1 * constant.operator.max_curvature(30) * constant.curvature
    step = 1 / jnp.maximum(largest, jnp.finfo(problem.dtype).tiny)

    @jax.checkpoint
    def iteration(carry, t):
        W, point = carry
        operator = problem.operator
        gradient = operator.adjoint(problem.loss.grad(operator.forward(point), problem.targets))
        new = shrink_groups(point - step * gradient, problem.beta * step)
        return (new, new + t / (t + 3) * (new - W)), None

    steps = jnp.arange(num_steps, dtype=problem.dtype)
    return jax.lax.scan(iteration, (W0, W0), steps)[0][0]
