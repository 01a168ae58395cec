"""The master program of cutting planes: the best output weights of given neurons, and the dual solution.

    min_{W, c}  loss(lower((Z U^T)_+ W) + c, Y) + beta sum_j ||w_j||

with unit neurons u_j; ``lower`` is the readout, which turns rows into samples. Its dual is the dual of the training
problem restricted to the constraints of these neurons. The Newton method of
:mod:`jaxcvx.solvers.neurons.group_lasso` solves it for the squared loss, :mod:`jaxcvx.methods.interior_point` for the
other losses.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.methods.interior_point import fit_lasso
from jaxcvx.networks.network import Network, balance, network_objective
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.neurons.group_lasso import fit_atoms


class Cuts(NamedTuple):
    """The neurons whose constraints are in the master program, and its solution.

    Attributes:
      directions: (m, p) neurons. The part that is penalised has norm 1; zero rows are empty slots.
      weights: (m, q) output weights.
      output_bias: (c,) output bias; 0 if the features have none.
      dual: (n, c) dual residual.
    """

    directions: Float[Array, "m p"]
    weights: Float[Array, "m q"]
    output_bias: Float[Array, c]
    dual: Float[Array, "n c"]


def cuts_network(problem: Problem, cuts: Cuts) -> Network:
    """Turn the cuts into a balanced network of the same width."""
    bias = cuts.output_bias if problem.features.output_bias else None
    return balance(Network(cuts.directions, cuts.weights, None, problem.features, bias))


@jax.jit
def cuts_objective(problem: Problem, cuts: Cuts) -> Float[Array, ""]:
    """Training objective of the cuts."""
    return network_objective(cuts_network(problem, cuts), problem)


@functools.partial(jax.jit, static_argnames="tol")
def fit_cuts(problem: Problem, cuts: Cuts, tol: float = 1e-11) -> Cuts:
    """Solve the master program to a relative gap ``tol``, starting from the current weights."""
    loss, Y, readout, free = problem.loss, problem.Y, problem.readout, problem.features.output_bias
    atoms = jax.nn.relu(problem.rows @ cuts.directions.T)
    if readout.kind == "flatten":
        # The readout of centred activations is the centred readout, since each position is centred over the samples.
        blocks = atoms.reshape(-1, readout.positions, atoms.shape[1])
        mean, mean_Y = (jnp.mean(a, axis=0) if free else jnp.zeros_like(a[0]) for a in (blocks, Y))
        centred = (blocks - mean).reshape(atoms.shape)
        fit = fit_atoms(centred, Y - mean_Y, problem.beta, readout, init=cuts.weights, tol=tol)
        bias = mean_Y - readout.apply(mean, fit.output)[0]
        return cuts._replace(weights=fit.output, output_bias=bias, dual=fit.R)
    A = readout.design(atoms)[:, :, 0]
    if not loss.is_quadratic:
        lasso = fit_lasso(loss, A, Y[:, 0], problem.beta, free, tol=tol)
        return cuts._replace(weights=lasso.weights[:, None], output_bias=lasso.bias[None], dual=lasso.R[:, None])
    # Centring eliminates an output bias. Then only the part of Y in the span of the activations matters.
    mean_A, mean_Y = (jnp.mean(a, axis=0) if free else 0 * a[0] for a in (A, Y))
    A, target = A - mean_A, Y - mean_Y
    Q, T = jnp.linalg.qr(A) if A.shape[0] > A.shape[1] else (jnp.eye(A.shape[0], dtype=A.dtype), A)
    inside = Q.T @ target
    fit = fit_atoms(T, inside, problem.beta, init=cuts.weights, tol=tol)
    R = target - Q @ (inside - fit.R)
    return cuts._replace(weights=fit.output, output_bias=mean_Y - mean_A @ fit.output, dual=R)


def cleaned(problem: Problem, cuts: Cuts) -> Cuts:
    """Reduce the number of neurons without changing the objective, and place samples exactly on kinks of the loss.

    Works for one output, on the host. The steps are:

    1. Neurons that are nonzero only by rounding are set to zero.
    2. A held sample is one whose prediction F must not change: for a smooth loss every sample, for a loss with kinks
       those at their kink F = Y. While the activations of the neurons are linearly dependent on the held samples, the
       weights move along this dependence, at no cost. A step ends when a weight becomes zero or another sample reaches
       its kink, which is then held.
    3. For a loss with kinks, least squares restores F = Y on the held samples.

    If the objective grows by more than rounding, the cuts are returned unchanged.
    """
    A = np.asarray(problem.readout.design(jax.nn.relu(problem.rows @ cuts.directions.T))[:, :, 0], np.float64)
    w, c = np.array(cuts.weights[:, 0]), float(cuts.output_bias[0])
    R, Y, free = np.asarray(cuts.dual)[:, 0], np.asarray(problem.Y)[:, 0], problem.features.output_bias
    slack = 1 - np.abs(A.T @ R) / float(problem.beta)
    w[np.abs(w) <= np.maximum(slack, 1e-13) * np.abs(w).max(initial=0.0)] = 0.0
    constant = np.full((len(A), int(free)), len(A) ** -0.5)
    scale = np.linalg.norm(A, axis=0)
    held = np.ones(len(A), bool)
    if not problem.loss.is_smooth:
        low, high = (np.asarray(b)[:, 0] for b in problem.loss.dual_interval(problem.Y))
        held = np.minimum(R - low, high - R) > 1e-6 * (high - low)
    while True:
        alive = np.flatnonzero(w)
        columns = np.concatenate([A[:, alive] / scale[alive], constant], axis=1)
        wide = held.sum() < columns.shape[1]
        if not len(alive):
            break
        _, size, right = np.linalg.svd(columns[held], full_matrices=wide)
        if not wide and size[-1] > 1e-11 * size[0]:
            break
        z = right[-1] * (1 if right[-1, : len(alive)] / scale[alive] @ np.sign(w[alive]) < 0 else -1)
        step = z[: len(alive)] / scale[alive]
        error, change = Y - A @ w - c, columns @ z
        vanish = np.where(step * w[alive] < 0, -w[alive] / np.where(step == 0, 1.0, step), np.inf)
        arrive = np.where(~held & (error * change > 0), error / np.where(change == 0, 1.0, change), np.inf)
        neuron, sample = vanish.argmin(), arrive.argmin()
        length = min(vanish[neuron], arrive[sample])
        if not np.isfinite(length):
            break
        w[alive] += length * step
        c += length * float(z[len(alive) :] @ constant[0])
        if arrive[sample] <= vanish[neuron]:
            held[sample] = True
        else:
            w[alive[neuron]] = 0.0
    if not problem.loss.is_smooth and len(alive):
        correction, *_ = np.linalg.lstsq(columns[held], (Y - A @ w - c)[held], rcond=None)
        w[alive] += correction[: len(alive)] / scale[alive]
        c += float(correction[len(alive) :] @ constant[0])
    new = cuts._replace(weights=jnp.asarray(w)[:, None], output_bias=jnp.asarray([c]))
    before, after = (float(cuts_objective(problem, a)) for a in (cuts, new))
    eps = float(np.finfo(np.float64).eps)
    rounding = 64 * eps * float(problem.loss.value(0 * problem.Y, problem.Y)) + 1e-9 * abs(before)
    return new if after <= before + rounding else cuts


def grown(cuts: Cuts, directions: np.ndarray, capacity: int) -> Cuts:
    """Add neurons to the cuts and give them ``capacity`` slots. Runs on the host."""
    old, weights = np.asarray(cuts.directions), np.asarray(cuts.weights)
    used = np.any(old != 0, axis=1)
    placed = np.zeros((capacity, old.shape[1]))
    kept = np.zeros((capacity, weights.shape[1]))
    rows = np.concatenate([old[used], directions])
    placed[: len(rows)] = rows
    kept[: used.sum()] = weights[used]
    return cuts._replace(directions=jnp.asarray(placed), weights=jnp.asarray(kept))
