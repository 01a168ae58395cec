"""ColumnGeneration: the global solver. It adds neurons that violate their dual constraint until there are none."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcvx.certificates.priced import certify_priced
from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.networks.network import Network, prune
from jaxcvx.networks.width import reduce_width
from jaxcvx.numerics.on_host import key_of, list_of_keys
from jaxcvx.numerics.precision import double_precision, to_double
from jaxcvx.pricing.faces import face_table
from jaxcvx.pricing.oracles import ExactPricer, choose_pricer
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.host import host_solution, usable
from jaxcvx.solvers.core.protocol import CallbackFunction, HostSolver
from jaxcvx.solvers.core.solution import Solution, Status, StepInfo
from jaxcvx.solvers.semi_infinite.cell_rounds import thorough
from jaxcvx.solvers.semi_infinite.final_rounds import ascent_rounds, exact_rounds
from jaxcvx.solvers.semi_infinite.neuron_path import empty_start, follow_on_host, grow, pace_of, state_at
from jaxcvx.solvers.semi_infinite.pool import Pool, pool_network, pool_objective, pool_of
from jaxcvx.solvers.semi_infinite.scaling import Scaling, scaled_problem
from jaxcvx.solvers.semi_infinite.sliding import Settings, Sliding, start_of, with_candidate
from jaxcvx.solvers.semi_infinite.solve_path import finish_chosen, largest_price, neuron_path

_INSERTIONS = 4  # searches with pricing="branch", each with the neuron that the one before found
_DESCENT = (8.0, 4.0, 2.0, 1.4, 1.0)  # betas of the short path down to that of the problem, as multiples of it


@dataclasses.dataclass(frozen=True)
class ColumnGeneration(HostSolver):
    """Train to the global optimum over networks of any width, at one beta or along a path of betas.

    The method is a sliding, fully corrective Frank-Wolfe method on the penalised problem. A round searches for unit
    neurons u with ``||R^T (Z u)_+|| > beta``, where R is the dual residual. This search is called pricing. The neurons
    found are added, the output weights of all neurons are fitted, and a short Adam run moves all neurons. Neurons of
    one cell are merged and neurons without weight are dropped, so networks stay narrow. The rounds go down a path of
    betas, from a large one with few neurons to that of the problem. They run in float32, and the last ones, without
    moves, in float64.

    Pricing is exact if all cells are known (given, or few enough to enumerate). Then every one of the last rounds has
    a proved bound, and the result is the global optimum to ``tol``, for one output or several, with at most n c + 1
    neurons. Otherwise pricing is a difference-of-convex ascent from the network's own neurons and from fresh starts.
    This is a heuristic: ``lower_bound`` is -inf, and the estimate is ``solution.heuristic_bound``. It is computed at
    the end from ``final_starts`` fresh starts at the residual of the final network. ``tol`` is compared with the gap,
    or with the heuristic gap. :func:`jaxcvx.certify` proves bounds.

    ``solution.params`` is the network. ``init`` may be a Network (for example from Adam), or a list of networks, whose
    neurons are joined; then there is no path. Smooth losses; no skip connection. The loop runs on the host with
    compiled pieces. Under jit and vmap the whole solve is one program of fixed shapes, in the precision of the problem:
    it has no exact pricing and no last rounds, and networks have at most ``width`` neurons. The same key gives the
    same result (default ``jax.random.key(0)``) unless ``max_seconds`` ends the solve.

    Attributes:
      tol: relative gap to reach.
      max_steps: limit on the last rounds.
      pricing: "auto", "exact", "multistart" or "branch". "branch" is multi-start in the loop and branch and bound at
        the end. A neuron that it finds is inserted, and the last rounds go on, up to three times; see also
        :func:`jaxcvx.improve`. The bound is proved for all networks: scope "global" if the branch and bound finished,
        "relaxation" otherwise.
      max_seconds: limit on wall time, or None. It is checked between rounds and does not include the final
        certificate.
      width: number of slots for neurons at first. Outside jit it doubles where they do not suffice.
      new_neurons: largest number of neurons added in a round.
      num_starts: not used any more: the ascents start in all empty slots.
      final_starts: fresh starts of the final heuristic bound.
      branch_nodes: number of nodes at which a search of ``pricing="branch"`` ends. The bound is valid for any number.
      move_steps: Adam steps in a round.
      rate: Adam's initial learning rate, for data of unit scale (the solver scales the data).
      moves: rounds at each beta of a path that move all neurons.
      rounds: largest number of rounds at each beta of a path.
      final_rounds: largest number of rounds in float64 that finish each network of a path; 0 leaves them out.

    Source: A. Sahiner, T. Ergen, J. Pauly and M. Pilanci, "Vector-output ReLU neural network problems are
    copositive programs" (2021): this is the fully corrective version of their Frank-Wolfe method, and the pricing
    problem is the constraint of their semi-infinite dual. Q. Denoyelle, V. Duval, G. Peyre and E. Soubies, "The
    sliding Frank-Wolfe algorithm" (2019).

    Example:
      >>> import jaxcvx
      >>> X, Y = [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [1.0, 0.0, 1.0]
      >>> problem = jaxcvx.make_problem(X, Y, beta=0.1)
      >>> solver = jaxcvx.ColumnGeneration(tol=1e-4, width=8, move_steps=10)
      >>> solution = jaxcvx.solve(problem, solver)
      >>> solution.scope, bool(solution.gap < 1e-3)
      ('global', True)
    """

    tol: float = 1e-6
    max_steps: int = 200
    check_every: int = 1
    pricing: str = "auto"
    max_seconds: float | None = None
    width: int = 64
    new_neurons: int = 32
    num_starts: int = 256
    final_starts: int = 512
    branch_nodes: int = 10_000
    move_steps: int = 150
    rate: float = 3e-3
    moves: int = 8
    rounds: int = 8
    final_rounds: int = 8

    requires = frozenset({"smooth loss", "no skip", "no free hidden bias", "positive beta"})

    def validate(self, problem: Problem) -> None:
        for name in ("width", "new_neurons", "num_starts", "final_starts", "rounds"):
            if getattr(self, name) < 1:
                raise invalid(name, getattr(self, name), "a positive integer")
        for name in ("move_steps", "moves", "final_rounds"):
            if getattr(self, name) < 0:
                raise invalid(name, getattr(self, name), "an integer >= 0")
        if self.max_seconds is not None and not self.max_seconds >= 0:
            raise invalid("max_seconds", self.max_seconds, "None or a number >= 0")

    def settings(self) -> Settings:
        """The sizes of a round."""
        return Settings(
            new_neurons=self.new_neurons,
            moves=self.moves if self.move_steps else 0,
            move_steps=self.move_steps,
            max_rounds=self.rounds,
        )

    def scope(self, problem: Problem) -> str:
        return "heuristic"

    def solve_traced(self, problem: Problem, init: Any, key: Any) -> Solution:
        if init is not None:
            raise invalid("init", "a network under jit", "None: the path starts from nothing there")
        betas = problem.beta * jnp.asarray(_DESCENT, problem.dtype)
        path = self.solve_path(problem, betas, key)
        last = jax.tree.map(lambda a: a[-1], dataclasses.replace(path, betas=None))
        return last

    def solve_path(self, problem: Problem, betas: Any, key: Any, callback: CallbackFunction | None = None) -> Solution:
        """The batched solution at ``betas`` (k,), large ones first; see :func:`jaxcvx.regularization_path`."""
        key = key_of(0) if key is None else key
        settings = self.settings()
        return neuron_path(
            problem,
            betas,
            key,
            capacity=self.width,
            settings=settings,
            rate=self.rate,
            tol=self.tol,
            finish_rounds=self.final_rounds,
            callback=callback,
        )

    def finish_path(self, problem: Problem, path: Solution, chosen: Collection[int], key: Any) -> Solution:
        """The path of :meth:`solve_path` with the ``chosen`` networks finished in float64. Runs outside jit."""
        if not self.final_rounds:
            return path
        key = key_of(0) if key is None else key
        return finish_chosen(
            problem, path, chosen, key, settings=self.settings(), tol=self.tol, finish_rounds=self.final_rounds
        )

    def largest_beta(self, problem: Problem, key: Any) -> Array:
        """An estimate of the smallest beta whose solution is zero, from below, by many ascents."""
        return largest_price(problem, key_of(0) if key is None else key)

    def solve_on_host(self, problem: Problem, init: Any, key: Any, callback: CallbackFunction | None) -> Solution:
        began = time.perf_counter()
        deadline = np.inf if self.max_seconds is None else began + self.max_seconds
        start_key, path_key, last_key, final_key = list_of_keys(key_of(0) if key is None else key, 4)
        trace: list[tuple[int, float, float]] = []
        with double_precision():
            whole = to_double(problem)
            pricer = choose_pricer(whole, self.pricing, self.num_starts, self.branch_nodes)
            work, scaling = scaled_problem(whole)
            inner = _turned(pricer, work, scaling)
        start = self._start(problem, work, init, path_key, pricer.exact, deadline)
        with double_precision():
            start = Sliding(*to_double(start))

            def report(step: int, value: float, bound: float, gap: float, pool: Pool) -> bool:
                trace.append((step, scaling.objective(value), scaling.objective(bound)))
                if callback is None:
                    return False
                seen = scaling.network(pool_network(work, pool), whole)
                return bool(callback(StepInfo("ColumnGeneration", step, self.max_steps, *trace[-1][1:], gap, seen)))

            tol = max(self.tol, 1e-12)
            limits: Any = {"tol": tol, "limit": self.max_steps, "deadline": deadline, "report": report}
            steps = 0
            for last in list_of_keys(last_key, _INSERTIONS):
                if pricer.exact:
                    done = exact_rounds(work, start.pool, inner, num=self.new_neurons, **limits)
                else:
                    done = ascent_rounds(work, start, last, thorough(self.settings()), self.final_starts, **limits)
                pool, dual, steps = done.pool, scaling.residual(done.dual), steps + done.steps
                exact = whole.replace(arrangements=None)
                network = reduce_width(exact, prune(scaling.network(pool_network(work, pool), exact)))
                returned = prune(jax.tree.map(lambda a: a.astype(problem.X.dtype), network))
                returned, finite = usable(exact, returned)
                certificate = certify_priced(
                    exact, to_double(returned), pricer, dual, final_key, self.new_neurons, self.final_starts
                )
                if certificate.neuron is None or done.status == Status.STOPPED or time.perf_counter() > deadline:
                    break
                start = with_candidate(
                    start_of(work, pool, self.settings()), scaling.turned(jnp.asarray(certificate.neuron))
                )
        network = jax.tree.map(jnp.asarray, returned)
        status = done.status if finite else Status.DIVERGED
        return host_solution(network, network, certificate, status, steps, trace)

    def _start(self, problem: Problem, fine: Problem, init: Any, key: Any, exact: bool, deadline: float) -> Sliding:
        """The pool and its candidates before the last rounds, in float32 or float64, of the scaled problem.

        Without ``init`` they come from a short path in float32 down to the beta of the problem. With ``init`` its
        neurons are moved in float32, unless pricing is exact or the moves bring nothing.
        """
        given = None if init is None else self._given(problem, init)
        if given is not None and (exact or not self.moves):
            return given
        work, _ = scaled_problem(problem, jnp.float32)
        factors = _DESCENT if given is None else (1.0,)
        start = empty_start(work, self.width, self.settings())
        if given is not None:
            start = jax.tree.map(lambda a: jnp.asarray(a, work.dtype), given)
        state: Any = None
        for factor, here in zip(factors, list_of_keys(key, len(factors)), strict=True):
            if state is not None and time.perf_counter() > deadline:
                break
            beta, pace = work.beta[None] * factor, pace_of(work, self.settings(), self.rate)
            path = follow_on_host(work, beta, start, here[None], self.settings(), pace)
            start = state = state_at(path, 0)
        with double_precision():
            if given is not None:
                before, after = (float(pool_objective(fine, to_double(each.pool))) for each in (given, state))
                return state if after < before else given
        return state

    def _given(self, problem: Problem, init: Any) -> Sliding:
        """Join the neurons of given networks, in the scaled units."""
        networks = list(init) if isinstance(init, list | tuple) else [init]
        if not networks or not all(isinstance(net, Network) for net in networks):
            raise InvalidTypeError(f"init: got {type(init).__name__}, expected a Network or a list of them.")
        shape = (problem.rows.shape[1], problem.num_columns)
        for net in networks:
            got = (net.hidden.shape[1], net.output.shape[1])
            if got != shape:
                raise invalid("init", f"weights of lengths {got}", f"{shape} for this problem")
        with double_precision():
            work, scaling = scaled_problem(to_double(problem))
            pools = [pool_of(work, scaling.scale_network(to_double(net))) for net in networks]
            share = 1.0 / len(pools)
            pool = Pool(
                jnp.concatenate([a.directions for a in pools]),
                jnp.concatenate([a.weights * share for a in pools]),
                sum((a.bias for a in pools[1:]), pools[0].bias) * share,
            )
            capacity = self.width
            while capacity < len(pool.weights):
                capacity *= 2
            return jax.device_get(grow(start_of(work, pool, self.settings()), capacity, self.settings()))


def _turned(pricer: Any, work: Problem, scaling: Scaling) -> Any:
    """The pricer for the rows of the scaled problem: gates have as many entries as its rows have columns."""
    if scaling.basis is None or not isinstance(pricer, ExactPricer):
        return pricer
    cells = dataclasses.replace(pricer.cells, gates=scaling.turned(pricer.cells.gates))
    return ExactPricer(cells, face_table(work.rows, cells.masks, cells.gates))
