"""AnnealedNoise: gradient descent with gradients at perturbed iterates, whose perturbation is annealed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcvx.errors import invalid
from jaxcvx.numerics.noise import check_noise, perturbed
from jaxcvx.numerics.precision import default_promotion
from jaxcvx.numerics.trees import tree_norm
from jaxcvx.problems.smooth import SmoothProblem
from jaxcvx.solvers.gradient.base import SmoothSolver, optax_step
from jaxcvx.transforms import noise_annealed as paper
from jaxcvx.transforms.schedules import check_radius, epochwise_geometric, radius_tree

_ADAM_RATE = 3e-2
_RELATIVE_RADIUS = 0.5


class _State(NamedTuple):
    params: Any  # best seen at a check
    current: Any
    optimizer: Any
    radii: Any  # of the first epoch
    key: Array
    step: Array
    residual: Array
    objective: Array
    gradient: Array
    bound: Array


@dataclasses.dataclass(frozen=True)
class AnnealedNoise(SmoothSolver):
    """Perturbed gradient descent with noise annealing (Zhou et al., ICML 2019, Algorithm 1), for every smooth problem.

    Every step takes the gradient at ``current + noise`` (normalised for variables on a sphere) and moves ``current``
    by it. Radius and learning rate are constant within an epoch and shrink from one epoch to the next. So the first
    epochs descend a smoothed objective, and the last ones the objective itself, which escapes spurious minima. The
    solution holds the best iterate of all checks. ``residual`` is the larger of two numbers: the gradient norm, as in
    ``GradientDescent``, and the present radius relative to the first epoch's. So no stationary point ends the run
    while there is noise.

    Defaults in epoch s, if the problem has variables on unit spheres: the paper's constants, which are plain gradient
    steps of 0.1 * 0.8^s, radius 36 * 0.4^s on spheres and 0.4^s for all other variables, 20 epochs of 400 steps.
    Defaults for other problems (networks on data, factorisations): the problem's own optimiser, or else Adam with
    0.03 * 0.8^s. The radius of each array is half its norm at the start, times 0.4^s.

    Measured on the 12-point spiral, beta .01, 10 neurons, 60 new keys: .95 of the runs end within 1e-3 of the
    optimum, and all within 3e-3. Of Adam's runs without noise .22 do, and the others end up to 40% above it. On
    TeacherCNN with k=25, p=6 and the hardest teachers (1'a* = 0) .92 of the runs from random starts find the global
    minimum; with :meth:`patient` all do (docs/reproduction.md).

    Works under jit and vmap (over keys, starts, data), in float32 and float64.

    Attributes:
      learning_rate: of the first epoch. None: the defaults above.
      learning_rate_decay: factor from one epoch to the next.
      radius: of the first epoch, absolute: a number, or a mapping from the outermost names of the params to
        numbers (``{"w": 36, "a": 1}``, ``{"hidden": .1, "output": 0}``). None: the defaults above.
      radius_decay: factor from one epoch to the next; 1 is no annealing.
      epoch_length: steps per epoch.
      optimizer: an optax transformation with its own learning rate, which replaces the default one.
      noise: "ball", "sphere" or "normal", as in :func:`jaxcvx.perturb_iterates`.
      reading: the meaning of the gradient on spheres, where the paper allows several. "tangent": taken at the
        normalised noisy point, and projected on the tangent space at the iterate. "wn": of the weight-normalised
        objective at the noisy point itself, which divides it by the norm of that point. "angle": TeacherCNN only, the
        part of the gradient that the teacher's filter causes.
      batch_size: samples per step; None is the whole objective.
      width, init_scale: of networks, as in :class:`jaxcvx.GradientDescent`.

    Example:
      >>> import jax
      >>> import jaxcvx
      >>> problem = jaxcvx.make_problem([[1.0], [2.0], [-1.0]], [1.0, 2.0, 0.0], beta=0.1)
      >>> solution = jaxcvx.solve(problem, jaxcvx.AnnealedNoise(width=4), key=jax.random.key(0))
      >>> print(f"{solution.objective:.3f}")
      0.099
    """

    tol: float = 1e-6
    max_steps: int = 20 * paper.EPOCH_LENGTH
    check_every: int = 100
    learning_rate: float | None = None
    learning_rate_decay: float = paper.LEARNING_RATE_DECAY
    radius: Any = None
    radius_decay: float = paper.RADIUS_DECAY
    epoch_length: int = paper.EPOCH_LENGTH
    optimizer: Any = None
    noise: str = "ball"
    reading: str = "tangent"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.radius, Mapping):  # static arguments must be hashable
            object.__setattr__(self, "radius", tuple(sorted(self.radius.items())))

    def validate(self, problem: Any) -> None:
        super().validate(problem)
        check_noise(self.noise)
        for name, value in (("radius", self._radius), ("learning_rate", self.learning_rate)):
            if value is not None:
                check_radius(value, name)
        if self.reading not in ("tangent", "wn", "angle"):
            raise invalid("reading", repr(self.reading), "'tangent', 'wn' or 'angle'")
        if self.reading == "angle" and not hasattr(problem, "angle_gradient"):
            raise invalid("reading", "'angle'", f"'tangent' or 'wn' for {type(problem).__name__}: no teacher is known")
        if self.reading == "angle" and self.batch_size is not None:
            raise invalid("batch_size", self.batch_size, "None with reading='angle', a formula of the population")
        for name in ("learning_rate_decay", "radius_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise invalid(name, getattr(self, name), "a number in (0, 1]")
        if not isinstance(self.epoch_length, int) or self.epoch_length < 1:
            raise invalid("epoch_length", self.epoch_length, "a positive integer")

    @classmethod
    def patient(cls, **changes: Any) -> AnnealedNoise:
        """Four times the paper's iterations: epochs of 1600 steps, decay .9 (learning rate) and .6 (radius)."""
        schedule = {
            "max_steps": 32_000,
            "epoch_length": 1600,
            "learning_rate_decay": 0.9,
            "radius_decay": 0.6,
        }
        return cls(**(schedule | changes))

    @property
    def _radius(self) -> Any:
        return dict(self.radius) if isinstance(self.radius, tuple) else self.radius

    def _first_radii(self, smooth: SmoothProblem, params: Any) -> Any:
        on_sphere = smooth.sphere(params)
        if self.radius is not None:
            radii = radius_tree(self._radius, None, params, 0)
        elif on_sphere is None:
            radii = jax.tree.map(lambda x: _RELATIVE_RADIUS * tree_norm(x), params)
        else:
            radii = jax.tree.map(lambda s: paper.SPHERE_RADIUS if s else paper.FREE_RADIUS, on_sphere)
        return jax.tree.map(lambda r: jnp.asarray(r, smooth.dtype), radii)

    def _optimizer(self, smooth: SmoothProblem, params: Any) -> Any:
        import optax

        if self.optimizer is not None:
            return self.optimizer
        plain = smooth.sphere(params) is not None
        if not plain and self.learning_rate is None and smooth.default_optimizer() is not None:
            return smooth.default_optimizer()
        default = paper.LEARNING_RATE if plain else _ADAM_RATE
        rate = default if self.learning_rate is None else self.learning_rate
        schedule = epochwise_geometric(rate, self.learning_rate_decay, self.epoch_length)
        return optax.sgd(schedule) if plain else optax.adam(schedule)

    def init(self, problem: Any, key: Any, params: Any) -> _State:
        if key is None:
            raise invalid("key", None, "a jax random key, for the noise")
        smooth = self.smooth(problem)
        return _State(
            current=params,
            optimizer=jax.tree.map(jnp.asarray, self._optimizer(smooth, params).init(params)),
            radii=self._first_radii(smooth, params),
            key=key,
            step=jnp.asarray(0, jnp.int32),
            bound=jnp.full((), -jnp.inf, problem.dtype),
            **self.start(problem, params)._asdict(),
        )

    def _noise_left(self, step: Array) -> Any:
        return epochwise_geometric(1.0, self.radius_decay, self.epoch_length)(step)

    def _objective(self, smooth: Any, params: Any, key: Any) -> Array:
        """The objective of all samples, or of one batch."""
        return (
            smooth.objective(params)
            if self.batch_size is None
            else smooth.sampled_objective(params, key, self.batch_size)
        )

    def _gradient(self, smooth: Any, noisy: Any, key: Any) -> Any:
        """The gradient at a noisy point. This method normalises the point."""
        if self.reading == "angle":
            return smooth.angle_gradient(noisy)

        def objective(params: Any) -> Array:
            return self._objective(smooth, params, key)

        if self.reading == "wn":
            return jax.grad(lambda params: objective(smooth.retract(params)))(noisy)
        return jax.grad(objective)(smooth.retract(noisy))

    def step(self, problem: Any, state: _State) -> _State:
        smooth = self.smooth(problem)
        key, use, batch = self._split(state.key)
        left = self._noise_left(state.step)
        radii = jax.tree.map(lambda r: r * jnp.asarray(left, r.dtype), state.radii)
        noisy = perturbed(use, state.current, radii, self.noise)
        gradient = smooth.tangent(state.current, self._gradient(smooth, noisy, batch))
        optimizer = self._optimizer(smooth, state.current)

        def objective(params: Any) -> Array:
            return self._objective(smooth, params, batch)

        with default_promotion():
            moved, after = optax_step(
                optimizer, state.optimizer, state.current, objective, smooth.tangent, gradient=gradient
            )
        current = smooth.retract(moved)
        return state._replace(current=current, optimizer=after, key=key, step=state.step + 1)

    def _split(self, key: Array) -> tuple[Any, Any, Any]:
        """Keys for later steps, for this step's noise and for its batch (None without batches)."""
        if self.batch_size is None:
            return *jax.random.split(key), None
        return tuple(jax.random.split(key, 3))

    def check(self, problem: Any, state: _State) -> _State:
        state = super().check(problem, state)
        noisy = tree_norm(state.radii) > 0
        left = jnp.where(noisy, self._noise_left(state.step), 0.0).astype(state.residual.dtype)
        return state._replace(residual=jnp.maximum(state.residual, left))
