"""Enumeration against the counting formulas, brute force, and linear programs."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from jaxcvx.arrangements import enumerate as enumeration
from jaxcvx.arrangements.cells import dedupe_masks, max_num_cells
from jaxcvx.arrangements.enumerate import enumerate_arrangements
from jaxcvx.errors import InvalidInputError, InvalidTypeError, JaxcvxError, TooManyArrangements
from jaxcvx.features.dense import Dense


def gaussian(seed: int, n: int, d: int, rank: int | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if rank is None:
        return rng.standard_normal((n, d))
    return rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d))


def as_set(masks: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in np.asarray(masks)}


def with_ones(X: np.ndarray) -> np.ndarray:
    return np.concatenate([X, np.ones((len(X), 1))], axis=1)


def grid(*sizes: int) -> np.ndarray:
    return np.stack(np.meshgrid(*[np.arange(s) for s in sizes]), -1).reshape(-1, len(sizes)).astype(float)


def check_cells(cells, Z: np.ndarray, slack: float = 1e-14) -> None:
    """Masks are distinct, are those of the stored gates, and every gate is strictly inside its cell."""
    masks, gates = np.asarray(cells.masks), np.asarray(cells.gates, np.float64)
    values = gates @ Z.T
    assert cells.complete and masks.dtype == bool and masks.shape == (len(cells), len(Z))
    assert len(dedupe_masks(masks)) == len(masks)
    np.testing.assert_array_equal(masks, values >= 0)
    alive = np.any(Z != 0, axis=1)
    assert (np.abs(values[:, alive]) > slack * np.abs(Z[alive]).max(1)).all()
    assert masks[:, ~alive].all()
    np.testing.assert_allclose(np.linalg.norm(gates, axis=1), 1, rtol=2e-4)


def distinct_lines(Z: np.ndarray) -> np.ndarray:
    """Nonzero rows of Z, of parallel rows the first."""
    lines: list[np.ndarray] = []
    for z in Z[np.any(Z != 0, axis=1)]:
        if all(np.linalg.matrix_rank(np.stack([z, line])) == 2 for line in lines):
            lines.append(z)
    return np.array(lines)


def zaslavsky_count(Z: np.ndarray) -> int:
    """Regions of a central arrangement of nonparallel rows: sum over subsets B of (-1)^(|B| - rank B)."""
    total = 1
    for size in range(1, len(Z) + 1):
        subsets = np.array(list(itertools.combinations(range(len(Z)), size)))
        ranks = np.linalg.matrix_rank(Z[subsets])
        total += int(((-1.0) ** (size - ranks)).sum())
    return total


def feasible_patterns(Z: np.ndarray) -> set[bytes]:
    """Patterns of full-dimensional cells by one linear program per sign vector (rows of Z nonzero)."""
    n, p = Z.shape
    Z = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    found = set()
    for pattern in itertools.product([True, False], repeat=n):
        signs = np.where(pattern, 1.0, -1.0)
        A = np.concatenate([-signs[:, None] * Z, np.ones((n, 1))], axis=1)  # t <= s_i z_i w
        bounds = [(-1, 1)] * p + [(None, 1)]
        result = linprog(np.append(np.zeros(p), -1.0), A_ub=A, b_ub=np.zeros(n), bounds=bounds)
        if -result.fun > 1e-6:
            found.add(np.array(pattern).tobytes())
    return found


@pytest.mark.routine(2)
@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@pytest.mark.parametrize("extra", [0, 2])
def test_count_is_the_formula_in_general_position(rank, extra):
    with jax.enable_x64(True):
        for n in range(rank, 15):
            X = gaussian(100 * n + rank, n, rank + extra, rank)
            cells = enumerate_arrangements(X)
            assert len(cells) == max_num_cells(n, rank)
            check_cells(cells, X)


@pytest.mark.routine(2)
@pytest.mark.parametrize(("n", "d"), [(1, 3), (4, 9), (7, 7), (5, 4), (9, 6)])
def test_high_rank_and_fewer_rows_than_columns(n, d):
    with jax.enable_x64(True):
        X = gaussian(n, n, d)
        cells = enumerate_arrangements(X)
        assert len(cells) == max_num_cells(n, min(n, d))
        check_cells(cells, X)


@pytest.mark.routine(2)
@pytest.mark.parametrize(("n", "d"), [(200, 3), (2000, 2), (40, 4)])
def test_large_instances(n, d):
    X = gaussian(0, n, d)
    cells = enumerate_arrangements(X)
    assert len(cells) == max_num_cells(n, d)
    check_cells(cells, X, slack=0)


@pytest.mark.routine(2)
@pytest.mark.parametrize(("n", "d", "bias"), [(10, 2, False), (12, 3, False), (9, 4, False), (9, 2, True)])
def test_random_directions_hit_only_enumerated_cells(n, d, bias):
    X = gaussian(n, n, d)
    cells = enumerate_arrangements(X, features=Dense(bias=bias))
    Z = with_ones(X) if bias else X
    directions = np.random.default_rng(1).standard_normal((200_000, Z.shape[1]))
    hit = directions @ Z.T >= 0
    hit = as_set(hit[dedupe_masks(hit)])
    known = as_set(cells.masks)
    assert hit <= known
    assert len(hit) > 0.8 * len(known)  # the sample is large enough for the check above to mean something


DEGENERATE = {
    "grid with bias": with_ones(grid(3, 2)),
    "collinear with bias": with_ones(np.array([[0, 0], [1, 1], [2, 2], [3, 3], [1, 0], [0.0, 1]])),
    "cube": grid(2, 2, 2)[1:],
    "duplicates": np.array([[1.0, 2, 0], [1, 2, 0], [0, 1, 1], [1, 0, 1], [2, 0, 2], [1, 1, 1]]),
    "negated": np.array([[1.0, 2, 0], [-1, -2, 0], [0, 1, 1], [-3, 0, -3], [1, 0, 1], [1, 1, 1]]),
    "lattice rank 3": np.array(
        [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, -1], [1, 1, 1], [1, -1, 2]]
    ),
    "one circuit in rank 4": np.array(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1], [1, 2, 4, 8.0], [1, 1, 0, 0]]
    ),
    "rank deficient": np.array([[1.0, 1, 2], [1, -1, 0], [2, 0, 2], [0, 1, 1], [1, 3, 4]]),
    "ones only": with_ones(np.zeros((3, 2))),
}


@pytest.mark.routine(2)
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_data_against_linear_programs(name):
    Z = np.asarray(DEGENERATE[name], float)
    with jax.enable_x64(True):
        cells = enumerate_arrangements(Z)
        check_cells(cells, Z)
    assert as_set(cells.masks) == feasible_patterns(Z)


@pytest.mark.routine(2)
@pytest.mark.parametrize(
    "Z",
    [
        with_ones(grid(4, 3)),
        grid(2, 2, 3)[1:],
        grid(3, 2, 2) - [1, 0, 0],
        with_ones(grid(2, 2, 3)),
        np.array(sorted(set(itertools.permutations([1, -1, 0, 0])) | {(1, 1, 1, 1), (1, 1, 0, 0)})),
    ],
    ids=["grid", "lattice", "shifted lattice", "lattice with bias", "roots"],
)
def test_degenerate_counts_against_zaslavsky(Z):
    Z = np.asarray(Z, float)
    lines = distinct_lines(Z)
    cells = enumerate_arrangements(Z, max_cells=10**6)
    assert len(cells) == zaslavsky_count(lines)
    assert len(cells) < max_num_cells(len(lines), np.linalg.matrix_rank(Z))  # degenerate indeed


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 2), st.integers(0, 2**32 - 1))
def test_small_integer_data_against_zaslavsky(n, d, size, seed):
    Z = np.random.default_rng(seed).integers(-size, size + 1, (n, d)).astype(float)
    lines = distinct_lines(Z)
    cells = enumerate_arrangements(Z)
    check_cells(cells, Z)
    assert len(cells) == zaslavsky_count(lines)


def test_braid_arrangement_has_factorial_many_cells():
    rows = []
    for i, j in itertools.combinations(range(6), 2):
        row = np.zeros(6)
        row[i], row[j] = 1, -1
        rows.append(row)
    cells = enumerate_arrangements(np.array(rows), max_cells=10**6)
    assert len(cells) == 720
    check_cells(cells, np.array(rows))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounded_grid_counts_as_the_exact_one(dtype):
    exact = enumerate_arrangements(grid(7, 6), features=Dense(bias=True))
    X = np.stack(np.meshgrid(np.linspace(0, 1, 7), np.linspace(0, 1, 6)), -1).reshape(-1, 2).astype(dtype)
    cells = enumerate_arrangements(X, features=Dense(bias=True))
    assert as_set(cells.masks) == as_set(exact.masks)
    check_cells(cells, with_ones(X.astype(float)))


def test_zero_rows_are_open_and_change_nothing_else():
    X = gaussian(3, 6, 3)
    padded = np.insert(X, [0, 2, 6], 0.0, axis=0)
    cells, plain = enumerate_arrangements(padded), enumerate_arrangements(X)
    assert np.asarray(cells.masks)[:, [0, 3, 8]].all()
    assert as_set(np.delete(np.asarray(cells.masks), [0, 3, 8], axis=1)) == as_set(plain.masks)


def test_data_of_zeros_has_one_cell():
    cells = enumerate_arrangements(np.zeros((4, 3)))
    assert cells.complete and len(cells) == 1 and bool(cells.masks.all())
    np.testing.assert_array_equal(cells.gates, [[1, 0, 0]])


def test_spiral_with_points_at_the_origin():
    t = np.linspace(0, 3 * np.pi, 12)
    arm = np.stack([t * np.cos(t), t * np.sin(t)], 1)
    X = np.concatenate([arm, -arm])  # both arms start at the origin
    cells = enumerate_arrangements(X)
    masks = np.asarray(cells.masks)
    assert masks[:, [0, 12]].all()
    np.testing.assert_array_equal(masks[:, 1:12], ~masks[:, 13:])
    check_cells(cells, X)


def test_rows_and_columns_of_very_different_scale():
    X = gaussian(4, 9, 3)
    with jax.enable_x64(True):
        scaled = X * np.array([1e-9, 1.0, 1e9]) * np.logspace(-150, 150, 9)[:, None]
        masks = as_set(enumerate_arrangements(scaled).masks)
    assert masks == as_set(enumerate_arrangements(X).masks)


def test_nearly_parallel_rows_are_kept_apart_in_float64():
    X = gaussian(5, 8, 3)
    X[1] = X[0] + 1e-9 * np.array([1.0, -2, 3])
    with jax.enable_x64(True):
        cells = enumerate_arrangements(X)
        assert len(cells) == max_num_cells(8, 3)
        check_cells(cells, X)


@pytest.mark.routine(2)
@pytest.mark.parametrize("seed", range(5))
def test_float64_cells_thinner_than_float32_keep_their_gates_inside(seed):
    X = gaussian(seed, 6, 3)
    X[1] = X[0] + 3e-8 * np.array([1.0, -2, 3])
    with jax.enable_x64(False):  # gates are rounded to float32, coarser than some cells are wide
        cells = enumerate_arrangements(X)
        assert cells.gates.dtype == jnp.float32 and len(cells) == max_num_cells(6, 3)
        check_cells(cells, X, slack=0)


def test_float32_data_far_from_the_origin():
    X = (100 + gaussian(0, 30, 3)).astype(np.float32)
    cells = enumerate_arrangements(X)
    assert len(cells) == max_num_cells(30, 3)
    check_cells(cells, X.astype(float))


@pytest.mark.routine(2)
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("rank", [2, 3, 4])
def test_float32_input(x64, rank):
    with jax.enable_x64(x64):
        X = jnp.asarray(gaussian(rank, 12, 6, rank).astype(np.float32))
        cells = enumerate_arrangements(X)
        assert cells.gates.dtype == jnp.float32
        assert len(cells) == max_num_cells(12, rank)
        np.testing.assert_array_equal(cells.masks, np.asarray(cells.gates) @ np.asarray(X).T >= 0)


def test_dtypes_of_gates():
    X = np.eye(3, dtype=int)
    with jax.enable_x64(True):
        assert enumerate_arrangements(X).gates.dtype == jnp.float64
        assert enumerate_arrangements(X.astype(float)).gates.dtype == jnp.float64
        assert enumerate_arrangements(jnp.asarray(X, jnp.bfloat16)).gates.dtype == jnp.float32
    with jax.enable_x64(False):
        assert enumerate_arrangements(X.astype(float)).gates.dtype == jnp.float32


def test_order_is_deterministic():
    X = gaussian(6, 10, 3)
    a, b = enumerate_arrangements(X), enumerate_arrangements(X)
    np.testing.assert_array_equal(a.masks, b.masks)
    np.testing.assert_array_equal(a.gates, b.gates)


def test_small_blocks_give_the_same_cells(monkeypatch):
    X = gaussian(7, 14, 4)
    expected = enumerate_arrangements(X)
    monkeypatch.setattr(enumeration, "_CHUNK", 1 << 10)
    cells = enumerate_arrangements(X)
    np.testing.assert_array_equal(cells.masks, expected.masks)


def test_too_many_cells_is_raised_before_enumerating(monkeypatch):
    def fail(*args):
        raise AssertionError("enumeration started")

    monkeypatch.setattr(enumeration, "_cells", fail)
    with pytest.raises(TooManyArrangements, match="sample_arrangements.*max_cells") as info:
        enumerate_arrangements(gaussian(0, 5000, 10))
    assert info.value.count == max_num_cells(5000, 10) and info.value.max_cells == 100_000
    assert isinstance(info.value, MemoryError) and isinstance(info.value, JaxcvxError)
    with pytest.raises(TooManyArrangements, match="GiB"):
        enumerate_arrangements(gaussian(0, 5000, 10), max_cells=10**40)
    with pytest.raises(TooManyArrangements):  # the count has more digits than Python prints
        enumerate_arrangements(np.eye(5) @ gaussian(0, 5, 5), max_cells=31)


def test_max_cells_is_inclusive():
    assert len(enumerate_arrangements(gaussian(0, 5, 5), max_cells=32)) == 32


@pytest.mark.parametrize(
    ("X", "error", "match"),
    [
        (np.zeros(3), InvalidInputError, "X: got shape"),
        (np.zeros((0, 3)), InvalidInputError, "X: got shape"),
        (np.zeros((3, 0)), InvalidInputError, "X: got shape"),
        (np.array([[1.0, np.nan]]), InvalidInputError, r"X: got nan at index \(0, 1\)"),
        (np.array([[1.0], [np.inf]]), InvalidInputError, r"X: got inf at index \(1, 0\)"),
        (np.array([["a"]]), InvalidTypeError, "X: got dtype"),
        (np.ones((2, 2), complex), InvalidTypeError, "X: got dtype complex"),
        ([[1.0], [1.0, 2.0]], InvalidTypeError, "X: got list"),
    ],
)
def test_bad_data(X, error, match):
    with pytest.raises(error, match=match):
        enumerate_arrangements(X)


@pytest.mark.parametrize("max_cells", [0, -1, 2.5, True, None, "many"])
def test_bad_max_cells(max_cells):
    with pytest.raises(InvalidInputError, match="max_cells"):
        enumerate_arrangements(np.eye(2), max_cells=max_cells)


def test_traced_data_is_refused_with_a_reason():
    with pytest.raises(InvalidTypeError, match="outside jit"):
        jax.jit(lambda X: enumerate_arrangements(X).masks)(jnp.eye(3))
