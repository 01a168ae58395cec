"""FrankWolfe: the algorithm of Sahiner et al. (2021) for a bound t on the penalty."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.certificates.priced import certify_priced
from jaxcvx.errors import invalid
from jaxcvx.networks.network import Network, balance, balanced_penalty, merge_parallel, prune, zero_network
from jaxcvx.numerics.precision import double_precision, to_double
from jaxcvx.numerics.safe import divide, unit_rows
from jaxcvx.pricing.faces import price_exact
from jaxcvx.pricing.oracles import ExactPricer, choose_pricer
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.driver import solve
from jaxcvx.solvers.core.host import Trace, host_solution, usable
from jaxcvx.solvers.core.protocol import CallbackFunction, HostSolver
from jaxcvx.solvers.core.solution import Solution, Status, StepInfo
from jaxcvx.solvers.gradient.descent import GradientDescent
from jaxcvx.solvers.polish import polish_problem


class _Step(NamedTuple):
    """One step: the added neuron u, its output direction g, and the step length gamma."""

    u: Float[Array, p]
    g: Float[Array, q]
    gamma: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class FrankWolfe(HostSolver):
    """Train by Frank-Wolfe steps with a constraint in place of the penalty.

        min 1/2 ||F - Y||^2   over networks with sum_j ||u_j|| ||v_j|| <= t

    F are the predictions and R = Y - F is the residual. Step k finds the unit neuron u with the largest
    ``||R^T (Z u)_+||``, exactly, and sets g to ``R^T (Z u)_+`` normalised. Then it moves F towards t (Z u)_+ g^T. The
    gap ``t max_u ||R^T (Z u)_+|| - <R, F>`` bounds the distance to the optimal value at every step. It falls like 1/k.
    The method is provided for comparison; :class:`ColumnGeneration` fits all weights in every round and reaches many
    more digits.

    ``solution.objective`` and ``program_gap`` belong to the constrained program. ``upper_bound``, ``lower_bound`` and
    ``gap`` belong to the penalised training problem at the returned network. Each step contributes at most one neuron.
    Squared loss, no skip connection; the cells must be given or few enough to enumerate. The solver runs on the host
    with compiled blocks; it does not run under jit or vmap.

    Attributes:
      tol: relative gap of the constrained program to reach.
      max_steps: limit on steps.
      check_every: steps between checks.
      radius: the bound t. None: the value of ``init`` after ``polish``. Without ``init`` a short Adam run with ``key``
        takes its place.
      line_search: True for exact line search, False for the step length 2 / (k + 2).

    Source: A. Sahiner, T. Ergen, J. Pauly and M. Pilanci, "Vector-output ReLU neural network problems are
    copositive programs" (2021), Algorithm 1; convergence: M. Jaggi, "Revisiting Frank-Wolfe" (2013).

    Example:
      >>> import jaxcvx
      >>> problem = jaxcvx.make_problem([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [1.0, 0.0, 1.0], beta=0.1)
      >>> solution = jaxcvx.solve(problem, jaxcvx.FrankWolfe(radius=1.0, max_steps=100))
      >>> bool(solution.lower_bound <= solution.upper_bound)
      True
    """

    tol: float = 1e-3
    max_steps: int = 10_000
    check_every: int = 100
    radius: float | None = None
    line_search: bool = True

    requires = frozenset({"squared loss", "no sample weights", "no skip", "no free bias"})
    resumable = False  # the iterate holds predictions only; the network needs the list of all steps

    def validate(self, problem: Problem) -> None:
        if self.radius is not None and not 0 < self.radius < float("inf"):
            raise invalid("radius", self.radius, "None or a positive number")

    def solve_on_host(self, problem: Problem, init: Any, key: Any, callback: CallbackFunction | None) -> Solution:
        pricer = choose_pricer(problem, "exact", 1)
        assert isinstance(pricer, ExactPricer)
        radius = self._radius(problem, init, key)
        t = jnp.asarray(radius, problem.X.dtype)
        F, gap = jnp.zeros_like(problem.Y), np.inf
        taken: list[_Step] = []
        trace: Trace = []
        status, done = Status.MAX_STEPS, 0
        while True:
            priced = _price(pricer.table, problem, pricer.cells.masks, F)
            R = problem.Y - F
            objective = 0.5 * float(jnp.sum(R**2))
            gap = float(t * priced.upper - jnp.sum(R * F))
            bound = objective - gap
            relative = gap / max(objective, np.finfo(float).tiny)
            trace.append((done, objective, bound))
            info = StepInfo("FrankWolfe", done, self.max_steps, objective, bound, relative, F)
            stop = callback is not None and callback(info)
            if relative <= self.tol or stop or done >= self.max_steps:
                status = Status.CONVERGED if relative <= self.tol else Status.STOPPED if stop else status
                break
            count = min(self.check_every, self.max_steps - done)
            arguments = (pricer.table, problem, pricer.cells.masks, t, F, jnp.asarray(done))
            F, steps = _block(*arguments, count, self.line_search)
            taken.append(steps)
            done += count
        network, finite = usable(problem, _network(problem, taken, radius))
        status = status if finite else Status.DIVERGED
        with double_precision():
            double, returned = to_double(problem), to_double(network)
            certificate = certify_priced(double, returned, pricer, double.Y - returned(double.X), None, 1, 1)
        return host_solution(network, network, certificate, status, done, trace, (objective, bound))

    def _radius(self, problem: Problem, init: Any, key: Any) -> float:
        if self.radius is not None:
            return self.radius
        if init is None:
            key = jax.random.key(0) if key is None else key
            run = GradientDescent(width=100, max_steps=2000, schedule="cosine")
            init = solve(problem.replace(arrangements=None), run, key=key).network
        radius = float(balanced_penalty(polish_problem(problem, init)))
        if not radius > 0:
            raise invalid("radius", "None, and a network of zero weights", "radius= a positive number")
        return radius


@jax.jit
def _price(table: Any, problem: Problem, masks: Array, F: Array) -> Any:
    return price_exact(table, problem.rows, masks, problem.readout.lift(problem.Y - F), num=1)


@functools.partial(jax.jit, static_argnames=("count", "line_search"))
def _block(
    table: Any, problem: Problem, masks: Array, t: Array, F: Array, done: Array, count: int, line_search: bool
) -> tuple[Array, _Step]:
    """Take ``count`` steps from the predictions F."""
    rows, readout = problem.rows, problem.readout

    def step(F, k):
        R = problem.Y - F
        lifted = readout.lift(R)
        u = price_exact(table, rows, masks, lifted, num=1).directions[0]
        activation = jax.nn.relu(rows @ u)
        g = unit_rows(lifted.T @ activation)
        change = t * readout.lower(jnp.outer(activation, g)) - F
        best = jnp.clip(divide(jnp.sum(R * change), jnp.sum(change**2)), 0.0, 1.0)
        gamma = best if line_search else (2.0 / (k + 2)).astype(F.dtype)
        return F + gamma * change, _Step(u, g, gamma)

    return jax.lax.scan(step, F, done + jnp.arange(count))


def _network(problem: Problem, taken: list[_Step], radius: float) -> Network:
    """Turn the steps into a network. Neuron k has the weight ``gamma_k`` times all later factors ``1 - gamma_j``."""
    dtype = problem.X.dtype
    if not taken:
        return zero_network(problem)
    steps: Any = jax.tree.map(lambda *parts: np.concatenate([np.asarray(a, np.float64) for a in parts]), *taken)
    later = np.append(np.cumprod((1 - steps.gamma)[::-1])[::-1][1:], 1.0)
    weight = radius * steps.gamma * later
    network = Network(jnp.asarray(steps.u), jnp.asarray(weight[:, None] * steps.g), None, problem.features)
    with double_precision():
        merged = merge_parallel(prune(balance(to_double(network))))
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a), dtype), merged)
