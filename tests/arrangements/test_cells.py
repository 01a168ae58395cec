"""The pytree, deduplication, counting, cells of a network, merging and validation."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcvx.arrangements.cells import (
    Arrangements,
    arrangements_of,
    count_cells,
    dedupe_masks,
    max_num_cells,
    merge_arrangements,
    validate_arrangements,
)
from jaxcvx.arrangements.enumerate import enumerate_arrangements
from jaxcvx.errors import InvalidInputError, InvalidTypeError
from jaxcvx.features.dense import Dense
from jaxcvx.networks.network import Network


def make(codes: list[int], n: int = 4, complete: bool = False) -> Arrangements:
    """Cells whose masks are the bits of ``codes``; gates remember the position in the list."""
    masks = (np.array(codes, int).reshape(-1, 1) >> np.arange(n)) & 1 == 1
    gates = np.stack([np.array(codes, float), np.arange(len(codes))], 1).reshape(-1, 2)
    return Arrangements(jnp.asarray(masks), jnp.asarray(gates, jnp.float32), complete)


def codes_of(cells: Arrangements) -> list[int]:
    return (np.asarray(cells.masks) @ (1 << np.arange(cells.masks.shape[1]))).tolist()


lists = st.lists(st.integers(0, 15), max_size=12)


@settings(max_examples=60, deadline=None)
@given(lists, lists)
def test_merge_is_the_union_in_order_of_first_occurrence(a, b):
    merged = merge_arrangements(make(a), make(b))
    assert codes_of(merged) == list(dict.fromkeys(a + b))
    assert set(codes_of(merge_arrangements(make(b), make(a)))) == set(codes_of(merged))
    again = merge_arrangements(merged, merged)
    np.testing.assert_array_equal(again.masks, merged.masks)
    np.testing.assert_array_equal(again.gates, merged.gates)
    np.testing.assert_array_equal(merged.gates[:, 0], codes_of(merged))  # gates travel with their masks


@pytest.mark.routine(2)
@pytest.mark.parametrize(("a", "b"), [(True, False), (False, True), (True, True), (False, False)])
def test_merge_is_complete_if_either_is(a, b):
    assert merge_arrangements(make([1], complete=a), make([2], complete=b)).complete == (a or b)


def test_merge_under_jit_concatenates():
    merged = jax.jit(merge_arrangements)(make([1, 2], complete=True), make([2, 3]))
    assert codes_of(merged) == [1, 2, 2, 3] and merged.complete


def test_merge_refuses_other_data():
    with pytest.raises(InvalidInputError, match="b.masks"):
        merge_arrangements(make([1]), make([1], n=5))
    a = make([1])
    with pytest.raises(InvalidInputError, match="b.gates"):
        merge_arrangements(a, dataclasses.replace(a, gates=jnp.ones((1, 3))))
    with pytest.raises(InvalidTypeError, match="b: got ndarray"):
        merge_arrangements(a, np.ones((1, 4), bool))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(1, 100), st.integers(0, 2**32 - 1))
def test_dedupe_keeps_first_occurrences(num, width, seed):
    rng = np.random.default_rng(seed)
    pool = rng.random((5, width)) < 0.5
    masks = pool[rng.integers(0, 5, num)]
    seen, expected = set(), []
    for i, row in enumerate(masks):
        if row.tobytes() not in seen:
            seen.add(row.tobytes())
            expected.append(i)
    assert dedupe_masks(masks).tolist() == expected


def test_dedupe_sees_a_difference_in_any_single_bit():
    for width in (1, 7, 8, 9, 64, 65, 130):
        masks = np.concatenate([np.zeros((1, width), bool), np.eye(width, dtype=bool)])
        assert len(dedupe_masks(masks)) == width + 1


@pytest.mark.routine(2)
@pytest.mark.parametrize(("n", "r"), [(1, 1), (5, 2), (14, 4), (10, 10), (7, 12), (200, 3)])
def test_counting_formula(n, r):
    assert max_num_cells(n, r) == 2 * sum(math.comb(n - 1, k) for k in range(r))


def test_counting_formula_at_the_edges():
    assert max_num_cells(0, 3) == max_num_cells(5, 0) == 1
    assert max_num_cells(200, 3) == 39802 and max_num_cells(10, 10) == 1024
    assert max_num_cells(3000, 3000) == 2**3000
    with pytest.raises(InvalidInputError, match="num_rows"):
        max_num_cells(-1, 2)
    with pytest.raises(InvalidInputError, match="rank"):
        max_num_cells(1, -2)


@pytest.mark.parametrize("bias", [False, True])
def test_cells_of_a_network(bias):
    rng = np.random.default_rng(0)
    X, hidden = rng.standard_normal((9, 3)), rng.standard_normal((8, 3 + bias))
    hidden[2], hidden[5] = 0, 3 * hidden[1]
    features = Dense(bias=bias)
    network = Network(jnp.asarray(hidden, jnp.float32), jnp.ones((8, 1)), features=features)
    cells = arrangements_of(network, X)
    kept = np.asarray(network.hidden, np.float64)[[0, 1, 3, 4, 6, 7]]
    masks = kept @ np.asarray(features.matrix(X)).T >= 0
    rows = masks.tolist()
    first = [i for i in range(6) if rows[i] not in rows[:i]]
    kept = kept[first]
    np.testing.assert_array_equal(cells.masks, masks[first])
    np.testing.assert_allclose(cells.gates, kept / np.linalg.norm(kept, axis=1, keepdims=True), rtol=1e-6)
    assert not cells.complete and cells.gates.dtype == jnp.float32
    known = {m.tobytes() for m in np.asarray(enumerate_arrangements(X, features=features).masks)}
    assert {m.tobytes() for m in np.asarray(cells.masks)} <= known


def test_cells_of_a_dead_network():
    cells = arrangements_of(Network(jnp.zeros((3, 2)), jnp.zeros((3, 1))), np.eye(2))
    assert cells.masks.shape == (0, 2) and cells.gates.shape == (0, 2)
    merged = merge_arrangements(cells, cells)
    assert len(merged) == 0


def test_cells_of_a_network_under_jit_and_vmap_have_fixed_shapes():
    X = jnp.asarray(np.random.default_rng(1).standard_normal((7, 3)), jnp.float32)
    hidden = jnp.asarray([[1.0, 2, 3], [0, 0, 0], [2, 4, 6]])
    network = Network(hidden, jnp.ones((3, 1)))
    cells = jax.jit(arrangements_of)(network, X)
    assert cells.masks.shape == (3, 7)
    np.testing.assert_array_equal(cells.masks, hidden @ X.T >= 0)
    np.testing.assert_allclose(jnp.linalg.norm(cells.gates, axis=1), [1, 0, 1], rtol=1e-6)
    batched = jax.vmap(lambda h: arrangements_of(Network(h, network.output), X))(jnp.stack([hidden, -hidden]))
    assert batched.masks.shape == (2, 3, 7) and batched.gates.shape == (2, 3, 3)


def test_cells_of_a_network_that_does_not_fit():
    network = Network(jnp.ones((3, 2)), jnp.ones((3, 1)))
    with pytest.raises(InvalidInputError, match="network.hidden"):
        arrangements_of(network, np.ones((4, 5)))
    with pytest.raises(InvalidInputError, match="network.hidden"):
        jax.jit(arrangements_of)(network, np.ones((4, 5)))
    with pytest.raises(InvalidInputError, match="X: got inf"):
        arrangements_of(network, np.array([[np.inf, 0]]))


def test_pytree():
    cells = make([3, 5], complete=True)
    leaves, treedef = jax.tree.flatten(cells)
    assert len(leaves) == 2 and len(cells) == cells.num_cells == 2
    assert jax.tree.unflatten(treedef, leaves).complete
    with pytest.raises(dataclasses.FrozenInstanceError):
        cells.complete = False


def test_validate():
    cells = make([3, 5])
    validate_arrangements(cells, 4, 2)
    jax.jit(lambda c: (validate_arrangements(c, 4, 2), c.masks)[1])(cells)
    for bad, match in [
        (make([]), "no cells"),
        (dataclasses.replace(cells, masks=cells.masks.astype(float)), "arrangements.masks: got dtype"),
        (dataclasses.replace(cells, gates=cells.masks[:, :2]), "arrangements.gates: got dtype"),
        (dataclasses.replace(cells, gates=cells.gates[:1]), "arrangements.gates: got 1 rows"),
        (dataclasses.replace(cells, masks=cells.masks[0]), "arrangements.masks: got shape"),
    ]:
        with pytest.raises(InvalidInputError, match=match):
            validate_arrangements(bad, 4, 2)
    with pytest.raises(InvalidInputError, match=r"arrangements.masks.*\(P, 5\)"):
        validate_arrangements(cells, 5, 2)
    with pytest.raises(InvalidInputError, match=r"arrangements.gates.*\(P, 3\)"):
        validate_arrangements(cells, 4, 3)


def test_importing_is_cheap():
    code = (
        "import sys, jaxcvx.arrangements.cells, jaxcvx.arrangements.enumerate, jaxcvx.arrangements.sample;"
        "print([m for m in ('scipy.optimize', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_counting_ignores_zero_and_repeated_rows():
    X = np.random.default_rng(5).standard_normal((7, 3))
    count, rank = count_cells(np.concatenate([X, X, np.zeros((3, 3))]))
    assert rank == 3 and count == max_num_cells(7, 3) == enumerate_arrangements(X).num_cells
    assert count_cells(np.zeros((4, 2))) == (1, 0)
