"""Bounds in float32 against their exact values, and the sums that they are made of."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import Arrangements, make_problem
from jaxcvx.certificates.dual import gated_dual_norm, proved_bound, scaled_bound
from jaxcvx.losses.entrywise import LOSSES
from jaxcvx.numerics.rounding import careful_sum, masked_sums, split
from tests.helpers import targets_for

LOSS_NAMES = ("squared", "logistic", "hinge", "huber", "softmax")


def exact_bound(loss: str, Z: np.ndarray, masks: np.ndarray, R: np.ndarray, Y: np.ndarray, beta: float) -> float:
    """Largest dual value on the ray of R that the gated program allows, in extended precision."""
    wide = np.longdouble
    Z, R, Y = (a.astype(wide) for a in (Z, R, Y))
    prices = np.stack([np.sqrt(((Z[mask].T @ R[mask]) ** 2).sum()) for mask in masks])
    limit = wide(beta) / prices.max()

    def value(s: Any) -> Any:
        T = s * R
        if loss in ("squared", "huber"):
            return (T * Y).sum() - (T**2).sum() / 2
        if loss == "hinge":
            return (T * Y).sum()
        t = np.clip(T * Y, 0, 1) if loss == "logistic" else np.where(Y > 0, 0, -T)
        rest = t if loss == "logistic" else t.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.where(t > 0, t * np.log(t), 0).sum()
            return entropy - np.where(rest < 1, (1 - rest) * np.log1p(-rest), 0).sum()

    if loss in ("squared", "huber"):
        best = (R * Y).sum() / (R**2).sum()
        edge = limit if loss == "squared" else min(limit, 1 / np.abs(R).max())
        return float(max(value(np.clip(best, -edge, edge)), 0))
    top = (R * Y).max() if loss != "softmax" else np.where(Y > 0, R, 0).max()
    high = min(limit, 1 / top)
    grid = [value(high * k / wide(400)) for k in range(401)]
    k = int(np.argmax(grid))
    low, up = high * max(k - 1, 0) / wide(400), high * min(k + 1, 400) / wide(400)
    for _ in range(120):  # the dual objective is concave
        a, b = low + (up - low) / 3, up - (up - low) / 3
        low, up = (a, up) if value(a) < value(b) else (low, b)
    return float(max(value(low), value(up), max(grid), 0))


@functools.partial(jax.jit, static_argnames=("bound", "careful"))
def gated_bounds(problem: Any, R: Any, bound: Any, careful: bool) -> Any:
    operator = problem.operator.carefully() if careful else problem.operator
    return bound(problem, R, gated_dual_norm(operator, R))


def ray(loss: str, rng: np.random.Generator, n: int, c: int, near: float) -> tuple[np.ndarray, np.ndarray]:
    """Targets and a dual residual, ``near`` times smaller than at random."""
    Y = targets_for(loss, rng.standard_normal((n, c)))
    Y = np.eye(c)[Y] if loss == "softmax" else Y
    if loss == "softmax":
        F = rng.standard_normal((n, c)) + (10 - 9 * near) * Y
        R = np.asarray(-LOSSES[loss]().grad(jnp.asarray(F, jnp.float32), jnp.asarray(Y, jnp.float32)))
    elif loss in ("logistic", "hinge"):
        R = Y * near * rng.uniform(0, 1, (n, c))
    else:
        R = Y * near + 0.1 * near * rng.standard_normal((n, c))
    return Y.astype(np.float32), R.astype(np.float32)


def compare_on_rays(tries: int, shapes: list[tuple[int, int]]) -> None:
    counts = {"checked": 0, "plain ones above the truth": 0}
    for n, c in shapes:
        for number in range(tries):
            for loss in LOSS_NAMES:
                rng = np.random.default_rng(1000 * number + n)
                columns = max(c, 2) if loss == "softmax" else c
                Y, R = ray(loss, rng, n, columns, (1.0, 1e-3, 1e-7)[number % 3])
                # Rows with a large mean make sums over them cancel, far below the size of their terms.
                offset = (0.0, 1000.0)[number % 2]
                X = (rng.standard_normal((n, 3)) + offset).astype(np.float32)
                if offset and loss in ("squared", "huber"):
                    R = (R - R.mean(axis=0)).astype(np.float32)
                gates = rng.standard_normal((12, 3)).astype(np.float32)
                masks = gates.astype(float) @ X.T.astype(float) >= 0
                labels = Y.argmax(axis=1) if loss == "softmax" else Y
                cells = Arrangements(jnp.asarray(masks), jnp.asarray(gates))
                beta = np.float32(0.1 * np.abs(X.T.astype(float) @ R).max() + 1e-30)
                problem = make_problem(X, labels, beta, loss=loss, arrangements=cells)
                assert problem.X.dtype == jnp.float32
                problem = problem.replace(Y=jnp.asarray(Y))
                truth = exact_bound(loss, X, masks, R, Y, float(beta))
                below = float(gated_bounds(problem, jnp.asarray(R), proved_bound, True))
                plain = float(gated_bounds(problem, jnp.asarray(R), scaled_bound, False))
                assert below <= truth * (1 + 1e-13), (loss, n, number, below, truth)
                worth = offset or below >= truth * (1 - 1e-3) - 1e-30
                assert worth, (loss, n, number, below, truth)
                counts["checked"] += 1
                counts["plain ones above the truth"] += plain > truth * (1 + 1e-13)
    plain = counts["plain ones above the truth"]
    checked = counts["checked"]
    print(f"bounds in float32 on {checked} rays, none above the exact value; without margins {plain} would be")
    assert plain  # else these rays prove nothing


@pytest.mark.float32
def test_float32_bounds_stay_below_the_exact_value_on_their_ray():
    compare_on_rays(8, [(7, 1), (700, 2)])


@pytest.mark.soak
@pytest.mark.float32
def test_float32_bounds_stay_below_the_exact_value_on_their_ray_many():
    compare_on_rays(40, [(7, 1), (90, 2), (2000, 3)])


@pytest.mark.float32
def test_sums_of_parts_are_exact_and_their_errors_bounded():
    rng, checked = np.random.default_rng(0), 0
    for n in (1, 2, 33, 1000, 100_000):
        for scale in (1.0, 1e-30, 1e30, 1e-44):
            x = (scale * rng.standard_normal(n) * 10.0 ** rng.uniform(-6, 0, n)).astype(np.float32)
            parts = [np.asarray(part, float) for part in split(jnp.asarray(x), n)]
            assert (np.abs(sum(parts) - x) <= 2e-38).all()  # but for what is below the smallest normal number
            if scale in (1.0, 1e30):
                for part in parts[:2]:
                    order = rng.permutation(n)
                    assert np.cumsum(part[order].astype(np.float32))[-1] == part.sum()
            value, error = (float(a) for a in careful_sum(jnp.asarray(x)))
            terms, miss = float(np.abs(x.astype(float)).sum()), float(abs(value - x.astype(np.longdouble).sum()))
            assert miss <= error + 1e-37
            if scale in (1.0, 1e30):  # smaller numbers have no room for parts
                assert error <= (1e-4 if n > 1000 else 1e-6) * terms
            masks = rng.uniform(size=(3, n)) < 0.5
            sums = np.asarray(masked_sums(jnp.asarray(masks, jnp.float32), jnp.asarray(x)[:, None]))[:, 0]
            truth = masks.astype(float) @ x.astype(float)
            assert (np.abs(sums - truth) <= 1e-5 * terms + 1e-37).all()
            checked += 1
    print(f"{checked} vectors summed")
