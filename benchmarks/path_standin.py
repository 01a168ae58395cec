"""STAND-IN for the library's path method, so that ``benchmarks path`` runs before that method is there. Not a product.

Sliding, fully corrective Frank-Wolfe along the betas: price by damped ascents from random directions, insert the best
distinct neurons into the weakest slots, move all weights by Adam, balance and drop. Fixed shapes, one scan over betas.
Sample weights are an argument, so that the folds of a cross-validation are lanes of the same program.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

CAPACITY, STARTS, ASCENT_STEPS, INSERTED, MOVES, ROUNDS, RATE = 48, 64, 40, 6, 400, 2, 1e-2
TINY = 1e-30


def weighted_loss(kind: str, F: Any, Y: Any, weights: Any) -> Any:
    """Sum over samples of weight times loss."""
    if kind == "squared":
        each = 0.5 * jnp.sum((F - Y) ** 2, axis=1)
    elif kind == "logistic":
        each = jnp.logaddexp(0, -Y * F)[:, 0]
    else:
        each = jax.nn.logsumexp(F, axis=1) - jnp.sum(F * Y, axis=1)
    return weights @ each


def _unit(A: Any) -> Any:
    return A / (jnp.linalg.norm(A, axis=1, keepdims=True) + TINY)


def _ascend(Z: Any, R: Any, U: Any) -> tuple[Any, Any]:
    """Damped ascents of ||R^T (Z u)_+|| over the sphere: the rows and their prices."""

    def step(_, U):
        inner = Z @ U.T
        direction = _unit((R.T @ jax.nn.relu(inner)).T)
        return _unit(U + _unit(((R @ direction.T) * (inner > 0)).T @ Z))

    U = jax.lax.fori_loop(0, ASCENT_STEPS, step, U)
    return U, jnp.linalg.norm(R.T @ jax.nn.relu(Z @ U.T), axis=0)


def _insert(Z: Any, R: Any, beta: Any, params: Any, key: Any) -> tuple[Any, Any]:
    """Put the best distinct neurons into the weakest slots. Returns params and the largest price."""
    U, W = params
    candidates, prices = _ascend(Z, R, _unit(jax.random.normal(key, (STARTS, Z.shape[1]), Z.dtype)))
    size = jnp.linalg.norm(U, axis=1) * jnp.linalg.norm(W, axis=1)
    small = 0.03 * jnp.sqrt(jnp.maximum(jnp.max(size), 0.1))

    def pick(_, carry):
        left, U, W, size = carry
        best, slot = jnp.argmax(left), jnp.argmin(size)
        u, wanted = candidates[best], left[best] > beta * 1.0005
        v = _unit((R.T @ jax.nn.relu(Z @ u))[None])[0]
        U = jnp.where(wanted, U.at[slot].set(small * u), U)
        W = jnp.where(wanted, W.at[slot].set(small * v), W)
        size = jnp.where(wanted, size.at[slot].set(jnp.inf), size)
        return jnp.where(candidates @ u > 0.98, -1.0, left), U, W, size

    _, U, W, _ = jax.lax.fori_loop(0, INSERTED, pick, (prices, U, W, size))
    return (U, W), jnp.max(prices)


def _tidy(params: Any) -> Any:
    """Balance the neurons and drop those that are nearly zero."""
    U, W = params
    a, b = jnp.linalg.norm(U, axis=1), jnp.linalg.norm(W, axis=1)
    size = jnp.where(a * b > 1e-5 * jnp.max(a * b), jnp.sqrt(a * b), 0.0)
    return U * (size / jnp.where(a > 0, a, 1))[:, None], W * (size / jnp.where(b > 0, b, 1))[:, None]


def _one_path(Z: Any, Y: Any, betas: Any, weights: Any, key: Any, kind: str) -> tuple[Any, Any, Any]:
    def predict(params):
        return jax.nn.relu(Z @ params[0].T) @ params[1]

    def objective(params, beta):
        penalty = jnp.sum(params[0] ** 2) + jnp.sum(params[1] ** 2)
        return weighted_loss(kind, predict(params), Y, weights) + beta / 2 * penalty

    optimiser = optax.adam(optax.cosine_decay_schedule(RATE, MOVES))

    def move(params, beta):
        def step(_, carry):
            moved, state = carry
            updates, state = optimiser.update(jax.grad(objective)(moved, beta), state)
            return optax.apply_updates(moved, updates), state

        moved, _ = jax.lax.fori_loop(0, MOVES, step, (params, optimiser.init(params)))
        better = objective(moved, beta) < objective(params, beta)
        return jax.tree.map(lambda new, old: jnp.where(better, new, old), moved, params)

    def one_beta(params, beta_and_key):
        beta, key = beta_and_key

        def one_round(params, key):
            R = -jax.grad(lambda F: weighted_loss(kind, F, Y, weights))(predict(params))
            inserted, price = _insert(Z, R, beta, params, key)
            return _tidy(move(inserted, beta)), price / beta

        params, prices = jax.lax.scan(one_round, params, jax.random.split(key, ROUNDS))
        return params, (*params, prices[-1])

    zero = jnp.zeros((CAPACITY, Z.shape[1]), Z.dtype), jnp.zeros((CAPACITY, Y.shape[1]), Z.dtype)
    return jax.lax.scan(one_beta, zero, (betas, jax.random.split(key, len(betas))))[1]


@functools.partial(jax.jit, static_argnames="kind")
def _paths(Z, Y, betas, weights, key, kind):
    if len(weights) == 1:
        return jax.tree.map(lambda a: a[None], _one_path(Z, Y, betas, weights[0], key, kind))
    return jax.vmap(lambda w: _one_path(Z, Y, betas, w, key, kind))(weights)


def paths(problem: Any, betas: Any, weights: Any, key: Any) -> tuple[Any, Any, Any]:
    """Hidden weights (f, k, m, p), output weights (f, k, m, c) and prices over beta (f, k) for weights (f, n)."""
    return _paths(problem.rows, problem.Y, betas, weights, key, problem.loss.name)


@jax.jit
def left_out(problem: Any, hidden: Any, output: Any, weights: Any) -> Any:
    """Weighted losses (f, k) of these networks."""

    def one(U, W, w):
        return weighted_loss(problem.loss.name, jax.nn.relu(problem.rows @ U.T) @ W, problem.Y, w)

    return jax.vmap(lambda Us, Ws, w: jax.vmap(lambda U, W: one(U, W, w))(Us, Ws))(hidden, output, weights)
