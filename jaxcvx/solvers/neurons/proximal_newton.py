"""Fit the output weights of given activations, for any smooth loss, by proximal Newton steps with fixed shapes.

    min over W, b   loss(apply(atoms, W) + 1 b^T, Y) + beta sum_j ||w_j||

A step replaces the loss by its quadratic model at the current predictions. The model's group lasso is solved by
accelerated proximal gradient steps. For losses that are sums over entries they work on Gram matrices, so their cost
does not depend on n; the cross-entropy's Hessian couples the outputs and is applied to the predictions. A free bias b
is eliminated from the model. For the squared loss the model is the problem itself, and one step is enough.

Sources: J. D. Lee, Y. Sun and M. A. Saunders, "Proximal Newton-type methods for minimizing composite functions" (2014);
the inner steps are those of :mod:`jaxcvx.methods.fista`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.features.readout import Readout
from jaxcvx.losses.base import Loss
from jaxcvx.numerics.safe import divide, divisor, norm

_POWER_STEPS = 12
_OUTER_STEPS = 3  # smallest number of Newton steps for losses that are not quadratic
_INNER_STEPS = 200  # largest number of proximal gradient steps in one of these
_LENGTHS = (1.0, 0.5, 0.2, 0.05)  # trial lengths of a Newton step
_LEAST_CURVATURE = 1e-3  # of the loss's bound, so that saturated samples do not make the model flat


class OutputFit(NamedTuple):
    """Output weights (m, q) and output bias (c,)."""

    weights: Float[Array, "m q"]
    bias: Float[Array, c]


class _Model(NamedTuple):
    """A quadratic model in weights W (M, c), at the best bias for each W.

    Attributes:
      hessian: its linear map.
      slope: minus its gradient at W = 0.
      diagonal: (M,) the largest diagonal entry of the Hessian in each row of W, to scale by.
      bias: the best bias for W.
    """

    hessian: Callable[[Array], Array]
    slope: Array
    diagonal: Array
    bias: Callable[[Array], Array]


def fit_outputs(
    loss: Loss,
    Y: Array,
    atoms: Float[Array, "N m"],
    beta: Float[Array, ""],
    readout: Readout,
    start: OutputFit,
    steps: int,
    free_bias: bool = False,
) -> OutputFit:
    """Fit output weights and, if ``free_bias``, an output bias without a penalty. The result is never worse.

    Args:
      loss: smooth.
      Y: targets of the loss.
      atoms: activations of unit neurons on the rows. Zero columns keep weights of 0.
      beta: weight of the group norms.
      readout: the map from rows to samples.
      start: weights and bias to start from.
      steps: proximal gradient steps in total.
      free_bias: fit the bias too; otherwise it keeps its value.
    """
    shape = start.weights.shape
    A = readout.design(atoms)  # (n, m, k)
    A = A.reshape(A.shape[0], -1)
    outer = 1 if loss.unweighted.is_quadratic else max(_OUTER_STEPS, steps // _INNER_STEPS)

    def predict(fit):
        return readout.apply(atoms, fit.weights) + fit.bias

    def value(F, W):
        return loss.value(F, Y) + beta * jnp.sum(norm(W))

    def newton(_, fit):
        F = predict(fit)
        W = fit.weights.reshape(A.shape[1], -1)
        build = _coupled_model if loss.kind == "label" else _entrywise_model
        model = build(loss, Y, A, F, W, fit.bias, free_bias)
        W = _group_lasso(model, W, shape, beta, steps // outer)
        target = OutputFit(W.reshape(shape), model.bias(W))
        ahead = predict(target)
        trials = jnp.stack(
            [value(F + t * (ahead - F), fit.weights + t * (target.weights - fit.weights)) for t in _LENGTHS]
        )
        t = jnp.where(jnp.min(trials) < value(F, fit.weights), jnp.array(_LENGTHS, F.dtype)[jnp.argmin(trials)], 0.0)
        moved = jax.tree.map(
            lambda old, new: jnp.where(t > 0, jnp.where(t == 1, new, old + t * (new - old)), old), fit, target
        )
        return OutputFit(*moved)

    return jax.lax.fori_loop(0, outer, newton, start)


def _entrywise_model(loss: Loss, Y: Array, A: Array, F: Array, W: Array, b: Array, free_bias: bool) -> _Model:
    """The model at predictions F, by one Gram matrix for each output."""
    D = loss.diagonal_curvature(F, Y)
    D = jnp.maximum(D, _LEAST_CURVATURE * jnp.max(D))
    # The model is 1/2 sum_i D_il (F_il - T_il)^2 with working targets T, up to a constant.
    T = F - divide(loss.grad(F, Y), D)
    total = jnp.sum(D, axis=0)
    if free_bias:
        mean, middle = D.T @ A / divisor(total)[:, None], divide(jnp.sum(D * T, axis=0), total)
    else:
        mean, middle = jnp.zeros((D.shape[1], A.shape[1]), A.dtype), b
    weighted = D.T[:, :, None] * A  # (c, n, M)
    gram = jnp.einsum("cnm,nk->cmk", weighted, A) - total[:, None, None] * mean[:, :, None] * mean[:, None, :]
    slope = jnp.einsum("cnm,nc->mc", weighted, T - middle)
    diagonal = jnp.max(jnp.diagonal(gram, axis1=1, axis2=2), axis=0)
    return _Model(
        lambda V: jnp.einsum("cmk,kc->mc", gram, V),
        slope,
        diagonal,
        lambda V: middle - jnp.einsum("cm,mc->c", mean, V),
    )


def _coupled_model(loss: Loss, Y: Array, A: Array, F: Array, W: Array, b: Array, free_bias: bool) -> _Model:
    """The model at predictions F = A W + b, by products with the Hessian in the predictions."""
    g, c = loss.grad(F, Y), F.shape[1]
    floor = _LEAST_CURVATURE * jnp.max(loss.diagonal_curvature(F, Y))

    def curved(D: Array) -> Array:
        return jax.jvp(lambda G: loss.grad(G, Y), (F,), (D,))[1] + floor * D

    if free_bias:  # the bias (c,) with sum_i H_i b = r
        total = jax.vmap(lambda e: jnp.sum(curved(jnp.broadcast_to(e, F.shape)), axis=0))(jnp.eye(c, dtype=F.dtype))
        inverse = jnp.linalg.inv(total)
    else:
        inverse = jnp.zeros((c, c), F.dtype)

    def without_constant(D: Array) -> Array:
        return D - curved(jnp.broadcast_to(inverse @ jnp.sum(D, axis=0), D.shape))

    def hessian(V: Array) -> Array:
        return A.T @ without_constant(curved(A @ V))

    diagonal = jnp.max(A.T**2 @ loss.diagonal_curvature(F, Y), axis=1)
    return _Model(
        hessian,
        hessian(W) - A.T @ without_constant(g),
        diagonal,
        lambda V: b - inverse @ jnp.sum(g + curved(A @ (V - W)), axis=0),
    )


def _group_lasso(model: _Model, W: Array, shape: tuple[int, ...], beta: Array, steps: int) -> Array:
    """Accelerated proximal gradient with restarts on the model, in weights scaled to unit curvature per neuron."""
    m = shape[0]
    scale = divide(1.0, jnp.sqrt(jnp.max(model.diagonal.reshape(m, -1), axis=1)))
    each = jnp.repeat(scale, W.shape[0] // m)[:, None]
    slope = model.slope * each

    def hessian(V):
        return each * model.hessian(each * V)

    def power(_, V):
        V = hessian(V)
        return V / divisor(norm(V, axis=None))

    # A start without structure: ones are orthogonal to the top eigenvector of two neurons with opposite activations.
    generic = jnp.cos(jnp.arange(W.size, dtype=W.dtype) ** 2).reshape(W.shape)
    top = jax.lax.fori_loop(0, _POWER_STEPS, power, generic)
    L = divisor(1.1 * norm(hessian(top), axis=None))  # 0 if all activations are
    threshold = (beta / L * scale)[:, None]

    def step(_, carry):
        V, ahead, t = carry
        moved = (ahead - (hessian(ahead) - slope) / L).reshape(m, -1)
        size = norm(moved, keepdims=True)
        new = (moved * jnp.maximum(1 - threshold / divisor(size), 0.0)).reshape(V.shape)
        t = jnp.where(jnp.sum((ahead - new) * (new - V)) > 0, 1.0, t)
        longer = 0.5 * (1 + jnp.sqrt(1 + 4 * t**2))
        return new, new + (t - 1) / longer * (new - V), longer

    V = divide(W, each)
    V = jax.lax.fori_loop(0, steps, step, (V, V, jnp.ones((), W.dtype)))[0]
    return V * each
