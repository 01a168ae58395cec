"""The largest price of any neuron, bounded from above and from below, at any time: two searches behind one interface.

The relaxation of :mod:`jaxcvx.pricing.sign_tree` gives a bound at once for any number of rows, and branching on signs
of rows improves it. It closes a gap of some 20 per cent in few nodes. The boxes of :mod:`jaxcvx.pricing.box_tree` need
rows of low rank, where they close any gap.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from jaxcvx.pricing.box_tree import BoxTree, grow_boxes, rebased, start_boxes, suits_boxes
from jaxcvx.pricing.host import ascend_on_host, price_of
from jaxcvx.pricing.sign_tree import SignTree, grow_signs, start_signs

_FIRST = {"signs": (0.1, 4.0), "boxes": (0.25, 20.0)}  # share of the time for a first try, and largest seconds
_SLICE = (0.1, 2.0)  # share of the time between two decisions, and least seconds
_WORTH, _SHIFT = 5_000, 1e-3  # boxes, and a relative shift of the prices, from and up to which boxes are taken over
_SMALL_RANK = 9  # up to this rank boxes begin at once
_END = 2e-7  # relative distance of the bounds at which a search ends
_CLOSED = 1e-6  # relative distance of the bounds from which the best neuron counts as known


@dataclasses.dataclass
class PriceSearch:
    """State of a search. It can be pickled and go on later.

    Attributes:
      all_rows: (N, p) feature rows as given.
      rows: (n, p) those that are not zero and have a residual.
      residual: (n, q) their lifted residual.
      signs: search by signs of rows, and of outputs if there are several.
      boxes: search by boxes; None if the ranks are too large for it.
      upper: proved bound on the price of every unit neuron.
      value: the largest price found.
      neuron: (p,) a unit neuron of this price.
      nodes: number of nodes bounded so far.
      open: number of nodes left whose bound exceeds the largest price found, of the search that went last.
      rates: for each search that was tried, how fast its bound fell: per second, of the logarithm of its excess.
    """

    all_rows: Float[np.ndarray, "N p"]
    rows: Float[np.ndarray, "n p"]
    residual: Float[np.ndarray, "n q"]
    signs: SignTree
    boxes: BoxTree | None
    upper: float
    value: float
    neuron: Float[np.ndarray, p]
    nodes: int = 0
    open: int = 0
    rates: dict[str, float] = dataclasses.field(default_factory=dict)

    def excess(self, name: str, level: float) -> float:
        """How far the bound of one search is above the goal, relative to it."""
        bound = self.signs.upper if name == "signs" or self.boxes is None else self.boxes.upper
        return max(bound / max(level, self.value, np.finfo(float).tiny) - 1.0, 1e-12)

    def offer(self, neuron: Float[np.ndarray, p]) -> None:
        """Take a neuron if its price is the largest so far."""
        size = float(np.linalg.norm(neuron))
        price = price_of(self.rows, self.residual, neuron / size) if size > 0 else 0.0
        if price > self.value:
            self.value, self.neuron = price, neuron / size

    def finished(self, level: float) -> bool:
        """True if no price can exceed ``level`` or the largest price found."""
        return self.upper <= max(level, self.value * (1 + _END))

    @property
    def closed(self) -> bool:
        """True if no price exceeds the largest one found by more than a millionth."""
        return self.upper <= self.value * (1 + _CLOSED)


Report = Callable[[PriceSearch], bool]


def start_search(
    rows: Float[np.ndarray, "n p"],
    residual: Float[np.ndarray, "n q"],
    neurons: Float[np.ndarray, "m p"] | None = None,
    upper: float = np.inf,
) -> PriceSearch:
    """Begin with ascents and with a relaxation. Zero rows and rows without residual are left out.

    Args:
      rows: feature rows, in float64.
      residual: lifted residual, in float64.
      neurons: good neurons to begin with, such as those of the network.
      upper: a proved bound that is known already.
    """
    residual = residual.reshape(len(rows), -1)
    counts = np.any(rows != 0, axis=1) & np.any(residual != 0, axis=1)
    if not counts.any():
        counts[:1] = True
    all_rows, rows, residual = rows, rows[counts], residual[counts]
    given = None if neurons is None else neurons[np.any(neurons != 0, axis=1)]
    signs = start_signs(rows, residual)
    search = PriceSearch(all_rows, rows, residual, signs, None, min(upper, signs.upper), 0.0, signs.neuron)
    search.offer(signs.neuron)
    search.offer(ascend_on_host(rows, residual, given)[0])
    search.nodes, search.open = signs.nodes, signs.open
    if suits_boxes(rows, residual):
        search.boxes = start_boxes(rows, residual)
        search.upper = min(search.upper, search.boxes.upper)
    search.upper = max(search.upper, search.value)
    return search


def renewed_search(
    search: PriceSearch,
    residual: Float[np.ndarray, "n q"],
    neurons: Float[np.ndarray, "m p"],
    shift: float,
    upper: float,
) -> PriceSearch:
    """A search for another residual. The boxes are taken over if there are many and ``shift`` is small.

    Args:
      search: the search so far.
      residual: the new lifted residual of all rows that the search began with.
      neurons, upper: as for :func:`start_search`.
      shift: bound on the price of every unit neuron at the difference of the residuals.
    """
    new, old = start_search(search.all_rows, residual, neurons, upper), search.boxes
    if old is None or new.boxes is None or new.residual.shape[1] > 1:
        return new
    if old.nodes > _WORTH and shift <= _SHIFT * new.value and np.array_equal(old.rows, new.boxes.rows):
        new.boxes = rebased(old, new.residual, shift)
        new.nodes += search.nodes
        new.upper = max(min(new.upper, new.boxes.upper), new.value)
    return new


def grow_search(
    search: PriceSearch, level: float, deadline: float = np.inf, report: Report | None = None
) -> PriceSearch:
    """Search until no price can exceed ``level`` or the largest one found, or time is out.

    Args:
      search: from :func:`start_search`, or from an earlier call; it is changed.
      level: price at which the search stops.
      deadline: value of ``time.perf_counter()`` at which it stops.
      report: called with the search now and then; it stops if this returns True.

    Returns:
      The search.
    """
    begin = time.perf_counter()
    if search.boxes is None:
        if not search.finished(level):
            _by_signs(search, level, deadline, report)
        return search
    total, stuck = min(deadline - begin, 3600.0), set[str]()
    while not search.finished(level) and (left := deadline - time.perf_counter()) > 0:
        name = _next(search, level, left, stuck)
        share, seconds = _FIRST[name] if name not in search.rates else _SLICE
        length = min(share * total, seconds) if name not in search.rates else max(share * total, seconds)
        before, start, nodes = search.excess(name, level), time.perf_counter(), search.nodes
        stopped = (_by_signs if name == "signs" else _by_boxes)(search, level, min(start + length, deadline), report)
        spent = max(time.perf_counter() - start, 1e-3)
        search.rates[name] = max(float(np.log(before / search.excess(name, level))), 0.0) / spent
        stuck = stuck | {name} if search.nodes == nodes else set()
        if stopped or len(stuck) == 2:
            break
    return search


def _next(search: PriceSearch, level: float, seconds: float, stuck: set[str]) -> str:
    """The search to go on with: each is tried once; then the one whose bound will be lower at the end.

    One that is ``stuck``, without a node to halve, is left alone.

    Boxes are tried first where the rows have a small rank.
    """
    assert search.boxes is not None
    order = ["boxes", "signs"] if search.boxes.axes.shape[1] <= _SMALL_RANK else ["signs", "boxes"]
    order = [name for name in order if name not in stuck]
    for name in order:
        if name not in search.rates:
            return name
    return min(order, key=lambda name: float(np.log(search.excess(name, level))) - search.rates[name] * seconds)


def _by_signs(search: PriceSearch, level: float, deadline: float, report: Report | None) -> bool:
    """Go on with signs; True if the report stopped it."""
    stopped, before = False, search.nodes - search.signs.nodes

    def tell(upper: float, value: float, open_: int, nodes: int) -> bool:
        nonlocal stopped
        search.upper = max(min(search.upper, upper), search.value)
        search.nodes, search.open = before + nodes, open_
        stopped = report is not None and report(search)
        return stopped

    search.signs = grow_signs(search.signs, level, deadline, tell)
    search.offer(search.signs.neuron)
    search.upper = max(min(search.upper, search.signs.upper), search.value)
    search.nodes, search.open = before + search.signs.nodes, search.signs.open
    return stopped


def _by_boxes(search: PriceSearch, level: float, deadline: float, report: Report | None) -> bool:
    """Go on with boxes; True if the report stopped it."""
    assert search.boxes is not None
    stopped = False
    before = search.nodes - search.boxes.nodes

    def tell(boxes: BoxTree) -> bool:
        nonlocal stopped
        search.offer(boxes.neuron)
        search.upper = max(min(search.upper, boxes.upper), search.value)
        search.nodes, search.open = before + boxes.nodes, boxes.open
        stopped = stopped or (report is not None and report(search))
        return stopped

    search.boxes.offer(search.neuron)
    tell(grow_boxes(search.boxes, level, deadline, tell))
    return stopped
