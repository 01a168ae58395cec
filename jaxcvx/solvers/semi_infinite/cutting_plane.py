"""CuttingPlane: solve the dual semi-infinite program by adding the most violated constraints."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcvx.certificates.centring import feasible_residual
from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.certificates.priced import certify_priced
from jaxcvx.errors import invalid, wrong_type
from jaxcvx.networks.network import Network, balance, hidden_norms, prune
from jaxcvx.numerics.precision import double_precision, to_double
from jaxcvx.numerics.safe import divisor
from jaxcvx.pricing.oracles import ORACLES, choose_oracle
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.host import host_solution, usable
from jaxcvx.solvers.core.protocol import CallbackFunction, HostSolver
from jaxcvx.solvers.core.solution import Solution, Status, StepInfo
from jaxcvx.solvers.semi_infinite.master import Cuts, cleaned, cuts_network, cuts_objective, fit_cuts, grown

_NEAR = 1e-9  # neurons closer than this count as the same cut


@dataclasses.dataclass(frozen=True)
class CuttingPlane(HostSolver):
    """Train to the global optimum by cutting planes in the dual, with or without free hidden and output biases.

    The dual of training is ``max_R -loss*(-R)`` subject to ``||R^T (Z u)_+|| <= beta`` for every unit neuron u. The
    constraint of one neuron is called a cut. Each round has three steps. First it solves the dual with the cuts so far
    (the master program). The multipliers are the output weights of a network of these neurons, which gives an upper
    bound. Then an oracle searches for the neurons whose constraints R violates most; a scaled R gives a lower bound.
    Finally these neurons are added.

    The oracles are, with the ``solution.scope`` of the bound:

      "sweep" (global)          exact in O(n log n). For samples on a line with :class:`jaxcvx.FreeBias`, or rows of
                                rank at most two (the column of ones of a penalised bias included).
      "faces" (global)          exact over all cells, for data of low rank.
      "cone" (global)           exact on spike-free data.
      "multistart" (heuristic)  for any data. ``lower_bound`` is -inf, and the estimate is ``heuristic_bound``.
      "auto"                    the first of these that fits.

    All losses except softmax are accepted, several outputs only with the squared loss. Minimum-norm interpolation is
    the loss ``"interpolation"``. ``solution.params`` holds the cuts: ``directions``, ``weights``, ``output_bias`` and
    the ``dual`` point of the best bound. The dual point is feasible if the oracle is exact. ``init`` may be a Network,
    whose neurons become the first cuts. The solver runs on the host in float64 with compiled pieces; it does not run
    under jit or vmap.

    Attributes:
      tol: relative gap to reach.
      max_steps: limit on rounds.
      oracle: one of the names above.
      new_neurons: largest number of cuts added in a round.
      num_starts: random starts of "multistart".
      final_starts: fresh starts of its final estimate.

    Source: T. Ergen and M. Pilanci, "Convex geometry and duality of over-parameterized neural networks", JMLR 22
    (2021), algorithms 1 and 3. The cone oracle is their relaxation; it is used only where it is exact.

    Example:
      >>> import jaxcvx
      >>> problem = jaxcvx.make_problem([[0.0], [1.0], [2.0]], [0.0, 1.0, 0.0], 0.1, features=jaxcvx.FreeBias())
      >>> solution = jaxcvx.solve(problem, jaxcvx.CuttingPlane())
      >>> solution.scope, bool(solution.gap < 1e-4)
      ('global', True)
    """

    tol: float = 1e-6
    max_steps: int = 200
    check_every: int = 1
    oracle: str = "auto"
    new_neurons: int = 16
    num_starts: int = 256
    final_starts: int = 5000

    requires = frozenset({"no sample weights", "no skip", "positive beta"})

    def validate(self, problem: Problem) -> None:
        if not problem.loss.is_quadratic:
            if problem.num_columns > 1:
                got = f"{problem.num_columns} output weights per neuron with loss {problem.loss.name!r}"
                raise invalid("problem", got, "one for CuttingPlane, or the squared loss")
            problem.loss.dual_interval(problem.Y)  # raises for losses that are not a sum over entries
        if self.oracle not in ORACLES:
            raise invalid("oracle", repr(self.oracle), "one of " + ", ".join(map(repr, ORACLES)))
        for name in ("new_neurons", "num_starts", "final_starts"):
            if getattr(self, name) < 1:
                raise invalid(name, getattr(self, name), "a positive integer")

    def solve_on_host(self, problem: Problem, init: Any, key: Any, callback: CallbackFunction | None) -> Solution:
        with double_precision():
            return self._solve(problem, init, key, callback)

    def _solve(self, problem: Problem, init: Any, key: Any, callback: CallbackFunction | None) -> Solution:
        work = to_double(problem.replace(arrangements=None))
        oracle = choose_oracle(work, self.oracle, self.num_starts)
        key = jax.random.key(0) if key is None else key
        cuts = self._start(work, init)
        trace: list[tuple[int, float, float]] = []
        status, best, dual = Status.MAX_STEPS, -np.inf, cuts.dual
        tol = max(self.tol, 256 * float(jnp.finfo(work.X.dtype).eps))
        for step in range(self.max_steps + 1):
            R = feasible_residual(work, work.loss.project_dual(cuts.dual, work.Y))
            priced = oracle(work, R, jax.random.fold_in(key, step), cuts.directions, self.new_neurons)
            norm = priced.upper if oracle.exact else jnp.maximum(priced.values[0], work.beta)
            low = float(scaled_bound(work, R, norm))
            if low > best:
                best, dual = low, R * work.loss.best_scaling(R, work.Y, work.beta / norm)
            value, shown = float(cuts_objective(work, cuts)), best if oracle.exact else low
            gap = (value - shown) / max(abs(value), np.finfo(float).tiny)
            trace.append((step, value, shown))
            stop = callback is not None and callback(
                StepInfo("CuttingPlane", step, self.max_steps, value, shown, gap, cuts)
            )
            if gap <= tol or stop or step == self.max_steps:
                status = Status.CONVERGED if gap <= tol else Status.STOPPED if stop else status
                break
            unsolved = step == 0 and init is None  # no master program has been solved yet: take every neuron
            new = _violated(cuts, priced.directions, priced.values, 0.0 if unsolved else float(work.beta))
            if not len(new):
                break  # the master program is solved to its last digit
            cuts = fit_cuts(work, self._added(cuts, new), tol=self._master_tol())
        if work.num_columns == 1:
            cuts = cleaned(work, cuts)
        network = prune(jax.tree.map(lambda a: a.astype(problem.X.dtype), cuts_network(work, cuts)))
        network, finite = usable(problem, network)
        certificate = certify_priced(work, to_double(network), oracle, dual, key, self.new_neurons, self.final_starts)
        bound = certificate.lower if oracle.exact else certificate.heuristic_bound
        if certificate.upper - bound <= tol * max(abs(certificate.upper), np.finfo(float).tiny):
            status = Status.CONVERGED
        status = status if finite else Status.DIVERGED
        params, network = jax.device_get((cuts._replace(dual=dual), network))
        return host_solution(jax.tree.map(jnp.asarray, network), params, certificate, status, len(trace) - 1, trace)

    def _start(self, work: Problem, init: Any) -> Cuts:
        """Begin without cuts or with the neurons of a given network. Without cuts the dual point is Y."""
        p, q = work.rows.shape[1], work.num_columns
        cuts = Cuts(jnp.zeros((64, p)), jnp.zeros((64, q)), jnp.zeros(work.num_outputs), work.Y)
        if init is None:
            return cuts
        if isinstance(init, Cuts):  # from a checkpoint
            return self._checked(to_double(init), cuts)
        if not isinstance(init, Network):
            raise wrong_type("init", init, "a Network or an earlier solve's Cuts")
        got = (init.hidden.shape[1], init.output.shape[1])
        if got != (p, q):
            raise invalid("init", f"weights of lengths {got}", f"{(p, q)} for this problem")
        network = prune(balance(to_double(init)))
        size = np.asarray(hidden_norms(network))[:, None]
        unit = np.asarray(network.hidden) / divisor(size)
        return fit_cuts(work, self._added(cuts, unit[size[:, 0] > 0]), tol=self._master_tol())

    def _checked(self, init: Cuts, like: Cuts) -> Cuts:
        """Return the cuts of an earlier solve, or raise if their shapes do not fit those of ``like``."""
        got, expected = ([np.shape(a) for a in cuts] for cuts in (init, like))
        slots = len(np.atleast_1d(init.directions))
        if got != [(slots, *expected[0][1:]), (slots, *expected[1][1:]), *expected[2:]]:
            raise invalid("init", f"Cuts of shapes {got}", f"{expected} here, with any number of directions")
        if not all(np.isfinite(a).all() for a in init):
            raise invalid("init", "NaN or inf", "finite numbers")
        return init

    def _master_tol(self) -> float:
        return min(1e-6, max(1e-11, 1e-3 * self.tol))

    def _added(self, cuts: Cuts, new: np.ndarray) -> Cuts:
        total = int(np.any(np.asarray(cuts.directions) != 0, axis=1).sum()) + len(new)
        capacity = cuts.directions.shape[0]
        while capacity < total:
            capacity *= 2
        return grown(cuts, new, capacity)


def _violated(cuts: Cuts, directions: Array, values: Array, beta: float) -> np.ndarray:
    """Select the neurons whose constraints are violated and that are not cuts yet."""
    violated = np.asarray(directions)[np.asarray(values) > beta * (1 + 1e-13)]
    old = np.asarray(cuts.directions)
    far = [np.abs(old - u).max(axis=1).min() > _NEAR * max(1.0, np.abs(u).max()) for u in violated]
    return violated[np.asarray(far, bool)]
