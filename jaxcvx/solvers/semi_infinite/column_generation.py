"""ColumnGeneration: the global solver. It adds neurons that violate their dual constraint until there are none."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcvx.certificates.certificate import Certificate
from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.certificates.priced import certify_priced
from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.networks.network import Network, prune
from jaxcvx.networks.width import reduce_width
from jaxcvx.numerics.precision import double_precision, to_double
from jaxcvx.pricing.oracles import Pricer, choose_pricer
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.host import host_solution, usable
from jaxcvx.solvers.core.protocol import CallbackFunction, HostSolver
from jaxcvx.solvers.core.solution import Solution, Status, StepInfo
from jaxcvx.solvers.semi_infinite.fine_pool import fine_problem, fit_finely, insert_finely, price_finely
from jaxcvx.solvers.semi_infinite.pool import (
    Pool,
    dual_residual,
    fit_weights,
    insert,
    move,
    pool_network,
    pool_objective,
    pool_of,
    resize,
    reweight,
    strongest,
)
from jaxcvx.solvers.semi_infinite.scaling import Scaling, scaled_problem

_MAX_BATCHES = 8  # largest number of batches of starts in a round of multi-start pricing
_STALLED = 1e-6  # relative gain of a round below which only float32 rounding is left
_FINE_GAIN = 1e-9  # relative constraint violation from which a neuron is added in float64
_FINEST = 1e-9  # smallest relative gap that is aimed at in float64
_OWN_STARTS = 256  # neurons of the network from which multi-start pricing also starts


@dataclasses.dataclass(frozen=True)
class ColumnGeneration(HostSolver):
    """Train to the global optimum over networks of any width: fully corrective Frank-Wolfe on the penalised problem.

    Each round searches for unit neurons u with ``||R^T (Z u)_+|| > beta``, where R is the residual. This search is
    called pricing. The neurons found are added, a group lasso fits the output weights of all neurons, and a short Adam
    run moves all neurons. Pricing finds the cells; the gradient steps turn the directions within them. Neurons without
    weight are dropped.

    Pricing is exact if all cells are known (given, or few enough to enumerate). Then every round has a proved bound,
    and the result is the global optimum to ``tol``, for one output or several, with at most n c + 1 neurons. Otherwise
    pricing is a difference-of-convex ascent from many starts. This is a heuristic: ``lower_bound`` is -inf, and the
    estimate is ``solution.heuristic_bound``. It is computed at the end from at least ``final_starts`` fresh starts at
    the residual of the final network. ``tol`` is compared with the gap, or with the heuristic gap.

    ``solution.params`` is the network. ``init`` may be a Network (for example from Adam), or a list of networks, whose
    neurons are joined. Without ``init`` the solver begins with a short Adam run. Smooth losses; no skip connection.
    The solver runs on the host with compiled pieces; it does not run under jit or vmap. The same key gives the same
    result (default ``jax.random.key(0)``) unless ``max_seconds`` ends the solve.

    Attributes:
      tol: relative gap to reach.
      max_steps: limit on rounds.
      pricing: "auto", "exact", "multistart" or "branch". "branch" is multi-start in the loop and branch and bound at
        the end. Its bound is proved for all networks: scope "global" if the branch and bound finished, "relaxation"
        otherwise.
      max_seconds: limit on wall time, or None. It is checked between rounds and does not include the final
        certificate.
      width: neurons of the first Adam run. The pool holds twice as many and grows if needed.
      new_neurons: largest number of neurons added in a round.
      num_starts: random starts of multi-start pricing, in addition to the current neurons.
      final_starts: fresh starts of the final heuristic bound.
      branch_nodes: largest number of nodes for ``pricing="branch"``.
      move_steps: Adam steps in a round.
      rate: Adam's initial learning rate, for data of unit scale (the solver scales the data).

    Source: A. Sahiner, T. Ergen, J. Pauly and M. Pilanci, "Vector-output ReLU neural network problems are
    copositive programs" (2021). This solver is the fully corrective version of their Frank-Wolfe method. The pricing
    problem is the constraint of their semi-infinite dual.

    Example:
      >>> import jaxcvx
      >>> X, Y = [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [1.0, 0.0, 1.0]
      >>> problem = jaxcvx.make_problem(X, Y, beta=0.1)
      >>> solver = jaxcvx.ColumnGeneration(tol=1e-4, width=8, new_neurons=8, move_steps=10)
      >>> solution = jaxcvx.solve(problem, solver)
      >>> solution.scope, bool(solution.gap < 1e-3)
      ('global', True)
    """

    tol: float = 1e-6
    max_steps: int = 200
    check_every: int = 1
    pricing: str = "auto"
    max_seconds: float | None = None
    width: int = 100
    new_neurons: int = 100
    num_starts: int = 256
    final_starts: int = 5000
    branch_nodes: int = 10_000
    move_steps: int = 1000
    rate: float = 2e-3

    requires = frozenset({"smooth loss", "no skip", "no free bias", "positive beta"})

    def validate(self, problem: Problem) -> None:
        for name in ("width", "new_neurons", "num_starts", "final_starts"):
            if getattr(self, name) < 1:
                raise invalid(name, getattr(self, name), "a positive integer")
        if self.move_steps < 0:
            raise invalid("move_steps", self.move_steps, "an integer >= 0")
        if self.max_seconds is not None and not self.max_seconds >= 0:
            raise invalid("max_seconds", self.max_seconds, "None or a number >= 0")

    def solve_on_host(self, problem: Problem, init: Any, key: Any, callback: CallbackFunction | None) -> Solution:
        began = time.perf_counter()
        pricer = choose_pricer(problem, self.pricing, self.num_starts, self.branch_nodes)
        exact = pricer.exact
        work, scaling = scaled_problem(problem, None if exact else jnp.float32)
        keys = jax.random.split(jax.random.key(0) if key is None else key, self.max_steps + 2)
        pool = self._start(work, init, keys[0], scaling)
        trace: list[tuple[int, float, float]] = []
        status, steps, batches, value = Status.MAX_STEPS, 0, 1, np.inf
        tol = max(self.tol, 256 * float(jnp.finfo(work.X.dtype).eps))
        bound, dual = -np.inf, jnp.zeros_like(work.Y)
        fine = None  # the scaled problem in float64, from the round on where float32 brings no more progress
        exact_R = np.zeros(work.Y.shape)
        for steps in range(self.max_steps + 1):
            before = value
            if fine is None:
                pool, R = fit_weights(work, pool) if exact else (pool, dual_residual(work, pool))
                value = float(pool_objective(work, pool))
            else:
                pool, exact_R, value = fit_finely(fine, pool)
                R = jnp.asarray(exact_R, work.X.dtype)
            own = strongest(pool, _OWN_STARTS).astype(work.X.dtype)
            priced = pricer(work, R, keys[steps + 1], own, self.new_neurons, batches)
            directions: Any = priced.directions
            values: Any = priced.values
            if fine is None:
                norm = priced.upper if exact else jnp.maximum(values[0], work.beta)
                low = float(scaled_bound(work, R, norm))
            else:
                directions, values, low = price_finely(fine, exact_R, directions)
            if low > bound:
                bound, dual = low, R
            shown = bound if exact else low
            gap = (value - shown) / max(abs(value), np.finfo(float).tiny)
            trace.append((steps, scaling.objective(value), scaling.objective(shown)))
            stop = False
            if callback is not None:
                seen = scaling.network(pool_network(work, pool), problem)
                stop = callback(StepInfo("ColumnGeneration", steps, self.max_steps, *trace[-1][1:], gap, seen))
            late = self.max_seconds is not None and time.perf_counter() - began > self.max_seconds
            if gap <= tol or stop or late:
                status = Status.CONVERGED if gap <= tol else Status.STOPPED if stop else Status.MAX_STEPS
                break
            if gap < 0.02:  # the neurons that remain to be found are rare
                batches = min(2 * batches, _MAX_BATCHES)
            if fine is not None:
                wanted = values > fine.beta * (1 + _FINE_GAIN)
                pool = insert_finely(self._with_room(pool, wanted), directions, wanted)
                continue
            if not exact and work.loss.is_quadratic and value > before * (1 - _STALLED):
                fine, tol = fine_problem(problem), max(self.tol, _FINEST)
            wanted = values > work.beta * (1 + (1e-12 if exact else 5e-4))
            pool = self._round(work, pool, directions, wanted, exact)
        network = scaling.network(pool_network(work, pool), problem)
        network, certificate, finite = self._finish(problem, pricer, pool_of(network), scaling.residual(dual), keys[-1])
        status = status if finite else Status.DIVERGED
        return host_solution(network, network, certificate, status, steps, trace)

    def _start(self, work: Problem, init: Any, key: Any, scaling: Scaling) -> Pool:
        """Build the first pool from given networks or by a short Adam run."""
        if init is None:
            p, q = work.rows.shape[1], work.num_columns
            first, second = jax.random.split(key)
            network = Network(
                jax.random.normal(first, (self.width, p), work.X.dtype) / p**0.5,
                jax.random.normal(second, (self.width, q), work.X.dtype) / self.width**0.5,
                None,
                work.features,
            )
            pool = pool_of(network)
            if self.move_steps:
                pool = move(work, pool, 5 * self.move_steps, jnp.asarray(5 * self.rate, work.X.dtype))
        else:
            networks = list(init) if isinstance(init, list | tuple) else [init]
            if not networks or not all(isinstance(net, Network) for net in networks):
                raise InvalidTypeError(f"init: got {type(init).__name__}, expected a Network or a list of them.")
            shape = (work.rows.shape[1], work.num_columns)
            pools = []
            for net in networks:
                got = (net.hidden.shape[1], net.output.shape[1])
                if got != shape:
                    raise invalid("init", f"weights of lengths {got}", f"{shape} for this problem")
                pools.append(pool_of(scaling.scale_network(net)))
            share = 1.0 / len(pools)
            pool = Pool(
                jnp.concatenate([a.directions for a in pools]),
                jnp.concatenate([a.weights * share for a in pools]),
            )
            pool = jax.tree.map(lambda a: a.astype(work.X.dtype), pool)
        used = int(np.any(np.asarray(pool.weights) != 0, axis=1).sum())
        capacity = 64
        while capacity < max(2 * self.width, used + self.new_neurons):
            capacity *= 2
        return resize(pool, capacity)

    def _with_room(self, pool: Pool, wanted: Array) -> Pool:
        """Double the capacity of the pool if few of the wanted neurons would find a slot."""
        free = int(np.all(np.asarray(pool.weights) == 0, axis=1).sum())
        full = free < min(int(wanted.sum()), self.new_neurons // 2)
        return resize(pool, 2 * pool.weights.shape[0]) if full else pool

    def _round(self, work: Problem, pool: Pool, directions: Array, wanted: Array, exact: bool) -> Pool:
        """Add neurons, then reweight and move all neurons."""
        pool = insert(self._with_room(pool, wanted), directions, wanted)
        if exact:
            return pool  # the next round begins with the exact fit
        pool = reweight(work, pool, 800)
        if self.move_steps:
            pool = move(work, pool, self.move_steps, jnp.asarray(self.rate, work.X.dtype))
        return pool

    def _finish(
        self, problem: Problem, pricer: Pricer, pool: Pool, dual: Any, key: Any
    ) -> tuple[Network, Certificate, bool]:
        """Return the final network (exact weights, smallest width), its certificate, and True if it is finite."""
        with double_precision():
            exact = to_double(problem.replace(arrangements=None))
            pool, _ = fit_weights(exact, to_double(pool))
            network = reduce_width(exact, prune(pool_network(exact, pool)))
            returned = prune(jax.tree.map(lambda a: a.astype(problem.X.dtype), network))
            returned, finite = usable(exact, returned)
            certificate = certify_priced(
                exact, to_double(returned), pricer, to_double(dual), key, self.new_neurons, self.final_starts
            )
        return jax.tree.map(jnp.asarray, returned), certificate, finite
