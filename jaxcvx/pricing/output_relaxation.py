"""An upper bound on the pricing problem of several outputs by a relaxation of order q + p, under signs.

    M = max over unit v and u of sum_i (R_i^T v) (z_i^T u)_+ ,   on a node: s_k v_k >= 0 for some k, f_j^T u >= 0

With the signs s_k, a weight splits into R_i^T v = P_i^T v + N_i^T v: N_i holds the entries with R_ik s_k < 0, so that
N_i^T v <= 0 on the node. For all numbers kappa_i > 0, 0 <= mu_i <= 1 and lambda_jk >= 0, with t = z_i^T u,

    w (t)_+ <= w t / 2 + |w| |t| / 2 <= w t / 2 + (kappa_i w^2 + t^2 / kappa_i) / 4   for w = P_i^T v,
    (N_i^T v) (t)_+ <= mu_i (N_i^T v) t,     0 <= lambda_jk g_j g_k

where the g are the forms s_k v_k and f_j^T u, all >= 0. Rows with a fixed sign of t contribute (R_i^T v) t or 0. The
sum is a quadratic form x^T Q x in x = (v, u). As ||v|| = ||u||, it does not change if delta (||v||^2 - ||u||^2) is
added, and ||x||^2 = 2, so

    M <= 2 lambda_max(Q + delta diag(I, -I))    for every delta, kappa, mu and lambda.

The bound is convex in these numbers. L-BFGS minimises it with a smoothed largest eigenvalue. If the outputs R_i span
only a subspace of R^c, as for softmax, then v = G y with orthonormal columns G, and y takes the place of v.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxcvx.pricing.row_scaling import EPS

_TEMPERATURES = (0.02, 0.003)  # of the smoothed eigenvalue without a parent, for M near 1
TEMPERATURE = 0.002  # with one
_STEPS, _MORE_STEPS = 100, 40  # of L-BFGS at each temperature, without and with a parent
_PENALTY = 30.0  # limit on lambda: contradictory signs would let it grow without end
_NO_OUTPUT = 1e-9  # relative singular value of a combination of outputs that is left out
_DOUBT = 1e-3  # share of a row's size in its error: the moments are not exact
_SHIFT = 1e-3  # keeps the first kappa finite


class Outputs(NamedTuple):
    """Unit rows, scaled weights, and orthonormal columns that span the weights."""

    directions: np.ndarray  # (n, p)
    weights: np.ndarray  # (n, c)
    span: np.ndarray  # (c, q) G


class OutputSigns(NamedTuple):
    """Signs of a node: of the outputs (0 if open), and of rows."""

    output: np.ndarray  # (c,) in -1, 0, 1
    row: np.ndarray  # (f,) numbers of rows
    sign: np.ndarray  # (f,)


class OutputMultipliers(NamedTuple):
    """Multipliers of a node; ``products`` is symmetric, for the signs of outputs first, in the order of the forms."""

    kappa: np.ndarray  # (n,) logarithms, of all rows
    mu: np.ndarray  # (n,)
    delta: float
    products: np.ndarray  # (c + f, c + f)


class _Quadratic(NamedTuple):
    P: np.ndarray  # (n, q) zero for rows with a fixed sign
    N: np.ndarray
    fixed: np.ndarray  # (q, p) the part of rows with the sign +
    lengths: np.ndarray  # (n,) ||R_i||
    forms: np.ndarray  # (m, q + p) forms that are >= 0
    which: np.ndarray  # (m,) their numbers among all c + f


class OutputBound(NamedTuple):
    """Result of :func:`bound_outputs`.

    Attributes:
      bound: proved bound on M over the node.
      multipliers: multipliers that give it.
      moments: (q + p, q + p) solution of the relaxation, about: the mean of x x^T, both of its blocks of trace 1.
      neurons: (k, p) neurons worth trying.
    """

    bound: float
    multipliers: OutputMultipliers
    moments: np.ndarray
    neurons: np.ndarray


def _quadratic(outputs: Outputs, signs: OutputSigns) -> _Quadratic:
    Z, R, G = outputs
    (n, p), (c, q) = Z.shape, G.shape
    is_open = np.ones((n, 1), bool)
    is_open[signs.row] = False
    known = R * signs.output < 0
    P, N = np.where(is_open & ~known, R, 0.0) @ G, np.where(is_open & known, R, 0.0) @ G
    on = signs.row[signs.sign > 0]
    chosen = np.flatnonzero(signs.output)
    forms = np.zeros((len(chosen) + len(signs.row), q + p))
    forms[: len(chosen), :q] = signs.output[chosen, None] * G[chosen]
    forms[len(chosen) :, q:] = signs.sign[:, None] * Z[signs.row]
    which = np.concatenate([chosen, c + np.arange(len(signs.row))])
    return _Quadratic(P, N, (R[on] @ G).T @ Z[on] / 2, np.linalg.norm(R, axis=1), forms, which)


def _matrix(Z: np.ndarray, f: _Quadratic, kappa: np.ndarray, mu: np.ndarray, delta: float, L: np.ndarray) -> np.ndarray:
    """Q + delta diag(I, -I)."""
    q, p = f.P.shape[1], Z.shape[1]
    Q = f.forms.T @ L @ f.forms
    Q[:q, :q] += (f.P * (kappa / 4)[:, None]).T @ f.P + delta * np.eye(q)
    Q[q:, q:] += (Z * (f.P.any(axis=1) / (4 * kappa))[:, None]).T @ Z - delta * np.eye(p)
    cross = f.fixed + (f.P / 4 + f.N * (mu / 2)[:, None]).T @ Z
    Q[:q, q:] += cross
    Q[q:, :q] += cross.T
    return (Q + Q.T) / 2


def _proved(Z: np.ndarray, f: _Quadratic, kappa: np.ndarray, mu: np.ndarray, delta: float, L: np.ndarray) -> float:
    """The bound of these multipliers, rounded up.

    Rounding: an entry of Q sums at most n + m^2 + 2 products and a computed eigenvalue is one of a matrix at a distance
    below 10 (p + q) 2^-52 ||Q||_F. Both errors are below (n + m^2 + 20 (p + q) + 50) 2^-52 T, where T sums the norms
    of all terms. P_i and N_i are computed products with G, their errors are below (c + 2) 2^-52 ||R_i||; so T has
    ||R_i|| in their place, and the factor 8 covers these errors and lengths that exceed 1 by rounding.
    """
    Q = _matrix(Z, f, kappa, mu, delta, L)
    curved = f.P.any(axis=1)
    total = float(np.sum(curved * (kappa * f.lengths**2 + 1 / kappa)) / 4 + 2 * f.lengths.sum() + abs(delta))
    total += float(np.abs(L).sum())
    count = len(Z) + len(L) ** 2 + 20 * len(Q) + f.P.shape[1] + 50
    return max(0.0, 2 * (float(np.linalg.eigvalsh(Q)[-1]) + 8 * count * EPS * total))


def bound_outputs(
    outputs: Outputs, signs: OutputSigns, parent: OutputMultipliers | None = None, temperature: float = TEMPERATURE
) -> OutputBound:
    """Bound M over a node. Multipliers of a node with fewer signs give a start that is not worse than that node's.

    Args:
      outputs: scaled rows.
      signs: fixed signs.
      parent: multipliers to start from.
      temperature: of the smoothed eigenvalue, if there is a parent. The bound is about twice this above the best.
    """
    from scipy.optimize import minimize

    Z, f = outputs.directions, _quadratic(outputs, signs)
    n, q, m = len(Z), f.P.shape[1], len(f.forms)
    upper = np.triu_indices(m, 1)
    start = _start(outputs, signs, f, parent)
    x = np.concatenate([start.kappa, start.mu, [start.delta], start.products[np.ix_(f.which, f.which)][upper]])
    weighted = np.linalg.norm(f.P, axis=1) > 0

    def parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
        L = np.zeros((m, m))
        L[upper] = x[2 * n + 1 :] / 2
        return np.exp(x[:n]), x[n : 2 * n], float(x[2 * n]), L + L.T

    def smoothed(x: np.ndarray, temperature: float) -> tuple[float, np.ndarray]:
        kappa, mu, delta, L = parts(x)
        values, vectors = np.linalg.eigh(_matrix(Z, f, kappa, mu, delta, L))
        mass = np.exp((values - values[-1]) / temperature)
        total = float(mass.sum())
        X = (vectors * (mass / total)) @ vectors.T
        square = np.einsum("ij,ij->i", f.P @ X[:q, :q], f.P) * kappa
        other = np.where(weighted, np.einsum("ij,ij->i", Z @ X[q:, q:], Z) / kappa, 0.0)
        cross = np.einsum("ij,ij->i", f.N @ X[:q, q:], Z)
        trace = np.trace(X[:q, :q]) - np.trace(X[q:, q:])
        products = (f.forms @ X @ f.forms.T)[upper]
        gradient = np.concatenate([(square - other) / 4, cross, [trace], products])
        return 2 * (float(values[-1]) + temperature * np.log(total)), 2 * gradient

    limits = [(-20.0, 20.0)] * n + [(0.0, 1.0)] * n + [(None, None)] + [(0.0, _PENALTY)] * len(upper[0])
    bound, best = _proved(Z, f, *parts(x)), x
    options = {"maxiter": _STEPS if parent is None else _MORE_STEPS, "maxcor": 20}
    for heat in _TEMPERATURES if parent is None else (temperature,):
        found = minimize(smoothed, x, (heat,), "L-BFGS-B", jac=True, bounds=limits, options=options)
        x = found.x
        reached = _proved(Z, f, *parts(x))
        if reached < bound:
            bound, best = reached, x
    kappa, mu, delta, L = parts(best)
    values, vectors = np.linalg.eigh(_matrix(Z, f, kappa, mu, delta, L))
    mass = np.exp((values - values[-1]) / temperature)
    products = start.products.copy()
    products[np.ix_(f.which, f.which)] = 2 * L
    moments = (vectors * (2 * mass / mass.sum())) @ vectors.T
    main = vectors[q:, -1]
    return OutputBound(bound, OutputMultipliers(best[:n], mu, delta, products), moments, np.stack([main, -main]))


def _start(outputs: Outputs, signs: OutputSigns, f: _Quadratic, parent: OutputMultipliers | None) -> OutputMultipliers:
    """The parent's multipliers, or those of uniform moments."""
    n, c = outputs.weights.shape
    size = c + len(signs.row)
    if parent is None:
        lengths = np.linalg.norm(f.P, axis=1)
        return OutputMultipliers(-np.log(lengths + _SHIFT), np.full(n, 0.5), 0.0, np.zeros((size, size)))
    products = np.zeros((size, size))
    k = len(parent.products)
    products[:k, :k] = parent.products
    return parent._replace(products=products)


def split_outputs(outputs: Outputs, signs: OutputSigns, moments: np.ndarray) -> tuple[int, float]:
    """Where the relaxation errs most, and how much: output k as -1 - k, as long as there are open ones, or a row."""
    Z, R, G = outputs
    q = G.shape[1]
    V, W = moments[:q, :q], moments[:q, q:]
    spread = np.sqrt(np.maximum(np.einsum("ij,ij->i", Z @ moments[q:, q:], Z), 0.0))
    if (signs.output == 0).any():
        error = np.sqrt(np.maximum(np.einsum("ij,ij->i", G @ V, G), 0.0)) * (spread @ np.abs(R)) / 2
        error[signs.output != 0] = -np.inf
        k = int(error.argmax())
        return -1 - k, float(error[k])
    P = np.where(R * signs.output < 0, 0.0, R) @ G  # the rest is linear in t already
    size = np.sqrt(np.maximum(np.einsum("ij,ij->i", P @ V, P), 0.0)) * spread
    error = (1 + _DOUBT) * size - np.abs(np.einsum("ij,ij->i", P @ W, Z))
    error[signs.row] = -np.inf
    k = int(error.argmax())
    return k, float(error[k]) / 2


def outputs_of(directions: np.ndarray, weights: np.ndarray) -> tuple[Outputs, float]:
    """The outputs' span, and what may be added to M because the weights' rest outside of it was left out."""
    _, values, combinations = np.linalg.svd(weights, full_matrices=False)
    G = combinations[values > _NO_OUTPUT * values[0]].T
    rest = np.linalg.norm(weights - (weights @ G) @ G.T, axis=1).sum()
    rounding = 8 * (sum(weights.shape) + 2) * EPS * np.linalg.norm(weights, axis=1).sum()
    return Outputs(directions, weights, G), float(rest + rounding)
