"""Sliding fully corrective Frank-Wolfe: one round of it, with fixed shapes, so that whole paths are one program.

A round merges neurons, adds those that the last pricing found, fits all output weights, moves all neurons a little and
prices again. Pricing ascends from the neurons of the pool, so it also slides them: a neuron that no longer stands at a
maximum of the price gets a better copy beside it, and merging joins the two.

Sources: Q. Denoyelle, V. Duval, G. Peyré and E. Soubies (2019), "The sliding Frank-Wolfe algorithm and its application
to super-resolution microscopy"; F. Bach (2017), "Breaking the curse of dimensionality with convex neural networks".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt

from jaxcvx.networks.network import Network
from jaxcvx.numerics.safe import norm, unit_rows
from jaxcvx.pricing.base import distinct, neuron_values
from jaxcvx.pricing.multistart import ascend_neurons, curvature_of
from jaxcvx.problems.training import Problem, counted_rows
from jaxcvx.solvers.semi_infinite.pool import (
    Pool,
    dual_residual,
    fit_pool,
    has_output_bias,
    pool_network,
    pool_of,
)

_SAME_CELL = 1e-5  # relative overlap of opposite signs up to which two neurons are joined; measured from 1e-6 to 1e-3
_WIDTHS = (16, 32, 64, 128, 256)  # numbers of slots that are moved together
_START_ANEW = 0.12  # chance of a scout to start anew in a round
_DECAY, _SQUARE_DECAY, _ADAM_EPS = 0.9, 0.999, 1e-8  # of Adam


class Settings(NamedTuple):
    """The sizes of a round. They are static under jit.

    Attributes:
      new_neurons: largest number of neurons added in a round.
      starts: smallest number of ascents of pricing.
      ascent_rounds: difference-of-convex steps of pricing.
      ascent_steps: gradient steps of each inner problem of pricing.
      refit_steps: proximal gradient steps that fit the output weights.
      moves: rounds for one beta that move all neurons; they come first.
      move_steps: Adam steps of such a round.
      max_rounds: rounds for one beta.
      patience: pricings in turn without success that end the rounds for one beta.
      stop_if_full: take no rounds from a pool without an empty slot.
      narrow: move as many slots as the neurons need, in powers of two, by one program for each power. It saves work
        where one path runs alone; under vmap all these programs would run.
      blocks: number of blocks of samples, one after the other, in a step that moves neurons; it divides the samples.
        The activations of a block stay in the cache.
    """

    new_neurons: int = 32
    starts: int = 96
    ascent_rounds: int = 6
    ascent_steps: int = 8
    refit_steps: int = 150
    moves: int = 8
    move_steps: int = 150
    max_rounds: int = 8
    patience: int = 1
    stop_if_full: bool = False
    narrow: bool = False
    blocks: int = 1


class Pace(NamedTuple):
    """Numbers that may be traced, so that other ones compile nothing.

    Attributes:
      rate: Adam's initial learning rate.
      tol: relative violation of a dual constraint from which a neuron is added.
      moves: rounds for one beta that move all neurons.
      max_rounds: rounds for one beta.
      move_steps: Adam steps of a round that moves all neurons.
    """

    rate: Array
    tol: Array
    moves: Array
    max_rounds: Array
    move_steps: Array


class Candidates(NamedTuple):
    """What pricing found, best first.

    Attributes:
      directions: (k, p) unit vectors.
      prices: (k,) their prices at the pool's residual.
    """

    directions: Float[Array, "k p"]
    prices: Float[Array, k]


class Sliding(NamedTuple):
    """The state between two rounds.

    Attributes:
      pool: the neurons.
      candidates: what the pricing at the pool's residual found.
      scouts: (s, p) directions of ascents that go on from round to round. Zero rows are drawn anew.
    """

    pool: Pool
    candidates: Candidates
    scouts: Float[Array, "s p"]


def start_of(problem: Problem, pool: Pool, settings: Settings) -> Sliding:
    """The state of a pool before the first pricing. Prices of -1 say that prices are unknown."""
    p, dtype = problem.num_weights, problem.dtype
    num = max(settings.starts, len(pool.weights))
    found = min(settings.new_neurons, num)
    nothing: Any = (np.zeros((found, p), dtype), np.full(found, -1.0, dtype), np.zeros((num, p), dtype))
    return Sliding(pool, Candidates(*nothing[:2]), nothing[2])


def with_candidate(state: Sliding, direction: Float[Array, p]) -> Sliding:
    """The state with one candidate, which counts as one that pays."""
    directions, prices = (jnp.asarray(a) for a in state.candidates)
    found = Candidates(directions.at[0].set(direction), prices.at[0].set(jnp.inf))
    return state._replace(candidates=found)


def row_curvature(problem: Problem) -> Float[Array, ""]:
    """An upper bound on the squared spectral norm of the feature rows scaled to length 1, for ``price``."""
    return curvature_of(unit_rows(problem.rows))


def fresh_directions(bits: UInt[Array, "k m"], Z: Float[Array, "N p"]) -> Float[Array, "m p"]:
    """Unit directions to ascend from: random ones, and differences of two rows scaled to length 1, in turn.

    Args:
      bits: random 32-bit numbers, at least p + 2 for every direction. One draw compiles faster than one for each kind.
      Z: (N, p) feature rows.
    """
    bytes_ = jax.lax.bitcast_convert_type(bits, jnp.uint8).astype(Z.dtype)  # (k, m, 4)
    random = jnp.sum(bytes_[: Z.shape[1]], axis=-1).T - 510.0  # nearly normal
    index = (bits[-2:] % len(Z)).astype(jnp.int32)
    ends = unit_rows(Z)[index]
    proper = (jnp.arange(bits.shape[1]) % 4 < 2) & (index[0] != index[1])
    return unit_rows(jnp.where(proper[:, None], ends[0] - ends[1], random))


def price(
    problem: Problem,
    pool: Pool,
    scouts: Float[Array, "s p"],
    key: PRNGKeyArray,
    settings: Settings,
    curvature: Array,
) -> Sliding:
    """Ascend from the neurons of the pool, and from a scout for every slot that is empty or missing.

    A few steps a round do not take a fresh direction to its maximum. So the ascents of scouts go on in the next round,
    at a residual that has changed little. In every round some of them start anew.

    Returns:
      The state with the pool as it is.
    """
    Z, R = problem.rows, problem.readout.lift(dual_residual(problem, pool))
    m = len(scouts)
    more = m - len(pool.weights)
    directions, weights = (jnp.pad(a, ((0, more), (0, 0))) for a in (pool.directions, pool.weights))
    bits = jax.random.bits(key, (Z.shape[1] + 3, m), jnp.uint32)
    anew = jnp.all(scouts == 0, axis=1) | (bits[0] < round(_START_ANEW * 2**32))
    scouts = jnp.where(anew[:, None], fresh_directions(bits[1:], Z), scouts)
    used = norm(weights) > 0
    u = jnp.where(used[:, None], directions, scouts)
    if problem.num_columns == 1:
        alternating = jnp.where(jnp.arange(m) % 2 == 0, 1.0, -1.0)
        v = jnp.where(used, jnp.sign(weights[:, 0]), alternating)[:, None].astype(Z.dtype)
    else:
        v = unit_rows(jax.nn.relu(u @ Z.T) @ R)
    u, prices = ascend_neurons(
        Z, R, u, v, rounds=settings.ascent_rounds, inner_steps=settings.ascent_steps, curvature=curvature
    )
    best, prices = distinct(u, prices, settings.new_neurons, radius=1e-2)
    return Sliding(pool, Candidates(u[best], prices), jnp.where(used[:, None], scouts, u))


def neuron_prices(problem: Problem, R: Float[Array, "n c"], directions: Float[Array, "m p"]) -> Float[Array, m]:
    """The price of each direction, scaled to length 1, at the dual residual R."""
    return neuron_values(problem.rows, problem.readout.lift(R), unit_rows(directions))


def merge_cells(problem: Problem, pool: Pool) -> Pool:
    """Join neurons of one cell with parallel output weights: their sum predicts the same and costs no more.

    Neurons u and u' lie in one cell if no row has opposite signs on them. Rows on which the product of the two
    activations is below rounding do not count, so the objective may change in the last digits. Nor do samples of
    weight 0.
    """
    size = norm(pool.weights)
    m = len(size)
    neurons = pool.directions * size[:, None]
    activation = counted_rows(problem) @ neurons.T
    positive, negative = jax.nn.relu(activation), jax.nn.relu(-activation)
    opposite = positive.T @ negative
    length = norm(activation, axis=0)
    one_cell = opposite + opposite.T <= _SAME_CELL * length[:, None] * length[None, :]
    output = unit_rows(pool.weights)
    used = size > 0
    joinable = one_cell & (output @ output.T > 1 - 1e-4) & used[:, None] & used[None, :] & ~jnp.eye(m, dtype=bool)
    order = jnp.argsort(size)

    def join(k, carry):
        neurons, size = carry
        small = order[k]
        partner = jnp.argmax(jnp.where(joinable[small], size, -1.0))
        joins = joinable[small, partner] & (size[partner] > 0) & (size[small] > 0)
        added = jnp.where(joins, neurons[small], 0.0)
        neurons = neurons.at[partner].add(added).at[small].add(-added)
        grown = jnp.where(joins, size[small], 0.0)
        return neurons, size.at[partner].add(grown).at[small].add(-grown)

    neurons, size = jax.lax.fori_loop(0, m, join, (neurons, size))
    kept = size > 0
    length = jnp.where(kept, norm(neurons), 0.0)
    directions = jnp.where(kept[:, None], unit_rows(neurons), 0.0)
    return pool._replace(directions=directions, weights=output * length[:, None])


def add(pool: Pool, candidates: Candidates, wanted: Array) -> Pool:
    """Put the wanted candidates, best first, into empty slots. Those beyond the capacity are dropped."""
    size = norm(pool.weights)
    num = min(len(wanted), len(size))
    slots = jnp.argsort(size, stable=True)[:num]
    taken = wanted[:num] & (size[slots] == 0)
    directions = jnp.where(taken[:, None], candidates.directions[:num], pool.directions[slots])
    return pool._replace(directions=pool.directions.at[slots].set(directions))


def _first(parts: Any) -> Any:
    return jax.tree.map(lambda a: a[0], parts)


def _sum(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def move_all(problem: Problem, pool: Pool, num_steps: int | Array, rate: Array, blocks: int = 1) -> Pool:
    """Move all weights by ``num_steps`` Adam steps on the training objective. The result is never worse.

    The steps cross kinks, which difference-of-convex steps do not. The rate decays to 0 along a cosine. The samples are
    worked through in ``blocks``.
    """
    Z, readout, free = problem.rows, problem.readout, has_output_bias(problem)
    network = pool_network(problem, pool)
    parts = jax.tree.map(lambda a: a.reshape(blocks, -1, *a.shape[1:]), (Z, problem.targets))

    def loss(params, part):
        U, V, bias = params
        F = readout.apply(jax.nn.relu(part[0] @ U.T), V)
        return problem.loss.value(F + bias if free else F, part[1])

    def total(function, params):
        """The sum over blocks of a function of weights and a block, or of its gradient."""
        if blocks == 1:
            return function(params, _first(parts))
        zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(function, params, _first(parts)))
        return jax.lax.scan(lambda sums, part: (_sum(sums, function(params, part)), None), zero, parts)[0]

    def objective(params):
        return total(loss, params) + 0.5 * problem.beta * (jnp.sum(params[0] ** 2) + jnp.sum(params[1] ** 2))

    def step(count, carry):
        params, mean, square = carry
        U, V, bias = total(jax.grad(loss), params)
        gradient = (U + problem.beta * params[0], V + problem.beta * params[1], bias)
        mean = jax.tree.map(lambda m, g: _DECAY * m + (1 - _DECAY) * g, mean, gradient)
        square = jax.tree.map(lambda v, g: _SQUARE_DECAY * v + (1 - _SQUARE_DECAY) * g**2, square, gradient)
        turn = (count + 1).astype(Z.dtype)
        here = 0.5 * rate * (1 + jnp.cos(jnp.pi * (turn - 1) / jnp.asarray(num_steps, Z.dtype)))
        first, second = 1 - _DECAY**turn, 1 - _SQUARE_DECAY**turn

        def moved(a, m, v):
            return a - here * (m / first) / (jnp.sqrt(v / second) + _ADAM_EPS)

        return jax.tree.map(moved, params, mean, square), mean, square

    start = (network.hidden, network.output, pool.bias)
    zero = jax.tree.map(jnp.zeros_like, start)
    (U, V, bias), _, _ = jax.lax.fori_loop(0, num_steps, step, (start, zero, zero))
    better = objective((U, V, bias)) < objective(start)
    moved = pool_of(problem, Network(U, V, None, problem.features, bias))
    return jax.tree.map(lambda new, old: jnp.where(better, new, old), moved, pool)


def move_used(problem: Problem, pool: Pool, num_steps: int | Array, rate: Array, blocks: int = 1) -> Pool:
    """:func:`move_all` on the smallest power of two of slots that holds all neurons, which come first then."""
    size = norm(pool.weights)
    order = jnp.argsort(-size, stable=True)
    pool = pool._replace(directions=pool.directions[order], weights=pool.weights[order])
    widths = [width for width in _WIDTHS if width < len(size)] + [len(size)]

    def moving(width):
        def move(pool):
            part = pool._replace(directions=pool.directions[:width], weights=pool.weights[:width])
            part = move_all(problem, part, num_steps, rate, blocks)
            return part._replace(
                directions=pool.directions.at[:width].set(part.directions),
                weights=pool.weights.at[:width].set(part.weights),
            )

        return move

    used = jnp.sum(size > 0, dtype=jnp.int32)
    index = jnp.sum(used > jnp.array(widths[:-1], jnp.int32), dtype=jnp.int32)
    return jax.lax.switch(index, [moving(width) for width in widths], pool)


def one_round(
    problem: Problem,
    state: Sliding,
    key: PRNGKeyArray,
    settings: Settings,
    move_steps: int | Array,
    rate: Array,
    tol: Array,
    curvature: Array,
) -> Sliding:
    """Add, fit, move, merge and price."""
    pool = add(state.pool, state.candidates, state.candidates.prices > problem.beta * (1 + tol))
    pool = fit_pool(problem, pool, settings.refit_steps)
    if settings.moves:
        move = move_used if settings.narrow else move_all
        pool = move(problem, pool, move_steps, rate, settings.blocks)
    pool = merge_cells(problem, pool)
    return price(problem, pool, state.scouts, key, settings, curvature)


def slide(
    problem: Problem,
    state: Sliding,
    key: PRNGKeyArray,
    settings: Settings,
    pace: Pace,
    curvature: Array,
    active: bool | Array = True,
) -> tuple[Sliding, Int[Array, ""]]:
    """Rounds at one beta until ``patience`` pricings in turn find no price that exceeds it by more than ``tol``.

    The first ``moves`` rounds move all neurons; later ones only add, drop and fit. There are at most ``max_rounds``,
    and none unless ``active``. Rates and limits are those of ``pace``.

    Returns:
      The state, and the number of rounds.
    """

    def more(carry):
        state, count, quiet = carry
        goes_on = (count < pace.max_rounds) & (quiet < settings.patience)
        return goes_on & jnp.any(jnp.all(state.pool.weights == 0, axis=1)) if settings.stop_if_full else goes_on

    def body(carry):
        state, count, quiet = carry
        here = jax.random.fold_in(key, count)
        steps = jnp.where(count < pace.moves, pace.move_steps, 0)
        state = one_round(problem, state, here, settings, steps, pace.rate, pace.tol, curvature)
        pays = state.candidates.prices[0] > problem.beta * (1 + pace.tol)
        return state, count + 1, jnp.where(pays, 0, quiet + 1)

    # Nothing to do where the pool is empty and no neuron pays: beta is above beta_max. Prices below 0 are unknown.
    best = state.candidates.prices[0]
    nothing = jnp.all(state.pool.weights == 0) & (best >= 0) & (best <= problem.beta)
    quiet = jnp.where(nothing | ~jnp.asarray(active), settings.patience, 0)
    state, count, _ = jax.lax.while_loop(more, body, (state, jnp.zeros((), jnp.int32), quiet))
    return state, count
