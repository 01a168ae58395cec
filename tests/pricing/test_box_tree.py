"""Branch and bound over boxes against exact pricing over all cells; its bound at any time."""

from __future__ import annotations

import itertools
import pickle
from fractions import Fraction

import jax
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcvx.pricing import box_tree
from jaxcvx.pricing.box_tree import BoxTree, grow_boxes, start_boxes, suits_boxes
from jaxcvx.pricing.host import ascend_on_host, price_of
from tests.helpers import gaussian_data
from tests.pricing.exact import exact_value


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def grown(X, R, nodes=np.inf, level=0.0) -> BoxTree:
    return grow_boxes(start_boxes(X, R), level, report=lambda tree: tree.nodes >= nodes)


def prices(tree: BoxTree, U: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.maximum(U @ tree.rows.T, 0) @ tree.residual, axis=1)


@settings(max_examples=5)
@given(st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_closes_on_the_exact_maximum(seed, d):
    X, r = gaussian_data(seed, 14, d)
    tree, best = grown(X, r), exact_value(X, r)
    assert best <= tree.upper * (1 + 1e-12) and tree.upper <= best * (1 + 3e-7)
    np.testing.assert_allclose(price_of(X, r, tree.neuron), best, rtol=1e-7)
    np.testing.assert_allclose([np.linalg.norm(tree.neuron), tree.value / best], 1, rtol=1e-7)


def test_repeated_opposite_and_zero_rows_and_a_column_of_zeros():
    X, r = gaussian_data(1, 14, 3)
    X[3], X[4], X[5] = 2 * X[0], -X[1], 0
    X = np.concatenate([X, np.zeros((14, 1))], axis=1)
    tree = grown(X, r)
    assert tree.axes.shape == (4, 3)
    np.testing.assert_allclose(tree.upper, exact_value(X[:, :3], r), rtol=3e-7)


@pytest.mark.parametrize("scale", [1e-8, 1e8, 1e-150, 1e150])
def test_scales_do_not_matter(scale):
    X, r = gaussian_data(3, 12, 3)
    expected = grown(X, r)
    for tree in (grown(scale * X, r), grown(X, scale * r)):
        np.testing.assert_allclose(
            [tree.upper, tree.value], [expected.upper * scale, expected.value * scale], rtol=1e-9
        )
        assert tree.nodes == expected.nodes


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 3), (2, 2)])
def test_tiny_shapes(shape):
    X, r = gaussian_data(0, *shape)
    tree = grown(X, r)
    np.testing.assert_allclose(tree.upper, max(price_of(X, r, tree.neuron), tree.value), rtol=1e-7)
    best = max(prices(tree, unit(np.random.default_rng(0).standard_normal((2000, shape[1])))))
    assert best <= tree.upper * (1 + 1e-12)


def test_no_residual_and_no_rows():
    X, r = gaussian_data(0, 5, 2)
    for tree in (grown(X, 0 * r), grown(0 * X, r)):
        assert tree.upper == tree.value == 0


def unit(a):
    return a / np.linalg.norm(a, axis=1, keepdims=True)


@pytest.mark.parametrize("c", [1, 2, 3])
def test_every_direction_is_below_the_bound_of_its_box_at_any_time(c):
    """The boxes cover all directions and all sides, and no box claims too little."""
    X, R = gaussian_data(c, 30, 4, c)
    if c == 3:
        R -= R.mean(axis=1, keepdims=True)  # rank two, as residuals of the cross-entropy
    tree, uppers = start_boxes(X, R), []
    U = unit(np.random.default_rng(0).standard_normal((200, 4)))
    ends = unit(np.stack([a - b for a, b in itertools.combinations(X[:12], 2)]))
    U = np.concatenate([U, ends, -ends, ascend_on_host(X, R)[0][None]])
    highest = prices(tree, U).max()
    for nodes in (1, 5000, 20000):
        tree = grow_boxes(tree, 0.0, report=lambda tree, nodes=nodes: tree.nodes >= nodes)
        uppers.append(tree.upper)
        assert highest <= tree.upper
        check_cover(tree, U)
    assert uppers[0] >= uppers[1] >= uppers[2]
    assert uppers[2] < 1.05 * highest


def check_cover(tree: BoxTree, U: np.ndarray) -> None:
    """For every direction and side some box holds the direction, and its bound is not below the side's value."""
    boxes = tree.boxes
    d = tree.inner.shape[1]
    c, w = boxes.centre[: boxes.count].astype(float), boxes.width[: boxes.count].astype(float)
    volume = np.prod(np.where(w > 0, w, 1.0), axis=1)
    np.testing.assert_allclose(volume.sum(), 2 * d * len(tree.weights), rtol=1e-9)
    Y = U @ tree.axes
    values = np.maximum(Y @ tree.inner.T, 0) @ tree.weights.T / np.linalg.norm(Y, axis=1)[:, None]
    Y = Y / np.abs(Y).max(axis=1, keepdims=True)
    for y, value in zip(Y, values, strict=True):
        inside = np.all(np.abs(y - c) <= w + 1e-12, axis=1)
        for side, number in enumerate(value):
            bounds = boxes.bounds()[inside & (boxes.side[: boxes.count] == side)]
            assert len(bounds) and bounds.max() >= number


def as_fractions(a) -> list[Fraction]:
    return [Fraction(float(x)) for x in a]


def dot(a, b) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def certain(tree: BoxTree, side: int, c, w, tau: float) -> bool:
    """True if rational arithmetic proves h(u) - tau |u| <= 0 in a box: the convex part at all vertices, less a plane.

    The plane is a mean of gradients of the concave part at many points; the best one by a linear program. The norm's
    share of a gradient is rounded down, so it is not longer than tau.
    """
    rows, a = [as_fractions(row) for row in tree.inner], as_fractions(tree.weights[side])
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=len(c))))[:: 2 if (w == 0).any() else 1]
    vertices = np.unique(c + signs * w, axis=0)
    points = np.concatenate([c[None], vertices, (c + vertices) / 2])
    planes = []
    for y in points:
        length = Fraction(float(np.linalg.norm(y) * (1 + 1e-9)))
        g = [Fraction(float(tau)) * x / length for x in as_fractions(y)]
        for row, weight in zip(rows, a, strict=True):
            if weight < 0 and dot(row, as_fractions(y)) > 0:
                g = [z - weight * x for z, x in zip(g, row, strict=True)]
        planes.append(g)
    convex = [
        sum(
            weight * max(dot(row, as_fractions(v)), Fraction(0))
            for row, weight in zip(rows, a, strict=True)
            if weight > 0
        )
        for v in vertices
    ]
    values = vertices @ np.array(planes, float).T
    k = len(planes)
    program = scipy.optimize.linprog(
        np.append(np.zeros(k), 1.0),
        A_ub=np.column_stack([-values, -np.ones(len(vertices))]),
        b_ub=-np.array(convex, float),
        A_eq=[[1.0] * k + [0.0]],
        b_eq=[1.0],
        bounds=[(0, None)] * k + [(None, None)],
    )
    shares = as_fractions(np.maximum(program.x[:k], 0))
    plane = [sum(share * g[j] for share, g in zip(shares, planes, strict=True)) / sum(shares) for j in range(len(c))]
    return all(
        value - dot(plane, as_fractions(v)) <= Fraction(1, 10**8) for value, v in zip(convex, vertices, strict=True)
    )


def test_closed_boxes_are_verified_in_rational_arithmetic():
    X, r = gaussian_data(4, 10, 3)
    best = exact_value(X, r)
    tree = grown(X, r, level=1.05 * best)
    boxes, wrong = tree.boxes, 0
    tau = tree.scaled(1.05 * best)
    for k in range(boxes.count):
        box = boxes.side[k], boxes.centre[k].astype(float), boxes.width[k].astype(float)
        assert boxes.bound[k] <= tau
        assert certain(tree, *box, tau), k
        wrong += not certain(tree, *box, 0.9 * tree.scaled(best))
    assert wrong > 0


def test_stops_at_the_level_goes_on_and_pickles():
    X, r = gaussian_data(0, 40, 4)
    whole = grown(X, r)
    first = grown(X, r, level=1.2 * whole.value)
    assert whole.value < first.upper <= 1.2 * whole.value and first.nodes < whole.nodes
    again = grow_boxes(pickle.loads(pickle.dumps(first)), 0.0)
    np.testing.assert_allclose([again.upper, again.value], [whole.upper, whole.value], rtol=4e-7)
    assert grow_boxes(start_boxes(X, r), 0.0, deadline=0.0).nodes == 0


def test_a_full_store_forgets_closed_boxes_and_keeps_the_bound(monkeypatch):
    X, r = gaussian_data(2, 40, 5)
    monkeypatch.setattr("jaxcvx.pricing.box_tree._CHUNK", 512)
    level = 1.001 * ascend_on_host(X, r)[1]
    whole = grown(X, r, level=level)
    monkeypatch.setattr("jaxcvx.pricing.box_tree.MAX_BOXES", 150)
    small = grown(X, r, level=level)
    assert small.boxes.count < 0.8 * whole.boxes.count and small.floor > 0
    np.testing.assert_allclose(small.upper, whole.upper, rtol=1e-3)
    assert small.upper >= ascend_on_host(X, r)[1]


def test_large_ranks_are_refused():
    X, R = gaussian_data(0, 30, 13)
    assert not suits_boxes(X, R) and not suits_boxes(X[:, :3], np.eye(30)[:, :3])
    with pytest.raises(ValueError, match="ranks at most 12 and 2"):
        start_boxes(X, R)


@pytest.mark.parametrize("target", [1 / 3, 1.0, -0.7])
def test_halves_fill_their_box_exactly_down_to_the_narrowest(target):
    """The ends of boxes stay exact numbers; a box that is too narrow is closed, and its bound counts as a floor."""
    X, r = gaussian_data(0, 6, 2)
    tree = start_boxes(X, r)
    boxes, at, split = tree.boxes, np.array([0]), np.array([1])
    assert boxes.width[0, 0] == 0 and boxes.width[0, 1] == 1
    for _ in range(60):
        before, number = (boxes.centre[at[0], 1], boxes.width[at[0], 1]), boxes.count
        box_tree._replace_by_halves(tree, at, split)
        if boxes.count == number:
            break
        halves = sorted((boxes.centre[k, 1], boxes.width[k, 1], k) for k in (at[0], number))
        ends = [(Fraction(c) - Fraction(w), Fraction(c) + Fraction(w)) for c, w, _ in halves]
        whole = Fraction(before[0]) - Fraction(before[1]), Fraction(before[0]) + Fraction(before[1])
        assert ends[0][0] == whole[0] and ends[0][1] == ends[1][0] and ends[1][1] == whole[1]
        at = np.array([halves[int(target > halves[0][0] + halves[0][1])][2]])
    assert boxes.width[at[0], 1] < 1e-14 and boxes.bound[at[0]] == 0
    assert tree.floor > 0
    largest = tree.floor
    tree.upper = np.inf
    boxes.bound[: boxes.count] = 0
    tree.tighten()
    assert tree.upper >= tree.scale * largest


def test_the_polygon_of_two_outputs_contains_the_unit_circle():
    R = gaussian_data(0, 20, 3, 2)[1] @ np.array([[1.0, 0.5, -1.0], [0.2, -0.3, 1.0]])  # rank two, three outputs
    corners, rest = box_tree._corners(R)
    axes = np.linalg.svd(R, full_matrices=False)[2][:2]
    angle = np.linspace(0, 2 * np.pi, 5000)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ axes
    reach = (circle @ corners.T).max(axis=1)  # of the polygon in every direction
    assert reach.min() >= 1 and reach.max() < 1.01
    assert rest.max() < 1e-12


def test_sums_that_cancel_are_bounded_in_exact_arithmetic():
    """The weights of one repeated row cancel to their last digits, so rounding is larger than the price itself."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        z, r = rng.standard_normal(3), rng.standard_normal(60)
        r[-1] = -r[:-1].sum()
        total = abs(sum(as_fractions(r), Fraction(0)))
        length = sum((Fraction(float(x)) ** 2 for x in z), Fraction(0))
        tree = grown(np.tile(z, (60, 1)), r[:, None], nodes=5000)
        assert Fraction(float(tree.upper)) ** 2 >= total**2 * length
        terms = np.abs(tree.weights) @ np.linalg.norm(tree.inner, axis=1)
        assert (tree.slack >= 2 * 60 * 2.0**-53 * terms).all()  # P and g v are sums of 60 products each


def test_a_rebased_tree_covers_the_prices_of_the_new_residual():
    X, r = gaussian_data(6, 40, 4)
    tree = grown(X, r, nodes=3000)
    change = 0.05 * np.random.default_rng(1).standard_normal(r.shape)
    change[:5] = -2 * r[:5]  # these rows change sides
    shift = float(np.abs(change[:, 0]) @ np.linalg.norm(X, axis=1))
    before = tree.upper
    tree = box_tree.rebased(tree, r + change, shift)
    U = unit(np.random.default_rng(2).standard_normal((300, 4)))
    check_cover(tree, U)
    assert prices(tree, U).max() <= tree.upper <= (before + shift) * (1 + 1e-12)
    boxes = tree.boxes
    c, w = boxes.centre[: boxes.count], boxes.width[: boxes.count]
    ambiguous = np.abs(c @ tree.inner.T) < w @ np.abs(tree.inner).T
    live = (ambiguous & (tree.weights[boxes.side[: boxes.count]] > 0)).sum(axis=1)
    assert (live <= boxes.live[: boxes.count]).all()
    again = grow_boxes(tree, 0.0, report=lambda tree: tree.nodes >= 20_000)
    fresh = grown(X, r + change, nodes=20_000)
    np.testing.assert_allclose(again.value, fresh.value, rtol=1e-2)
    assert again.upper >= fresh.value * (1 - 1e-12)
