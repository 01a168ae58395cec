"""Facets against linear programs, Euler's formula, closed forms in the plane; widths against NNLS on all rows."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.spatial
from scipy.optimize import linprog, nnls

import jaxcvx
from jaxcvx.arrangements import facets as module
from jaxcvx.arrangements.facets import Facets, facet_index, facets_of
from jaxcvx.errors import InvalidInputError, InvalidTypeError


def rows_of(kind: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "duplicates":
        X = rng.standard_normal((8, 3))
        return np.concatenate([np.zeros((1, 3)), X, -2 * X[:3], X[:2]])
    if kind == "rank 2 of 4":
        return rng.standard_normal((9, 2)) @ rng.standard_normal((2, 4))
    if kind == "grid":
        return np.stack(np.meshgrid(range(3), range(3), [1.0]), -1).reshape(-1, 3)
    n, d = {"plane": (9, 2), "space": (9, 3), "four": (8, 4), "scaled": (8, 3)}[kind]
    X = rng.standard_normal((n, d))
    return X * [1e-4, 1.0, 1e5] if kind == "scaled" else X


def lines_of(X: np.ndarray) -> np.ndarray:
    """First rows of the distinct lines."""
    alive = np.flatnonzero(X.any(axis=1))
    unit = X[alive] / np.linalg.norm(X[alive], axis=1, keepdims=True)
    parallel = np.tril(np.abs(unit @ unit.T) > 1 - 1e-14, -1).any(axis=1)
    return alive[~parallel]


def facets_by_programs(X: np.ndarray, mask: np.ndarray) -> set[int]:
    """Row k is a facet if some u satisfies the other distinct rows and violates row k."""
    lines = lines_of(X)
    columns = np.abs(X).max(axis=0)
    A = np.where(mask, 1.0, -1.0)[lines, None] * X[lines] / np.where(columns > 0, columns, 1)
    A /= np.linalg.norm(A, axis=1, keepdims=True)
    found = set()
    for k in range(len(lines)):
        others = np.delete(A, k, axis=0)
        result = linprog(A[k], A_ub=-others, b_ub=np.zeros(len(others)), bounds=[(-1, 1)] * X.shape[1])
        if result.fun < -1e-9:
            found.add(int(lines[k]))
    return found


def as_sets(index: np.ndarray) -> list[set[int]]:
    return [set(row[row >= 0].tolist()) for row in np.asarray(index)]


@pytest.mark.routine(2)
@pytest.mark.parametrize("kind", ["plane", "space", "four", "duplicates", "rank 2 of 4", "grid", "scaled"])
def test_facets_are_those_of_linear_programs(kind):
    X = rows_of(kind)
    cells = jaxcvx.enumerate_arrangements(X)
    found = as_sets(facet_index(X, cells.masks, cells.gates))
    chosen = np.random.default_rng(0).permutation(len(cells))[:40]
    for i in chosen:
        assert found[i] == facets_by_programs(X, np.asarray(cells.masks[i])), i


def test_elimination_agrees_with_hulls(monkeypatch):
    X = rows_of("four", 3)
    cells = jaxcvx.enumerate_arrangements(X)
    hulls = facet_index(X, cells.masks, cells.gates)
    monkeypatch.setattr(module, "_MAX_HULL_RANK", 2)
    np.testing.assert_array_equal(facet_index(X, cells.masks, cells.gates), hulls)


def test_facets_of_high_rank_data_equal_those_of_linear_programs():
    X = np.random.default_rng(0).standard_normal((30, 8))
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 5)
    found = as_sets(facet_index(X, cells.masks, cells.gates))
    assert found == [facets_by_programs(X, np.asarray(m)) for m in cells.masks]


def test_number_of_facets_in_space_is_eulers():
    # n great circles in general position: n (n-1) arcs on each half of the sphere, each between two cells.
    n = 40
    X = np.random.default_rng(1).standard_normal((n, 3))
    cells = jaxcvx.enumerate_arrangements(X)
    assert int(facets_of(X, cells.masks, cells.gates).count.sum()) == 4 * n * (n - 1)


def test_facets_are_right_where_the_hull_misses_one(monkeypatch):
    X = rows_of("space")
    cells = jaxcvx.enumerate_arrangements(X)
    right = facet_index(X, cells.masks, cells.gates)

    class Careless(scipy.spatial.ConvexHull):
        def __init__(self, points):
            super().__init__(points[:-1])  # never sees the last row

    monkeypatch.setattr(scipy.spatial, "ConvexHull", Careless)
    np.testing.assert_array_equal(facet_index(X, cells.masks, cells.gates), right)


def test_a_gate_on_a_boundary_keeps_that_row():
    X = rows_of("space")
    cells = jaxcvx.enumerate_arrangements(X)
    index = facet_index(X, cells.masks, cells.gates)
    gate = np.asarray(cells.gates[0])
    k = index[0, 0]
    unit = X[k] / np.linalg.norm(X[k])
    touching = gate - (unit @ gate) * unit
    inside = np.where(cells.masks[0], 1, -1) * (X @ touching)
    assert (np.delete(inside, k) > 0).all() or k in facets_by_programs(X, np.asarray(cells.masks[0]))
    assert k in as_sets(facet_index(X, cells.masks[:1], touching[None]))[0]


@pytest.mark.routine(2)
@pytest.mark.parametrize("kind", ["plane", "space", "duplicates", "rank 2 of 4"])
def test_widths(kind):
    X = rows_of(kind)
    cells = jaxcvx.enumerate_arrangements(X)
    facets = facets_of(X, cells.masks, cells.gates)
    unit = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-300)
    for i in range(0, len(cells), 5):
        A = np.where(cells.masks[i], 1.0, -1.0)[:, None] * unit
        for slot in range(int(facets.count[i])):
            a = A[int(facets.index[i, slot])]
            width = np.linalg.norm(a + A.T @ nnls(A.T, -a)[0])
            np.testing.assert_allclose(float(facets.width[i, slot]), width, rtol=1e-9)


def test_plane_widths_are_sines():
    angle = np.array([0.3, 1.1, 2.9])
    X = np.stack([-np.sin(angle), np.cos(angle)], axis=1)  # row k vanishes at angle k
    gate = np.array([[np.cos(0.8), np.sin(0.8)]])  # between the first and the second
    facets = facets_of(X, gate @ X.T >= 0, gate)
    np.testing.assert_array_equal(facets.index, [[0, 1]])
    np.testing.assert_allclose(facets.width, np.sin(0.8), rtol=1e-12)


def test_degenerate_ranks():
    line = np.array([[0.0, 0.0], [2.0, 1.0], [-4.0, -2.0]])
    cells = jaxcvx.enumerate_arrangements(line)
    np.testing.assert_array_equal(facet_index(line, cells.masks, cells.gates), [[1], [1]])
    nothing = facets_of(np.zeros((3, 2)), np.ones((1, 3), bool), np.ones((1, 2)))
    assert isinstance(nothing, Facets) and int(nothing.count[0]) == 0 and nothing.index.shape == (1, 1)


def test_bad_input():
    X = rows_of("space")
    with pytest.raises(InvalidInputError, match="masks"):
        facet_index(X, np.ones((2, 5), bool), np.ones((2, 3)))
    with pytest.raises(InvalidTypeError, match="outside jit"):
        jax.jit(lambda g: facets_of(X, np.ones((1, 9), bool), g))(np.ones((1, 3)))


@pytest.mark.float32
def test_float32():
    X = rows_of("duplicates").astype(np.float32)
    cells = jaxcvx.enumerate_arrangements(X)
    facets = facets_of(X, cells.masks, cells.gates)
    assert facets.width.dtype == np.float32 and facets.index.dtype == np.int32
    assert as_sets(facets.index)[0] == facets_by_programs(X.astype(float), np.asarray(cells.masks[0]))
