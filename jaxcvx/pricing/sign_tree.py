"""Branch and bound on the signs of rows for the pricing problem, by the reduced relaxation.

    M = max over unit u of ||g(u)||,   g(u) = sum_i R_i (z_i^T u)_+

For one output, a node is a sign of R and the signs of z_i^T u of a few rows; the bounds are those of
:mod:`jaxcvx.pricing.reduced_relaxation`. Both signs of R are roots of one tree. For several outputs, ||g(u)|| is the
maximum of v^T g(u) over unit v; a node is the signs of a few entries of v and of a few rows, and the bounds are those
of :mod:`jaxcvx.pricing.output_relaxation`. The node with the largest bound is split next, where the error of its
relaxation is largest. Its two children cover it, so M is at most the largest bound of the leaves at any time. Leaves
below the best value that was found are dropped.

Source: best-first branch and bound, R. Horst and H. Tuy, "Global Optimization" (1996); the bounds are derived here.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxcvx.pricing.host import ascend
from jaxcvx.pricing.output_relaxation import (
    TEMPERATURE,
    OutputMultipliers,
    Outputs,
    OutputSigns,
    bound_outputs,
    outputs_of,
    split_outputs,
)
from jaxcvx.pricing.reduced_barrier import Moments, Rows, Signs
from jaxcvx.pricing.reduced_relaxation import TOLERANCE, bound_node, split_row
from jaxcvx.pricing.row_scaling import ASCENTS, EPS, Scaled, scaled_rows, starts

_NODE_ASCENTS = 4
_SHARE = 0.25  # tolerance of a node over its parent's distance from the target
_HEAT = 0.1  # the same for the temperature of several outputs
_FINEST = 1e-5  # least tolerance, least temperature
_CLOSED = 1e-9  # least error of the relaxation on a row that is worth a split


class Node(NamedTuple):
    """A leaf. Its order in the heap is that of the first two entries."""

    key: float  # minus the bound, for scaled rows
    number: int
    side: int  # sign of r for one output
    signs: Signs | OutputSigns
    state: Moments | OutputMultipliers  # where its children start
    split: int  # number of the row that its children fix; -1 - k for output k
    error: float  # of the relaxation there


class SignTree(NamedTuple):
    """State of a search. It can be pickled, and :func:`grow_signs` goes on from it.

    Attributes:
      scaled: the data.
      outputs: the data of the relaxation for several outputs; None for one.
      leaves: open nodes, a heap.
      best: largest ||g(u)|| / ||u|| found for the scaled rows.
      neuron: (p,) unit u of that value, in the coordinates of Z.
      nodes: number of bounds computed.
    """

    scaled: Scaled
    outputs: Outputs | None
    leaves: list[Node]
    best: float
    neuron: np.ndarray
    nodes: int

    @property
    def upper(self) -> float:
        """Proved upper bound on M."""
        largest = max(self.best, -self.leaves[0].key if self.leaves else 0.0)
        return self.scaled.scale * (largest + self.scaled.allowance) * (1 + 8 * EPS)

    @property
    def value(self) -> float:
        """||g(neuron)||, a lower bound on M up to rounding."""
        return self.scaled.scale * self.best

    @property
    def open(self) -> int:
        """Number of open nodes."""
        return len(self.leaves)


def start_signs(Z: np.ndarray, R: np.ndarray) -> SignTree:
    """Begin a search: scale the data and bound M by the relaxation without fixed signs.

    Args:
      Z: (n, p) feature rows.
      R: (n,) or (n, c) residual.
    """
    Z = np.asarray(Z, np.float64)
    R = np.asarray(R, np.float64).reshape(len(Z), -1)
    scaled, outputs = scaled_rows(Z, R), None
    axis = np.zeros(Z.shape[1])
    axis[0] = 1.0
    nothing = np.zeros(0, np.int64)
    if scaled.weights.shape[1] > 1:
        outputs, lost = outputs_of(scaled.directions, scaled.weights)
        scaled = scaled._replace(allowance=scaled.allowance + lost)
    tree = SignTree(scaled, outputs, [], 0.0, axis, 0)
    if not len(scaled.weights):
        return tree
    tree = _improved(tree, *ascend(scaled.directions, scaled.weights, starts(scaled), ASCENTS))
    if outputs is not None:
        free = OutputSigns(np.zeros(scaled.weights.shape[1], np.int64), nothing, nothing)
        return _with_node(tree, 1, free, None, np.inf, 0.0)
    for side in (1, -1):
        tree = _with_node(tree, side, Signs(nothing, nothing), None, np.inf, 0.0)
    return tree


def _improved(tree: SignTree, best: float, u: np.ndarray) -> SignTree:
    if best <= tree.best:
        return tree
    neuron = tree.scaled.basis @ u
    return tree._replace(best=best, neuron=neuron / np.linalg.norm(neuron))


def _with_node(tree: SignTree, side: int, signs: Any, parent: Any, inherited: float, level: float) -> SignTree:
    """Bound a node and add it to the leaves (in place) unless the best neuron's value excludes it."""
    target = max(level, tree.best)
    state: Moments | OutputMultipliers
    if tree.outputs is None:
        rows = Rows(tree.scaled.directions, side * tree.scaled.weights[:, 0])
        tolerance = min(TOLERANCE, max(_SHARE * (inherited - target), _FINEST))
        found = bound_node(rows, signs, parent, target, tolerance)
        bound, state, neurons = found.bound, found.moments, found.neurons
        split, error = split_row(rows, signs, found.moments)
    else:
        temperature = min(TEMPERATURE, max(_HEAT * (inherited - target), _FINEST))
        many = bound_outputs(tree.outputs, signs, parent, temperature)
        bound, state, neurons = many.bound, many.multipliers, many.neurons
        split, error = split_outputs(tree.outputs, signs, many.moments)
    neurons = neurons[np.linalg.norm(neurons, axis=1) > 0]
    if len(neurons):
        units = neurons / np.linalg.norm(neurons, axis=1, keepdims=True)
        tree = _improved(tree, *ascend(tree.scaled.directions, tree.scaled.weights, units, _NODE_ASCENTS))
    bound = min(bound, inherited)
    if bound > tree.best:
        heapq.heappush(tree.leaves, Node(-bound, tree.nodes, side, signs, state, split, error))
    return tree._replace(nodes=tree.nodes + 1)


def _children(node: Node) -> list[Signs | OutputSigns]:
    children: list[Signs | OutputSigns] = []
    for sign in (1, -1):
        if node.split < 0:
            assert isinstance(node.signs, OutputSigns)
            output = node.signs.output.copy()
            output[-1 - node.split] = sign
            children.append(node.signs._replace(output=output))
        else:
            row, signs = np.append(node.signs.row, node.split), np.append(node.signs.sign, sign)
            children.append(node.signs._replace(row=row, sign=signs))
    return children


def grow_signs(
    tree: SignTree,
    level: float,
    deadline: float,
    report: Callable[[float, float, int, int], bool | None] | None = None,
) -> SignTree:
    """Split nodes until the bound is at most ``level``, or the time is over, or the bound is as close as it can come.

    The last means a relative distance of about 2e-5 to the best neuron's value.

    Args:
      tree: where to go on; it is not changed.
      level: bound on M to reach. Nodes below it are kept, so a lower level can follow.
      deadline: value of ``time.perf_counter()`` after which no node is split.
      report: called after every split with the bound, the best value, and the numbers of open nodes and of all nodes;
        True ends the search.
    """
    tree = tree._replace(leaves=list(tree.leaves))
    scaled_level = level / tree.scaled.scale - tree.scaled.allowance
    while tree.leaves and tree.upper > level and time.perf_counter() < deadline:
        node = tree.leaves[0]
        if -node.key <= tree.best + 2 * _FINEST or node.error < _CLOSED:
            break
        heapq.heappop(tree.leaves)
        for signs in _children(node):
            tree = _with_node(tree, node.side, signs, node.state, -node.key, scaled_level)
        if report is not None and report(tree.upper, tree.value, tree.open, tree.nodes):
            break
    return tree
