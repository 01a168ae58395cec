"""Data and independent oracles that the tests share. Nothing here uses jaxcvx to compute what is tested."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcvx import Arrangements
from jaxcvx.datasets import spiral


def gaussian_data(seed: int, n: int, d: int, c: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) and Y (n, c), independent standard normal."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal((n, c))


def targets_for(loss: str, Y: np.ndarray) -> np.ndarray:
    """Real numbers turned into what ``loss`` wants: signs, or the class of the largest entry."""
    if loss in ("logistic", "hinge"):
        return np.where(Y >= 0, 1.0, -1.0)
    return Y.argmax(axis=1) if loss == "softmax" else Y


def distinct_cells(seed: int, Z: np.ndarray, num: int) -> Arrangements:
    """Exactly ``num`` distinct cells of the rows Z, so that shapes do not depend on the seed."""
    gates = np.random.default_rng(seed).standard_normal((100 * num, Z.shape[1]))
    masks = gates @ Z.T >= 0
    first = np.sort(np.unique(masks, axis=0, return_index=True)[1])[:num]
    assert len(first) == num, "data with too few cells for this test"
    return Arrangements(jnp.asarray(masks[first]), jnp.asarray(gates[first]))


def spiral_data() -> tuple[np.ndarray, np.ndarray]:
    """The spiral of 12 points in 3 arms, the middle arm (+1) against the rest (-1)."""
    X, arm = spiral(4)
    return X, np.where(arm == 1, 1.0, -1.0)[:, None]


def loss_value(loss: str, F: np.ndarray, Y: np.ndarray) -> float:
    """The losses in numpy, from their definitions; labels as integers for softmax."""
    if loss == "squared":
        return float(0.5 * ((F - Y) ** 2).sum())
    if loss == "huber":
        e = np.abs(F - Y)
        return float(np.where(e <= 1, e**2 / 2, e - 0.5).sum())
    if loss == "interpolation":
        return float(1e6 * np.abs(F - Y).sum())
    if loss == "logistic":
        return float(np.logaddexp(0, -Y * F).sum())
    if loss == "hinge":
        return float(np.maximum(0, 1 - Y * F).sum())
    return float((np.logaddexp.reduce(F, axis=1) - F[np.arange(len(Y)), np.ravel(Y)]).sum())


def network_value(
    hidden: np.ndarray, output: np.ndarray, Z: np.ndarray, Y: np.ndarray, beta: float, loss: str = "squared"
) -> float:
    """Training objective of a network in numpy."""
    F = np.maximum(Z @ hidden.T, 0) @ output
    return loss_value(loss, F, Y) + 0.5 * beta * float((hidden**2).sum() + (output**2).sum())


def _cvxpy_loss(loss: str, F: Any, Y: np.ndarray) -> Any:
    if loss == "squared":
        return 0.5 * cp.sum_squares(F - Y)
    if loss == "huber":
        return 0.5 * cp.sum(cp.huber(F - Y, 1))
    if loss == "interpolation":
        return 1e6 * cp.sum(cp.abs(F - Y))
    if loss == "logistic":
        return cp.sum(cp.logistic(-cp.multiply(Y, F)))
    if loss == "hinge":
        return cp.sum(cp.pos(1 - cp.multiply(Y, F)))
    hot = np.eye(F.shape[1])[np.ravel(Y)]
    return cp.sum(cp.log_sum_exp(F, axis=1)) - cp.sum(cp.multiply(hot, F))


def _minimise(objective: Any, constraints: list[Any]) -> float:
    problem = cp.Problem(cp.Minimize(objective), constraints)
    for tol in (
        1e-10,
        1e-8,
    ):  # the second is Clarabel's default, for problems where rounding forbids the first
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Solution may be inaccurate", UserWarning)
            problem.solve(solver=cp.CLARABEL, tol_gap_abs=tol, tol_gap_rel=tol, tol_feas=tol)
        if problem.status == cp.OPTIMAL:
            return float(problem.value)
    raise AssertionError(problem.status)


def _groups(blocks: list[Any], grouping: str) -> Any:
    """Sum of the blocks' Frobenius norms, or of the norms of their columns."""
    if grouping == "shared":
        return sum(cp.norm(cp.vec(B, order="F"), 2) for B in blocks)
    return sum(cp.norm(B[:, k], 2) for B in blocks for k in range(B.shape[1]))


def gated_optimum(
    Z: np.ndarray, masks: Any, Y: np.ndarray, beta: float, *, loss: str = "squared", skip: bool = False
) -> float:
    """Optimum of the gated program by CVXPY and Clarabel, written from its definition."""
    masks = np.asarray(masks, float)
    blocks = [cp.Variable((Z.shape[1], _outputs(loss, Y))) for _ in range(len(masks) + skip)]
    gates = [*masks, np.ones(len(Z))] if skip else masks
    F = sum((gate[:, None] * Z) @ B for gate, B in zip(gates, blocks, strict=True))
    return _minimise(_cvxpy_loss(loss, F, Y) + beta * _groups(blocks, "shared"), [])


def nuclear_optimum(Z: np.ndarray, masks: Any, Y: np.ndarray, beta: float, loss: str = "squared") -> float:
    """Optimum of the gated program with nuclear norms by CVXPY and Clarabel, written from its definition."""
    masks = np.asarray(masks, float)
    blocks = [cp.Variable((Z.shape[1], _outputs(loss, Y))) for _ in masks]
    F = sum((gate[:, None] * Z) @ B for gate, B in zip(masks, blocks, strict=True))
    return _minimise(_cvxpy_loss(loss, F, Y) + beta * sum(cp.normNuc(B) for B in blocks), [])


def relaxed_optimum(Z: np.ndarray, masks: Any, Y: np.ndarray, beta: float) -> float:
    """Optimum of the doubly non-negative relaxation by CVXPY and Clarabel: block form, all rows as constraints."""
    p, c = Z.shape[1], Y.shape[1]
    F, penalty, constraints = 0, 0, []
    for mask in np.asarray(masks, float):
        block = cp.Variable((p + c, p + c), PSD=True)
        A = (2 * mask - 1)[:, None] * Z / np.maximum(np.linalg.norm(Z, axis=1, keepdims=True), 1e-300)
        constraints.append(A @ block[:p, :p] @ A.T >= 0)
        F = F + (mask[:, None] * Z) @ block[:p, p:]
        penalty = penalty + cp.trace(block)
    return _minimise(0.5 * cp.sum_squares(F - Y) + 0.5 * beta * penalty, constraints)


def cone_optimum(
    Z: np.ndarray,
    masks: Any,
    Y: np.ndarray,
    beta: float,
    *,
    loss: str = "squared",
    grouping: str = "shared",
    skip: bool = False,
    positions: int = 1,
    output_bias: bool = False,
) -> float:
    """Optimum of the cone-constrained program by CVXPY and Clarabel, written from its definition.

    ``positions``: rows of Z per sample, each with output weights of its own.
    """
    blocks, constraints, F, c = [], [], 0, _outputs(loss, Y)
    for gate in np.asarray(masks, float):
        for sign in (1, -1):
            B = cp.Variable((Z.shape[1], positions * c))
            blocks.append(B)
            constraints.append(((2 * gate - 1)[:, None] * Z) @ B >= 0)
            for k in range(positions):
                active = (gate[:, None] * Z)[k::positions]
                F = F + sign * active @ B[:, k * c : (k + 1) * c]
    if skip:
        S = cp.Variable((Z.shape[1], _outputs(loss, Y)))
        blocks.append(S)
        F = F + Z @ S
    if output_bias:
        F = F + np.ones((len(Z) // positions, 1)) @ cp.Variable((1, c))
    return _minimise(_cvxpy_loss(loss, F, Y) + beta * _groups(blocks, grouping), constraints)


def neurons_in_the_plane(Z: np.ndarray, num: int = 20_000) -> np.ndarray:
    """Activations (Z u)_+ of unit neurons u at every angle of a fine grid and at every kink: (n, num + 2n)."""
    kinks = np.arctan2(Z[:, 1], Z[:, 0]) + np.pi / 2
    angle = np.concatenate([np.linspace(0, 2 * np.pi, num, endpoint=False), kinks, kinks + np.pi])
    return np.maximum(Z @ np.stack([np.cos(angle), np.sin(angle)]), 0)


def _outputs(loss: str, Y: np.ndarray) -> int:
    return int(np.max(Y)) + 1 if loss == "softmax" else Y.shape[1]


@functools.partial(jax.jit, static_argnames=("width", "steps", "runs"))
def _adam(Z: jax.Array, Y: jax.Array, beta: jax.Array, key: jax.Array, width: int, steps: int, runs: int) -> Any:
    def objective(weights):
        hidden, output = weights
        error = jax.nn.relu(Z @ hidden.T) @ output - Y
        return 0.5 * jnp.sum(error**2) + 0.5 * beta * (jnp.sum(hidden**2) + jnp.sum(output**2))

    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, steps))

    def train(key):
        first, second = jax.random.split(key)
        weights = (
            jax.random.normal(first, (width, Z.shape[1])) / Z.shape[1] ** 0.5,
            jax.random.normal(second, (width, Y.shape[1])) / width**0.5,
        )

        def step(carry, _):
            weights, state = carry
            updates, state = optimizer.update(jax.grad(objective)(weights), state)
            return (optax.apply_updates(weights, updates), state), None

        (weights, _), _ = jax.lax.scan(step, (weights, optimizer.init(weights)), length=steps)
        return objective(weights)

    return jax.vmap(train)(jax.random.split(key, runs))


def adam_objectives(
    Z: np.ndarray,
    Y: np.ndarray,
    beta: float,
    *,
    seed: int = 0,
    width: int = 15,
    steps: int = 2000,
    runs: int = 50,
) -> np.ndarray:
    """Final training objectives (squared loss) of Adam runs from ``runs`` keys."""
    return np.asarray(_adam(jnp.asarray(Z), jnp.asarray(Y), beta, jax.random.key(seed), width, steps, runs))


def read_picture(path: Path) -> np.ndarray:
    """Pixels (height, width, 3) of a PNG, from 0 to 1, after a check that something is drawn on white."""
    image = pytest.importorskip("matplotlib.image").imread(path, format="png")[..., :3]
    ink = np.mean(np.any(image < 0.9, axis=2))
    assert 0.002 < ink < 0.98, f"{path.name}: {ink:.1%} of the pixels are not white"
    return image


def has_color(image: np.ndarray, color: str) -> bool:
    """True if at least 20 pixels have a colour, given as ``#rrggbb``."""
    wanted = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    return int(np.sum(np.all(np.abs(image - wanted) < 0.02, axis=2))) >= 20
