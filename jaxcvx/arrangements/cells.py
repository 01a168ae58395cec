"""Cells of a hyperplane arrangement as a pytree, and functions of them."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcvx.errors import InvalidTypeError, invalid, wrong_type
from jaxcvx.features.dense import Features, resolve_features
from jaxcvx.numerics.arrays import plain_array
from jaxcvx.numerics.safe import unit_rows
from jaxcvx.numerics.trees import is_traced
from jaxcvx.numerics.validation import as_host_array, check_axes

_CHUNK = 1 << 22  # entries of a temporary (cells x rows) block


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Arrangements:
    """Cells of the hyperplane arrangement of the rows Z = features.matrix(X).

    Each row z of Z defines a hyperplane ``z u = 0`` in the space of hidden weights u. The hyperplanes divide this space
    into cells. On a cell the activation pattern D = diag(1[Z u >= 0]) is constant. A cell is stored as this pattern,
    its mask, and one direction inside the cell, its gate. A dense network has one row per sample. A convolutional
    network has K rows per sample, its patches, so N = n K.

    Attributes:
      masks: (P, N) bool, ``masks[i] = 1[Z gates[i] >= 0]``. Zero rows are True.
      gates: (P, p) directions, one inside each cell. Those made by this library have norm 1.
      complete: static; True only if every cell of the data is present. Then statements about these cells hold for all
        networks.

    >>> import jaxcvx
    >>> cells = jaxcvx.enumerate_arrangements([[1.0, 0.0], [0.0, 1.0]])  # two lines cut the plane into four cells
    >>> print(cells.masks.astype(int))
    [[1 1]
     [1 0]
     [0 1]
     [0 0]]
    """

    masks: Bool[Array, "P N"]
    gates: Float[Array, "P p"]
    complete: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def num_cells(self) -> int:
        """Number of cells P."""
        return self.masks.shape[0]

    def __len__(self) -> int:
        return self.num_cells


class HasNeurons(Protocol):
    """The two attributes of a network that determine the cells of its neurons."""

    @property
    def hidden(self) -> Any:
        """(m, p) hidden weights, one row per neuron."""

    @property
    def features(self) -> Any:
        """The features object, which turns inputs into rows."""


class HostRows(NamedTuple):
    """The rows that hidden weights multiply, as a numpy array.

    Attributes:
      rows: (N, p) float64, ``features.matrix(X)``.
      dtype: the dtype for gates: float32 if X is floating with at most 32 bits, otherwise float64.
      eps: the machine epsilon of X's dtype; float64's for integers.
    """

    rows: np.ndarray
    dtype: np.dtype
    eps: float


def host_rows(X: Any, features: Any = "dense") -> HostRows:
    """Validate X and return ``features.matrix(X)`` in float64 on the host.

    Args:
      X: (n, d) or the shape that ``features`` expects; real, finite, not empty, not traced.
      features: ``"dense"`` or a features object.

    Raises:
      InvalidTypeError: X is traced (inside jit, vmap or grad) or not numeric.
      InvalidInputError: X has a bad shape, is empty, or holds NaN or inf; features is unknown.
    """
    features = resolve_features(features)
    if is_traced(X):
        raise InvalidTypeError(
            "X: got a traced array, expected concrete numbers: the number of cells depends on the values, so "
            "compute the cells outside jit, vmap and grad, and pass them in."
        )
    host = as_host_array("X", X, features.ndims)
    floating = bool(jnp.issubdtype(host.dtype, jnp.floating))
    dtype = np.dtype(np.float32) if floating and host.dtype.itemsize <= 4 else np.dtype(np.float64)
    eps = float(np.finfo(dtype).eps)  # half precision is read exactly, so its own rounding does not count
    rows = np.asarray(features.matrix(host.astype(np.float64)), np.float64)
    return HostRows(rows, dtype, max(eps, float(np.finfo(np.float64).eps)))


def host_masks(rows: np.ndarray, gates: np.ndarray) -> np.ndarray:
    """``1[rows @ gate >= 0]`` for each gate: (P, n) bool. Blocks of gates keep the temporaries small."""
    masks = np.empty((len(gates), len(rows)), bool)
    step = max(1, _CHUNK // max(1, len(rows)))
    for start in range(0, len(gates), step):
        masks[start : start + step] = gates[start : start + step] @ rows.T >= 0
    return masks


def mask_keys(packed: np.ndarray) -> np.ndarray:
    """One sortable scalar for each row of ``packed`` (P, bytes) uint8. Keys are equal exactly if the rows are."""
    num, width = packed.shape
    if width <= 8:
        words = np.zeros((num, 8), np.uint8)
        words[:, :width] = packed
        return words.view(np.uint64)[:, 0]
    return np.ascontiguousarray(packed).view(np.dtype((np.void, width)))[:, 0]


def dedupe_masks(masks: np.ndarray) -> np.ndarray:
    """Indices, increasing, of the first occurrence of each distinct row of ``masks`` (P, n) bool."""
    masks = np.asarray(masks, bool)
    if masks.shape[0] == 0 or masks.shape[1] == 0:
        return np.arange(min(masks.shape[0], 1))
    return np.sort(np.unique(mask_keys(np.packbits(masks, axis=1)), return_index=True)[1])


def max_num_cells(num_rows: int, rank: int) -> int:
    """Largest number of cells into which ``num_rows`` hyperplanes through the origin divide R^rank.

    It is ``2 * sum_{k < rank} C(num_rows - 1, k)``, and it is attained in general position. Without rows, or in rank 0,
    there is one cell. The result is an exact Python integer of any size.

    Args:
      num_rows: number of hyperplanes (nonzero rows, no two of them parallel), >= 0.
      rank: rank of the rows, >= 0.

    Raises:
      InvalidInputError: an argument is negative.

    Sources: T. Cover, "Geometrical and statistical properties of systems of linear inequalities" (1965); R. Winder,
    "Partitions of N-space by hyperplanes" (1966).

    >>> max_num_cells(3, 2)  # three lines through the origin divide the plane into six sectors
    6
    """
    for name, value in (("num_rows", num_rows), ("rank", rank)):
        if value < 0:
            raise invalid(name, value, "an integer >= 0")
    num_rows, rank = int(num_rows), int(rank)
    if num_rows == 0 or rank == 0:
        return 1
    total, term = 0, 1
    for k in range(min(rank, num_rows)):
        total += term
        term = term * (num_rows - 1 - k) // (k + 1)
    return 2 * total


def count_cells(rows: Float[Array, "N p"]) -> tuple[int, int]:
    """Upper bound on the number of cells of ``rows``, and the rank of the rows.

    Zero rows and repeated rows are not counted. In general position the bound is attained. Runs on the host.
    """
    host = np.unique(np.asarray(rows, np.float64), axis=0)
    host = host[np.any(host != 0, axis=1)]
    rank = int(np.linalg.matrix_rank(host)) if len(host) else 0
    return max_num_cells(len(host), rank), rank


def arrangements_of(network: HasNeurons, X: Any) -> Arrangements:
    """The cells that contain the neurons of a network: masks ``1[Z u_j >= 0]`` with Z = features.matrix(X).

    Neurons with zero weights are dropped. Of several neurons in one cell the first is kept. So the number of cells
    depends on the values. If X or the network is traced (by jit or vmap), the shapes must be fixed: then every neuron
    gives one cell, in order.

    Args:
      network: an object with the attributes ``hidden`` (m, p) and ``features``.
      X: inputs, (n, d) or the shape that the features expect.

    Returns:
      At most m cells with gates ``u_j / ||u_j||`` and ``complete=False``. There are none if all neurons are zero.

    Raises:
      InvalidInputError: X is not finite or has a bad shape, or the hidden weights do not fit it.
      InvalidTypeError: X or the hidden weights are not numeric, or ``network`` is not a network.

    >>> import jax.numpy as jnp, jaxcvx
    >>> network = jaxcvx.Network(hidden=jnp.array([[3.0, -1.0]]), output=jnp.ones((1, 1)))
    >>> jaxcvx.arrangements_of(network, jnp.eye(2)).masks
    Array([[ True, False]], dtype=bool)
    """
    if not isinstance(getattr(network, "features", None), Features) or not hasattr(network, "hidden"):
        raise wrong_type("network", network, "jaxcvx.Network")
    hidden = network.hidden
    if is_traced(X, hidden):
        check_axes("X", jnp.shape(X), network.features.ndims)
        Z = network.features.matrix(X)
        _check_width(hidden, Z.shape[1])
        values = jnp.matmul(hidden, Z.T, precision=jax.lax.Precision.HIGHEST)
        return Arrangements(values >= 0, unit_rows(hidden))
    data = host_rows(X, network.features)
    weights = plain_array("network.hidden", hidden)
    dtype = weights.dtype
    weights = weights.astype(np.float64)
    _check_width(weights, data.rows.shape[1])
    if not np.isfinite(weights).all():
        raise invalid("network.hidden", "NaN or inf", "finite weights")
    weights = weights[np.any(weights != 0, axis=1)]
    masks = host_masks(data.rows, weights)
    kept = dedupe_masks(masks)
    gates = unit_rows(weights[kept]).astype(np.float64 if dtype == np.float64 else np.float32)
    return Arrangements(jnp.asarray(masks[kept]), jnp.asarray(gates))


def _check_width(hidden: Any, width: int) -> None:
    if jnp.ndim(hidden) != 2 or hidden.shape[1] != width:
        raise invalid("network.hidden", f"shape {jnp.shape(hidden)}", f"(m, {width}) for this X and features")


def merge_arrangements(a: Arrangements, b: Arrangements) -> Arrangements:
    """The union of two sets of cells of the same data. Of equal cells the first is kept.

    If an argument is traced, the sets are only concatenated, because shapes must not depend on values.

    Args:
      a: cells; they come first.
      b: more cells, with masks over the same rows and gates of the same length.

    Returns:
      The union. It is ``complete`` if one of the arguments is.

    Raises:
      InvalidTypeError: an argument is not an Arrangements.
      InvalidInputError: the shapes do not fit each other.

    >>> import jax, jaxcvx
    >>> X = [[1.0, 0.0], [0.0, 1.0]]
    >>> sampled = jaxcvx.sample_arrangements(jax.random.key(0), X, 2)
    >>> len(jaxcvx.merge_arrangements(sampled, jaxcvx.enumerate_arrangements(X)))
    4
    """
    for name, value in (("a", a), ("b", b)):
        if not isinstance(value, Arrangements):
            raise wrong_type(name, value, "Arrangements")
    for name, left, right in (("masks", a.masks, b.masks), ("gates", a.gates, b.gates)):
        if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
            raise invalid(f"b.{name}", f"shape {tuple(right.shape)}", f"columns as in a, {tuple(left.shape)}")
    complete = a.complete or b.complete
    if is_traced(a.masks, a.gates, b.masks, b.gates):
        masks, gates = jnp.concatenate([a.masks, b.masks]), jnp.concatenate([a.gates, b.gates])
        return Arrangements(masks, gates, complete)
    # numpy, because jax would compile these operations again for every number of cells.
    host = np.concatenate([np.asarray(a.masks, bool), np.asarray(b.masks, bool)])
    kept = dedupe_masks(host)
    gates_host = np.concatenate([np.asarray(a.gates), np.asarray(b.gates)])
    return Arrangements(jnp.asarray(host[kept]), jnp.asarray(gates_host[kept]), complete)


def validate_arrangements(arrangements: Arrangements, num_rows: int, num_weights: int) -> None:
    """Raise unless the shapes and dtypes of cells fit the data. Traced cells are checked in the same way.

    Args:
      arrangements: the cells.
      num_rows: N, the required length of masks.
      num_weights: p, the required length of gates.

    Raises:
      InvalidInputError: a shape or dtype is wrong, or there are no cells.
    """
    masks, gates = arrangements.masks, arrangements.gates
    for name, value, width in (("masks", masks, num_rows), ("gates", gates, num_weights)):
        got = getattr(value, "shape", None)
        if got is None or len(got) != 2 or got[1] != width:
            raise invalid(f"arrangements.{name}", f"shape {got}", f"(P, {width}) for this X and features")
    if masks.dtype != np.bool_:
        raise invalid("arrangements.masks", f"dtype {masks.dtype}", "bool")
    if not jnp.issubdtype(gates.dtype, jnp.floating):
        raise invalid("arrangements.gates", f"dtype {gates.dtype}", "a floating dtype")
    if masks.shape[0] != gates.shape[0]:
        raise invalid("arrangements.gates", f"{gates.shape[0]} rows", f"{masks.shape[0]}, one per mask")
    if masks.shape[0] == 0:
        raise invalid("arrangements", "no cells", "at least one cell")
