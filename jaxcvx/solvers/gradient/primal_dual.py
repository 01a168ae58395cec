"""PrimalDual: low-rank problems with incoherence constraints, by augmented Lagrangians."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.errors import invalid
from jaxcvx.numerics.trees import register_validated, tree_norm
from jaxcvx.problems.low_rank import Factors, LowRankProblem
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts
from jaxcvx.transforms.scaled_descent import conjugate_descent, largest_singular_value


class Multipliers(NamedTuple):
    """Multipliers of ``||U_i||^2 <= bound^2`` and of ``||V_j||^2 <= bound^2``, at least 0."""

    left: Float[Array, d1]
    right: Float[Array, d2]


@register_validated
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class _Augmented(LowRankProblem):
    """The augmented Lagrangian ``objective + sum_i (relu(lambda_i + rho c_i)^2 - lambda_i^2) / (2 rho)``.

    Squared row norms are quadratic along a line, as the other terms are, so the exact line search applies.
    """

    base: LowRankProblem
    multipliers: Multipliers
    penalty: Float[Array, 2]

    def loss(self, z: Array) -> Array:
        return self.base.loss(z)

    @property
    def loss_curvature(self) -> Any:
        return self.base.loss_curvature

    def measure(self, params: Factors) -> dict[str, Array]:
        L, R = self.factors(params)
        return super().measure(params) | {"left": jnp.sum(L**2, axis=1), "right": jnp.sum(R**2, axis=1)}

    def line(self, params: Factors, direction: Factors) -> tuple[dict[str, Array], ...]:
        (L, R), (P, Q) = self.factors(params), self.factors(direction)

        def rows(A, B):
            return jnp.sum(A * B, axis=1)

        left, right = (rows(L, L), 2 * rows(L, P), rows(P, P)), (rows(R, R), 2 * rows(R, Q), rows(Q, Q))
        coefficients = zip(super().line(params, direction), left, right, strict=True)
        return tuple(c | {"left": a, "right": b} for c, a, b in coefficients)

    def energy(self, measured: dict[str, Array]) -> Array:
        raised = self.raised(measured)
        terms = zip(raised, self.multipliers, self.penalty, strict=True)
        return super().energy(measured) + sum(jnp.sum(h**2 - m**2) / (2 * rho) for h, m, rho in terms)

    def raised(self, measured: dict[str, Array]) -> Multipliers:
        """The next multipliers ``relu(lambda + rho c)``."""
        squares = (measured["left"], measured["right"])
        parts = zip(self.multipliers, self.penalty, squares, self.bounds, strict=True)
        return Multipliers(*(jax.nn.relu(m + rho * (s - b**2)) for m, rho, s, b in parts))

    @property
    def bounds(self) -> Float[Array, 2]:
        assert self.row_bounds is not None
        return self.row_bounds


class _State(NamedTuple):
    params: Factors
    multipliers: Multipliers
    penalty: Array
    bounds: Array
    optimizer: Any
    step: Array
    residual: Array
    objective: Array
    bound: Array


@dataclasses.dataclass(frozen=True)
class PrimalDual(Solver):
    """Minimises the loss of factors whose rows have bounded norm, with multipliers for the bounds.

        min loss(A(U V^T)) + balance h/4 ||U^T U - V^T V||^2   s.t.  ||U_i|| <= alpha_1,  ||V_j|| <= alpha_2

    (Zhang, Wang, Yu and Gu 2018). h is the loss's mean curvature, as in LowRankProblem. The bounds are the problem's
    ``row_bound``, or by default 1.5 times the largest row norms of the spectral estimate. Between updates of the
    multipliers, conjugate scaled gradients with exact steps minimise the augmented Lagrangian.

    ``solution.params`` are the factors. ``solution.dual`` are the Multipliers, zero for rows shorter than their bound.
    ``residual`` is the largest of three numbers, each relative to its scale: the norm of the Lagrangian's gradient,
    the excess of row norms over their bound, and the multipliers of rows that are shorter than their bound. Compare
    the objective with that of other methods only if ``balance`` is 0 or the factors are balanced.

    Works under jit and vmap, in float32 and float64.

    Attributes:
      balance: weight of the balancing term for two factors, for problems without such a weight.
      penalty: rho, relative to h times the largest singular value over the squared bound.
      inner_steps: steps between updates of the multipliers.

    Example:
      >>> import numpy as np
      >>> import jaxcvx
      >>> rows, cols = np.divmod(np.arange(11), 4)  # all entries of a 3 x 4 matrix but the last
      >>> values = np.outer([1.0, 2.0, 3.0], [1.0, -1.0, 2.0, 1.0])[rows, cols]
      >>> problem = jaxcvx.MatrixCompletion(rows, cols, values, (3, 4), rank=1)
      >>> solution = jaxcvx.solve(problem, jaxcvx.PrimalDual())
      >>> print(f"{problem.matrix(solution.params)[2, 3]:.2f}")  # the missing entry
      3.00
    """

    tol: float = 1e-6
    max_steps: int = 5_000
    check_every: int = 25
    balance: float = 0.5
    penalty: float = 0.2
    inner_steps: int = 25

    requires = frozenset()
    problem_kinds = (LowRankProblem,)  # type: ignore[assignment]

    def validate(self, problem: Any) -> None:
        for name in ("penalty", "inner_steps"):
            if not getattr(self, name) > 0:
                raise invalid(name, getattr(self, name), "a positive number")
        if not self.balance >= 0:
            raise invalid("balance", self.balance, "a number >= 0")

    def initial_params(self, problem: Any, key: Any) -> Factors:
        return problem.initial_params(key)

    def adopt(self, problem: Any, init: Any) -> Factors:
        return problem.adopt(init)

    def _augmented(self, problem: Any, multipliers: Multipliers, penalty: Array, bounds: Array) -> _Augmented:
        augmented = object.__new__(_Augmented)
        balance = problem.balance or (0.0 if problem.symmetric else self.balance)
        common = {f.name: getattr(problem, f.name) for f in dataclasses.fields(LowRankProblem)}
        common |= {"row_bounds": bounds, "balance": balance}
        augmented.__dict__.update(common, base=problem, multipliers=multipliers, penalty=penalty)
        return augmented

    def init(self, problem: Any, key: Any, params: Factors) -> _State:
        one = jnp.ones((), problem.dtype)
        bounds = problem.estimated_row_bounds()
        penalty = self.penalty * problem.curvature * largest_singular_value(problem) / bounds**2
        multipliers = Multipliers(*(jnp.zeros(d, problem.dtype) for d in problem.shape))
        optimizer = conjugate_descent(self._augmented(problem, multipliers, penalty, bounds), problem.shrinkage)
        return _State(
            params,
            multipliers,
            penalty,
            bounds,
            optimizer.init(params),
            jnp.asarray(0, jnp.int32),
            jnp.inf * one,
            jnp.inf * one,
            -jnp.inf * one,
        )

    def step(self, problem: Any, state: _State) -> _State:
        augmented = self._augmented(problem, state.multipliers, state.penalty, state.bounds)
        gradient = jax.grad(augmented.objective)(state.params)
        optimizer = conjugate_descent(augmented, problem.shrinkage)
        updates, memory = optimizer.update(gradient, state.optimizer, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        step = state.step + 1
        raised = augmented.raised(augmented.measure(params))
        due = step % self.inner_steps == 0
        multipliers = jax.tree.map(lambda new, old: jnp.where(due, new, old), raised, state.multipliers)
        return state._replace(params=params, multipliers=multipliers, optimizer=memory, step=step)

    def check(self, problem: Any, state: _State) -> _State:
        augmented = self._augmented(problem, state.multipliers, state.penalty, state.bounds)
        gradient = jax.grad(augmented.objective)(state.params)
        scale = problem.gradient_scale(state.params, jnp.zeros((), problem.dtype))
        stationarity = tree_norm(gradient) / jnp.maximum(scale, jnp.finfo(scale.dtype).tiny)
        measured = augmented.measure(state.params)
        excess, complementarity = [], []
        parts = zip(
            (measured["left"], measured["right"]), augmented.bounds, state.penalty, state.multipliers, strict=True
        )
        for square, bound, rho, multiplier in parts:
            slack = square / bound**2 - 1
            excess.append(jnp.max(jax.nn.relu(slack)))
            complementarity.append(jnp.max(jnp.minimum(multiplier / (rho * bound**2), jax.nn.relu(-slack))))
        residual = jnp.max(jnp.stack([stationarity, *excess, *complementarity]))
        return state._replace(residual=residual, objective=problem.objective(state.params))

    def finish(self, problem: Any, state: _State) -> Outcome:
        return Outcome(state.params, state.multipliers)

    def evaluate(self, problem: Any, outcome: Outcome) -> Parts:
        objective = problem.objective(outcome.params)
        no_bound = jnp.full_like(objective, -jnp.inf)
        return Parts(problem.network(outcome.params), objective, no_bound, problem.lower_bound())

    def scope(self, problem: Any) -> str:
        proves = type(problem).lower_bound is not LowRankProblem.lower_bound
        return "global" if proves else "none"
