"""TeacherCNN: a two-layer convolutional network that learns from a teacher, with closed forms for its loss.

An input Z consists of k patches Z_j of p standard normal numbers. The student computes ``f(Z) = sum_j a_j relu(Z_j .
w)``. The teacher f* has the same form with the weights ``(w*, a*)``. The population loss ``1/2 E (f - f*)^2`` depends
on w only through its length and its angle to w*. It can have a spurious minimum. All formulas hold for w of any length.

Sources: S. Du, J. Lee, Y. Tian, B. Poczos and A. Singh, "Gradient descent learns one-hidden-layer CNN: don't be afraid
of spurious local minima" (ICML 2018); M. Zhou et al., "Toward understanding the importance of noise in training neural
networks" (ICML 2019).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxcvx.errors import invalid
from jaxcvx.numerics.arc_cosine import angle, kernel_deficit
from jaxcvx.numerics.noise import draw_noise
from jaxcvx.numerics.safe import norm
from jaxcvx.numerics.sphere import unit
from jaxcvx.problems.smooth import SmoothProblem

_PI = jnp.pi


class StudentWeights(NamedTuple):
    """The student's weights: a filter w (p,) on the unit sphere, and output weights a (k,)."""

    w: Float[Array, p]
    a: Float[Array, k]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TeacherCNN(SmoothProblem):
    """Learn a teacher ``sum_j a*_j relu(Z_j . w*)`` on k Gaussian patches of size p, by its population loss.

    The minimum is 0, at ``(w*, a*)``. With w on the unit sphere there is one other stationary point, at ``w = -w*``. It
    attracts gradient descent exactly if ``traps()``. Solvers can also use mini-batches of random inputs.

    Attributes:
      w_star: (p,) the teacher's filter, not zero.
      a_star: (k,) the teacher's output weights.

    >>> import jax, jaxcvx
    >>> problem = jaxcvx.TeacherCNN.random(jax.random.key(0), patches=4, size=6, ratio=0.5)
    >>> abs(float(problem.objective(problem.optimum))) < 1e-6
    True
    """

    w_star: Float[Array, p]
    a_star: Float[Array, k]

    @classmethod
    def random(cls, key: PRNGKeyArray, patches: int, size: int, ratio: float, dtype: Any = float) -> TeacherCNN:
        """A random teacher with ``|w*| = |a*| = 1`` and ``(sum of a*)^2 = ratio``.

        Raises:
          InvalidInputError: ratio is not in [0, patches].
        """
        if not 0 <= ratio <= patches:
            raise invalid("ratio", ratio, f"a number in 0..{patches}: (1'a)^2 is at most k |a|^2")
        filter_key, output_key = jax.random.split(key)
        rest = jax.random.normal(output_key, (patches,), dtype)
        rest = unit(rest - rest.mean())
        mean = ratio**0.5 / patches
        return cls(
            unit(jax.random.normal(filter_key, (size,), dtype)),
            mean + jnp.sqrt(jnp.maximum(1 - patches * mean**2, 0)) * rest,
        )

    @property
    def dtype(self) -> Any:
        return self.a_star.dtype

    @property
    def optimum(self) -> StudentWeights:
        """The teacher's weights, with a filter of length 1."""
        return StudentWeights(unit(self.w_star), norm(self.w_star) * self.a_star)

    def is_valid(self) -> Bool[Array, ""]:
        finite = jnp.all(jnp.isfinite(self.w_star)) & jnp.all(jnp.isfinite(self.a_star))
        return finite & jnp.any(self.w_star != 0)

    def lower_bound(self) -> Float[Array, ""]:
        return jnp.zeros((), self.dtype)

    def sphere(self, params: StudentWeights) -> StudentWeights:
        return StudentWeights(True, False)  # type: ignore[arg-type]

    def objective(self, params: StudentWeights) -> Float[Array, ""]:
        """The population loss ``1/2 E (f - f*)^2``, for w of any length."""
        target = self.optimum
        error = norm(params.w) * params.a - target.a
        aligned = jnp.vdot(params.a, target.a) * kernel_deficit(params.w, target.w)
        return (0.25 - 0.25 / _PI) * jnp.sum(error**2) + jnp.sum(error) ** 2 / (4 * _PI) + aligned

    def gradient(self, params: StudentWeights) -> StudentWeights:
        """The gradient of the population loss, for w of any length except 0."""
        target = self.optimum
        (w, a), n, phi = params, norm(params.w), angle(params.w, target.w)
        g = (_PI - phi) * jnp.cos(phi) + jnp.sin(phi)
        dot, total, wanted = jnp.vdot(a, target.a), jnp.sum(a), jnp.sum(target.a)
        radial = (_PI - 1) * jnp.sum(a**2) + total**2 - (total * wanted - dot + dot * jnp.sin(phi)) / n
        grad_w = (radial * w - dot * (_PI - phi) * target.w) / (2 * _PI)
        student = n**2 * (total + (_PI - 1) * a)
        return StudentWeights(grad_w, (student - n * (wanted + (g - 1) * target.a)) / (2 * _PI))

    def angle_gradient(self, params: StudentWeights) -> StudentWeights:
        """The gradient with only the term along w* in the part of w. It needs a tangent projection afterwards.

        The omitted terms are along w. A projection at the same params removes them anyway, so then the result is that
        of :meth:`gradient`. If the params are perturbed and the projection is at the unperturbed ones, the two differ.
        """
        target = self.optimum
        params = params._replace(w=unit(params.w))
        pull = jnp.vdot(params.a, target.a) * (_PI - angle(params.w, target.w)) / (2 * _PI)
        return StudentWeights(-pull * target.w, self.gradient(params).a)

    def sampled_objective(self, params: StudentWeights, key: PRNGKeyArray, batch_size: int) -> Float[Array, ""]:
        """The mean of ``(f - f*)^2 / 2`` over ``batch_size`` new random inputs."""
        Z = jax.random.normal(key, (self.w_star.size, batch_size, self.a_star.size), self.dtype)

        def outputs(w: Array, a: Array) -> Array:
            return jnp.sum(jax.nn.relu(jnp.sum(Z * w[:, None, None], 0)) * a, -1)

        error = outputs(*params) - outputs(self.w_star, self.a_star)
        return jnp.mean(error**2) / 2

    def initial_params(self, key: PRNGKeyArray | None) -> StudentWeights:
        """The start of Du et al.: w uniform on the sphere, a uniform in a ball of radius ``|sum of a*| / sqrt(k)``."""
        if key is None:
            raise invalid("key", None, "a jax random key for the start (or init=)")
        k = self.a_star.size
        return self.random_params(key, jnp.abs(jnp.sum(self.optimum.a)) / k**0.5)

    def random_params(self, key: PRNGKeyArray, radius: Any = 1.0) -> StudentWeights:
        """Random weights: w uniform on the unit sphere, a uniform in the ball of the given radius."""
        filter_key, output_key = jax.random.split(key)
        w = draw_noise(filter_key, self.w_star, 1.0, "sphere")
        return StudentWeights(w, draw_noise(output_key, self.a_star, radius, "ball"))

    def spurious_point(self) -> StudentWeights:
        """The stationary point with ``w = -w*``, where ``a = (11' + (pi - 1) I)^{-1} (11' - I) a*``."""
        w, a = self.optimum
        wanted = jnp.sum(a)
        solved = (wanted - a - (a.size - 1) * wanted / (_PI - 1 + a.size)) / (_PI - 1)
        return StudentWeights(-w, solved)

    def spurious_value(self) -> Float[Array, ""]:
        """The loss at the spurious point, in closed form."""
        a = self.optimum.a
        k, mean_square = a.size, jnp.sum(a) ** 2 / a.size
        along = mean_square * (2 * k + _PI - 2) / (k + _PI - 1)
        return (along + (jnp.sum(a**2) - mean_square) * (_PI - 2) / (_PI - 1)) / 4

    def traps(self) -> Bool[Array, ""]:
        """True if the spurious point attracts gradient descent, which means that ``a . a*`` is negative there.

        The condition is ``pi (sum of a*)^2 < (k + pi - 1) |a*|^2``.
        """
        a = self.a_star
        return _PI * jnp.sum(a) ** 2 < (a.size + _PI - 1) * jnp.sum(a**2)

    def alignment(self, params: StudentWeights) -> Float[Array, ""]:
        """``a . a*``. If it is positive, gradient descent turns the filter towards w*; if negative, away from w*."""
        return jnp.vdot(params.a, self.optimum.a)

    def angle(self, params: StudentWeights) -> Float[Array, ""]:
        """The angle between w and w*.

        Phase one of the theorem of Zhou et al. ends when it is ``5 pi / 12`` and the alignment is positive.
        """
        return angle(params.w, self.w_star)
