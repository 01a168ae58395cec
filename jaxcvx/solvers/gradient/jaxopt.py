"""Jaxopt: any minimiser of jaxopt, or any optax optimiser, on the problem itself; a baseline."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.errors import InvalidTypeError, MissingExtraError, invalid, wrong_type
from jaxcvx.numerics.precision import default_promotion
from jaxcvx.numerics.trees import all_finite, tree_norm
from jaxcvx.problems.smooth import SmoothProblem
from jaxcvx.solvers.gradient.base import BestSeen, SmoothSolver, optax_step

# Fields of a minimiser that have to suit the objective below and the compiled loop around it.
_FIXED = {"value_and_grad": False, "has_aux": False, "jit": True, "unroll": "auto"}


class _State(NamedTuple):
    params: Any  # best seen at a check
    current: Any  # free variables: before they are put on spheres and constraints
    optimizer: Any
    step: Array
    residual: Array
    objective: Array
    gradient: Array
    bound: Array


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda a: a.astype(dtype), tree)


def _feasible(params: Any, smooth: SmoothProblem) -> Any:
    """The problem's params at free variables."""
    return smooth.retract(_cast(params, smooth.dtype))


def _objective(params: Any, smooth: SmoothProblem) -> Float[Array, ""]:
    """The objective as a function of free variables.

    Variables and value have jax's default floating type, because line searches of jaxopt fail in float32 if that is
    float64.
    """
    return smooth.objective(_feasible(params, smooth)).astype(float)


def _like(new: Any, old: Any) -> Any:
    """``new`` in the dtypes of ``old``: the state of a loop must keep them, and jaxopt's does not always."""
    return jax.tree.map(lambda a, b: a if a.dtype == b.dtype else a.astype(b.dtype), new, old)


@dataclasses.dataclass(frozen=True)
class Jaxopt(SmoothSolver):
    """Minimises the objective of a training problem, or of any smooth problem, with a minimiser of jaxopt or optax.

    ``solver`` is a jaxopt class, or an instance of one, or an optax transformation. The ``fun`` of an instance is
    replaced by the problem's objective. An optax transformation may have a line search, as ``optax.lbfgs()`` has.

    The loop is this library's, so the minimiser's own ``maxiter`` and ``tol`` are not used. ``max_steps`` counts the
    minimiser's steps. Residual, bounds and scope are those of :class:`jaxcvx.GradientDescent`: the residual is the
    gradient norm, relative to the weight decay's part of it for networks, else to the largest seen.

    The minimiser works on free variables. The objective itself puts them on unit spheres and constraints, where the
    problem has such.

    Works under jit and vmap, in float32 and float64, with callbacks and checkpoints. jaxopt is imported only if
    ``solver`` is not an optax transformation. A second ``solve`` compiles nothing if its solver equals the first one.
    Two solvers of the same class and equal options are equal. Those of two instances, or of two transformations made
    by separate calls, are not.

    Attributes:
      solver: a class such as ``jaxopt.LBFGS``, an instance of one, or an optax GradientTransformation. The jaxopt
        minimisers without constraints fit: LBFGS, BFGS, NonlinearCG, GradientDescent, ArmijoSGD, PolyakSGD and
        OptaxSolver.
      options: arguments for the class, such as ``{"history_size": 20}``. Their values must be hashable.
      width: number of hidden neurons m, where the problem is a network's.
      init_scale: scale of a network's random initial weights (1: He initialisation).

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxopt
      >>> import jaxcvx
      >>> X, y = jnp.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), jnp.array([1.0, 2.0, 2.0])
      >>> problem = jaxcvx.LeastSquares(X, y, jnp.zeros(2), lambda theta, X: X @ theta)
      >>> solution = jaxcvx.solve(problem, jaxcvx.Jaxopt(jaxopt.LBFGS))
      >>> print(solution.params.round(3))
      [1. 1.]
    """

    solver: Any
    options: Any = ()
    _: dataclasses.KW_ONLY
    tol: float = 1e-6
    max_steps: int = 5_000
    check_every: int = 20
    width: int = 100
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.options, Mapping):  # static arguments must be hashable
            object.__setattr__(self, "options", tuple(sorted(self.options.items())))

    def validate(self, problem: Any) -> None:
        super().validate(problem)
        try:
            hash(self)
        except TypeError as err:
            raise InvalidTypeError(f"solver or options: got something unhashable ({err}), expected hashable.") from err
        if self._is_optax():
            if self.options:
                raise invalid("options", dict(self.options), "none with an optax transformation, which has its own")
            return
        self._minimiser()

    def _is_optax(self) -> bool:
        import optax

        return isinstance(self.solver, optax.GradientTransformation)

    def _minimiser(self) -> Any:
        """The jaxopt minimiser of ``_objective``.

        Raises:
          MissingExtraError: jaxopt is not installed.
          InvalidTypeError, InvalidInputError: ``solver`` is not an unconstrained minimiser, or has no such options.
        """
        try:
            from jaxopt.base import IterativeSolver
        except ImportError as err:
            raise MissingExtraError("jaxopt is needed by jaxcvx.Jaxopt: pip install jaxopt") from err
        given = self.solver
        kind: Any = given if isinstance(given, type) else type(given)
        expected = "a minimiser of jaxopt, such as jaxopt.LBFGS, or an optax transformation"
        if not issubclass(kind, IterativeSolver):
            raise wrong_type("solver", given, expected)
        fields = {field.name for field in dataclasses.fields(kind)}
        arguments = list(inspect.signature(kind.update).parameters.values())[3:]  # after self, params and state
        if "fun" not in fields or (arguments and arguments[0].kind is not inspect.Parameter.VAR_POSITIONAL):
            raise invalid("solver", kind.__name__, "a minimiser of one function without constraints")
        fixed = {"fun": _objective} | {name: value for name, value in _FIXED.items() if name in fields}
        if kind is not given:
            if self.options:
                raise invalid("options", dict(self.options), f"none with an instance of {kind.__name__}")
            return dataclasses.replace(given, **fixed)
        try:
            return kind(**dict(self.options) | fixed)
        except TypeError as err:
            raise invalid("options", dict(self.options), f"those of jaxopt.{kind.__name__} ({err})") from err

    def init(self, problem: Any, key: Any, params: Any) -> _State:
        current = _cast(params, float)
        with default_promotion():
            if self._is_optax():
                optimizer = self.solver.init(current)
            else:
                optimizer = self._minimiser().init_state(current, self.smooth(problem))
        return _State(
            current=current,
            optimizer=jax.tree.map(jnp.asarray, optimizer),
            step=jnp.asarray(0, jnp.int32),
            bound=jnp.full((), -jnp.inf, problem.dtype),
            **self.start(problem, params)._asdict(),
        )

    def step(self, problem: Any, state: _State) -> _State:
        smooth = self.smooth(problem)
        update = self._optax_step if self._is_optax() else self._minimiser().update
        with default_promotion():
            new = _like(tuple(update(state.current, state.optimizer, smooth)), (state.current, state.optimizer))

        def at_rest() -> Array:
            size = tree_norm(jax.grad(_objective)(state.current, smooth))
            return size <= float(jnp.finfo(problem.dtype).eps) * state.gradient.astype(size.dtype)

        # Some minimisers divide by the gradient norm: where it is zero, the iterate stays.
        stays = jax.lax.cond(all_finite(new[0]), lambda: jnp.zeros((), bool), at_rest)
        current, optimizer = jax.tree.map(lambda a, b: jnp.where(stays, b, a), new, (state.current, state.optimizer))
        return state._replace(current=current, optimizer=optimizer, step=state.step + 1)

    def _optax_step(self, params: Any, state: Any, smooth: SmoothProblem) -> tuple[Any, Any]:
        return optax_step(self.solver, state, params, lambda at: _objective(at, smooth), lambda at, gradient: gradient)

    def check(self, problem: Any, state: _State) -> _State:
        current = _feasible(state.current, self.smooth(problem))
        seen = self.look(problem, current, BestSeen(*(getattr(state, name) for name in BestSeen._fields)))
        return state._replace(**seen._asdict())
