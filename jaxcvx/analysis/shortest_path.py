"""path_report: compare the length of a method's path with the distance it covers, and check the bounds of the theory.

Consider ``1/2 ||f(theta) - y||^2`` with all singular values of the Jacobian in [alpha, beta] along the path. Then
gradient descent ends near the optimum nearest to its start, and its path is hardly longer than the distance.

Source: Oymak and Soltanolkotabi, "Overparameterized nonlinear learning: gradient descent takes the shortest path?"
(ICML 2019).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from jaxcvx.analysis.jacobian import jacobian_spectrum
from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.numerics.fold import T
from jaxcvx.numerics.safe import divide


class PathBound(NamedTuple):
    """The check of one bound along a path.

    Attributes:
      holds: True if the bound holds at every step, up to rounding.
      tightness: largest ratio of the bounded quantity to its bound. It is 1 if the bound is attained.
    """

    holds: Bool[Array, ""]
    tightness: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PathReport:
    """Result of :func:`path_report` for T + 1 params theta_0, ..., theta_T.

    Attributes:
      distances: (T + 1,) ``||theta_t - theta_0||``.
      path_lengths: (T + 1,) sums of the step lengths up to t.
      misfits: (T + 1,) ``||f(theta_t) - y||``.
      potential: (T + 1,) ``misfit + zeta * path length``. It never grows along gradient descent.
      zeta: constant of the potential: ``(1 - eta beta^2) alpha / 2``, or ``alpha / 4`` without a learning rate.
      alpha, beta: smallest and largest singular value of the Jacobian along the path.
      bounds: a :class:`PathBound` for each bound that could be checked, by name.
    """

    distances: Float[Array, T]
    path_lengths: Float[Array, T]
    misfits: Float[Array, T]
    potential: Float[Array, T]
    zeta: Float[Array, ""]
    alpha: Float[Array, ""]
    beta: Float[Array, ""]
    bounds: dict[str, PathBound]

    @property
    def distance(self) -> Float[Array, ""]:
        """Distance from the first params to the last."""
        return self.distances[-1]

    @property
    def path_length(self) -> Float[Array, ""]:
        """Length of the whole path."""
        return self.path_lengths[-1]

    @property
    def ratio(self) -> Float[Array, ""]:
        """Path length divided by distance: 1 for a straight path."""
        return self.path_length / self.distance

    @property
    def holds(self) -> Bool[Array, ""]:
        """True if all bounds hold."""
        return jnp.all(jnp.asarray([bound.holds for bound in self.bounds.values()], bool))


def path_report(
    trajectory: Any,
    f: Callable[[Any], Any] | None = None,
    y: Any = None,
    *,
    learning_rate: float | None = None,
    alpha: Any = None,
    beta: Any = None,
    optimum: Any = None,
    glm: bool = False,
    points: int = 20,
) -> PathReport:
    """Compute distance, path length, misfit and potential along a trajectory, and check the bounds of the theory.

    The bounds are about gradient descent for least squares with ``learning_rate <= 1 / (2 beta^2)``. Here r is the
    misfit, d the distance from the start and L the path length:

      "potential" (Thm 2.1)       ``alpha/4 d_t + r_t <= r_0``
      "path" (Thm 2.1)            ``L <= 4 r_0 / alpha``
      "lower" (Thm 2.3)           ``beta d_t + r_t >= r_0``, for every method
      "monotone" (proof of 9.3)   ``potential_t+1 <= potential_t``
      "rate" (Thm 2.1)            ``r_t^2 <= (1 - eta alpha^2 / 2)^t r_0^2``, with ``learning_rate``
      "nearest" (Cor 2.2)         ``max(d_t, L) <= 4 beta/alpha ||theta* - theta_0||``, with ``optimum``
      "contraction" (Thm 4.1)     ``||theta_t - theta*|| <= (1 - eta alpha^2)^t ||theta_0 - theta*||``, with ``glm``
      "glm path" (Thm 4.1)        ``L <= (beta/alpha)^2 ||theta_0 - theta*||``, with ``glm``

    alpha and beta are measured at ``points`` params of the trajectory. The theorems assume them on a whole ball.
    Therefore a bound that holds illustrates a theorem, and a bound that fails shows that its assumptions fail.

    Works under jit and vmap. :func:`jaxcvx.trajectory` records a trajectory.

    Args:
      trajectory: array (T + 1, ...), pytree whose arrays have that leading axis, or list of T + 1 pytrees.
      f: function from params to outputs. By default the outputs are the params themselves and y is the last of them.
        Then r is the distance to the end, alpha = beta = zeta = 1, the potential rises from the distance to the path
        length, and no bounds are checked.
      y: targets, shaped like the outputs.
      learning_rate: eta of plain gradient descent on ``1/2 ||f - y||^2``.
      alpha, beta: singular values if they are known; they are measured otherwise.
      optimum: params of the optimum nearest to the start.
      glm: True if f is a generalised linear model ``phi(X theta)`` with alpha <= phi' sigma(X) <= beta.
      points: number of params at which the Jacobian is measured.

    Returns:
      A PathReport.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxcvx
      >>> report = jaxcvx.path_report(jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]))
      >>> round(float(report.path_length), 3), round(float(report.ratio), 3)
      (2.0, 1.414)
    """
    path, unravel = _flatten(trajectory)
    if (f is None) != (y is None):
        raise invalid("y" if y is None else "f", None, "f and y together, or neither")
    distances = jnp.linalg.norm(path - path[0], axis=1)
    steps = jnp.linalg.norm(jnp.diff(path, axis=0), axis=1)
    lengths = jnp.concatenate([jnp.zeros(1, path.dtype), jnp.cumsum(steps)])
    if f is None:
        residuals, measured = path - path[-1], (jnp.ones((), path.dtype),) * 2
    else:
        target = ravel_pytree(y)[0]
        residuals = jax.lax.map(lambda t: ravel_pytree(f(unravel(t)))[0] - target, path)
        measured = _spectrum(f, path, unravel, points) if alpha is None or beta is None else (alpha, beta)
    misfits = jnp.linalg.norm(residuals, axis=1)
    alpha, beta = (jnp.asarray(m if v is None else v) for v, m in zip((alpha, beta), measured, strict=True))
    zeta = alpha / 4 if learning_rate is None else (1 - learning_rate * beta**2) * alpha / 2
    zeta = alpha if f is None else zeta
    report = PathReport(distances, lengths, misfits, misfits + zeta * lengths, zeta, alpha, beta, {})
    if f is None:
        return report
    away = None if optimum is None else jnp.linalg.norm(path - ravel_pytree(optimum)[0], axis=1)
    if glm and (away is None or learning_rate is None):
        raise invalid("glm", True, "optimum and learning_rate with it")
    return dataclasses.replace(report, bounds=_bounds(report, learning_rate, away, glm))


def _flatten(trajectory: Any) -> tuple[Float[Array, "T p"], Callable[[Array], Any]]:
    """Return the path as a matrix with one row per time, and the function that turns a row back into params."""
    if isinstance(trajectory, list):
        if not trajectory:
            raise invalid("trajectory", "an empty list", "params at one time at least")
        trajectory = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(a) for a in x]), *trajectory)
    leaves = jax.tree.leaves(trajectory)
    if not leaves or any(jnp.ndim(leaf) == 0 for leaf in leaves):
        raise invalid("trajectory", "params without a time axis", "arrays with a leading axis of one length")
    lengths = {jnp.shape(leaf)[0] for leaf in leaves}
    if len(lengths) > 1 or 0 in lengths:
        raise invalid("trajectory", f"leading axes {sorted(lengths)}", "one length, at least 1")
    if any(jnp.iscomplexobj(leaf) for leaf in leaves):
        raise InvalidTypeError("trajectory: got complex numbers, expected real ones.")
    trajectory = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float, x)), trajectory)
    return jax.vmap(lambda p: ravel_pytree(p)[0])(trajectory), ravel_pytree(jax.tree.map(lambda x: x[0], trajectory))[1]


def _spectrum(f: Any, path: Array, unravel: Any, points: int) -> tuple[Array, Array]:
    """Extreme singular values of the Jacobian over ``points`` params spread evenly over the path, with both ends."""
    chosen = jnp.unique(jnp.linspace(0, len(path) - 1, points).round().astype(int), size=points)
    low, high = jax.lax.map(lambda t: jacobian_spectrum(lambda x: f(unravel(x)), t), path[chosen])
    return low.min(), high.max()


def _bounds(report: PathReport, eta: Any, away: Array | None, glm: bool) -> dict[str, PathBound]:
    """Check each bound: a quantity must not exceed its limit, up to rounding errors of a given scale."""
    r, d, length = report.misfits, report.distances, report.path_lengths
    alpha, beta, start = report.alpha, report.beta, report.misfits[0]
    rounding = 1e3 * jnp.finfo(r.dtype).eps
    time = jnp.arange(len(r))

    def bound(value: Array, limit: Array, scale: Array) -> PathBound:
        return PathBound(jnp.all(value <= limit + rounding * scale), jnp.max(divide(value, limit)))

    checked = {
        "potential": bound(alpha / 4 * d + r, start, start),
        "path": bound(alpha * length[-1:], 4 * start, start),
        "lower": bound(start - 0 * r, beta * d + r, start),
        "monotone": bound(report.potential[1:], report.potential[:-1], start),
    }
    if eta is not None:
        checked["rate"] = bound(r**2, (1 - eta * alpha**2 / 2) ** time * start**2, start**2)
    if away is not None:
        far = away[0]
        checked["nearest"] = bound(jnp.maximum(d, length), 4 * beta / alpha * far, far)
        if glm:
            checked["contraction"] = bound(away, (1 - eta * alpha**2) ** time * far, far)
            checked["glm path"] = bound(length[-1:], (beta / alpha) ** 2 * far, far)
    return checked
