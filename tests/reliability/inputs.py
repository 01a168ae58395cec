"""Hypothesis strategies for inputs of every kind, and what must be true of what comes back."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

import jaxcvx
from jaxcvx import Status

# What an error message of the library begins with: an argument, or what was said of it.
_NAMED = re.compile(r"^([A-Za-z_][\w.\[\]']*(?:, [a-z_]+)*:? |problem)")

DTYPES = (
    *("float64", "float32", "float16", "int64", "int8", "uint8", "bool"),
    *("bfloat16", "complex64", "object", "str", "datetime64[s]"),
)
FLAWS = (
    *("none", "none", "none", "nan", "inf", "-inf", "zeros", "constant column", "duplicate column"),
    *("duplicate row", "zero row", "opposite row", "rank one", "integers", "tiny entry", "huge entry"),
)

seeds = st.integers(0, 2**31 - 1)
betas = st.sampled_from(
    [0.0, -0.0, 1e-300, 1e-30, 1e-8, 1e-3, 0.05, 0.3, 1.0, 3.0, 1e3, 1e30, 1e300, -1.0, np.nan, np.inf, -np.inf]
)
good_betas = st.sampled_from([0.0, 1e-300, 1e-12, 1e-3, 0.05, 0.3, 1.0, 10.0, 1e300])
odd_betas = st.one_of(betas, st.sampled_from([None, "1", "x", [1.0], np.ones(2), 1j, True, {}, b"1"]))
sizes = st.sampled_from([0, 1, 1, 2, 3, 5, 40])


def flawed(rng: np.random.Generator, shape: tuple[int, ...], flaw: str) -> np.ndarray:
    """Random numbers of a shape with one flaw."""
    A = rng.standard_normal(shape)
    if A.size == 0 or not shape:
        return np.asarray(A)
    at = tuple(int(rng.integers(k)) for k in shape)
    if flaw in ("nan", "inf", "-inf"):
        A[at] = float(flaw)
    elif flaw in ("tiny entry", "huge entry"):
        A[at] *= 1e-200 if flaw == "tiny entry" else 1e100
    elif flaw == "zeros":
        A[:] = 0.0
    elif flaw == "integers":
        A = np.round(2 * A)
    elif flaw == "constant column":
        A[..., -1] = 1.5
    elif flaw == "duplicate column":
        A[..., -1] = A[..., 0]
    elif flaw == "duplicate row":
        A[-1] = A[0]
    elif flaw == "opposite row":
        A[-1] = -2 * A[0]
    elif flaw == "zero row":
        A[at[0]] = 0.0
    elif flaw == "rank one" and A.ndim == 2:
        A = np.outer(A[:, 0], A[0])
    return A


def cast(A: np.ndarray, dtype: str) -> Any:
    """A in another dtype, or as a nested list."""
    if dtype in ("str", "object"):
        return A.astype(dtype)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        if dtype == "bfloat16":
            return A.astype(ml_dtypes.bfloat16)
        if dtype in ("int64", "int8", "uint8", "datetime64[s]"):
            return np.nan_to_num(A, nan=0, posinf=1, neginf=-1).astype("int64").astype(dtype)
        return A.astype(dtype)


@st.composite
def anything(draw: Any, ndims: tuple[int, ...] = (0, 1, 2, 2, 2, 3)) -> Any:
    """Something that a caller may pass where an array is expected: any shape and dtype, or no array at all."""
    if draw(st.integers(0, 11)) == 0:
        return draw(st.sampled_from([None, "X", 3, 2.5, [], [[]], [[1.0], [2.0, 3.0]], {"a": 1}, object()]))
    shape = tuple(draw(sizes) for _ in range(draw(st.sampled_from(ndims))))
    flaw, dtype = draw(st.sampled_from(FLAWS)), draw(st.sampled_from(DTYPES))
    A = cast(flawed(np.random.default_rng(draw(seeds)), shape, flaw), dtype)
    return A.tolist() if draw(st.integers(0, 7)) == 0 and A.dtype != ml_dtypes.bfloat16 else A


class Counts(Counter):
    """How the calls of a test ended."""

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result, or None where the arguments were refused by an error of the library that names one."""
        self["tried"] += 1
        try:
            result = function(*args, **kwargs)
        except jaxcvx.JaxcvxError as err:
            message = str(err)
            assert type(err) is not jaxcvx.JaxcvxError, message
            assert _NAMED.match(message), message
            assert len(message) < 600 and message.count("\n") < 2, message
            self["refused"] += 1
            return None
        self["answered"] += 1
        return result

    def report(self, what: str) -> None:
        """Print them, for ``pytest -s`` and for records."""
        more = "".join(f", {self[k]} {k}" for k in sorted(self) if k not in ("tried", "refused", "answered"))
        print(f"{what}: {self['tried']} inputs, {self['refused']} refused, {self['answered']} answered{more}")


def objective(network: Any, X: Any, Y: Any, beta: float) -> float:
    """Training objective of the squared loss in extended precision, from its definition."""
    wide = np.longdouble
    X, Y, U, V = (np.asarray(a, np.float64).astype(wide) for a in (X, Y, network.hidden, network.output))
    F = np.maximum(X @ U.T, 0) @ V
    return float(((F - Y.reshape(F.shape)) ** 2).sum() / 2 + wide(beta) / 2 * ((U**2).sum() + (V**2).sum()))


def rounding(network: Any, X: Any, Y: Any) -> float:
    """How far the residuals may be off in double precision, in the Frobenius norm: a sum of d products, then of m."""
    X, Y, U, V = (np.abs(np.asarray(a, np.longdouble)) for a in (X, Y, network.hidden, network.output))
    F = (X @ U.T) @ V
    terms = X.shape[1] + len(U) + 2
    return float(terms * np.finfo(np.float64).eps * np.sqrt(((F + Y.reshape(F.shape)) ** 2).sum()))


def check_solution(solution: Any, X: Any, Y: Any, beta: float, optimum: float | None = None) -> None:
    """A solution claims nothing that is not so."""
    status = int(solution.status)
    assert status in [int(s) for s in Status] and status != Status.RUNNING
    upper, lower, gap = (float(a) for a in (solution.upper_bound, solution.lower_bound, solution.gap))
    numbers = [upper, lower, gap, *(float(a) for a in (solution.objective, solution.heuristic_bound))]
    assert not np.isnan(numbers).any(), numbers
    assert lower <= upper
    true = objective(solution.network, X, Y, beta)
    if np.isfinite(upper):
        off = rounding(solution.network, X, Y)
        assert abs(upper - true) <= 1e-9 * abs(true) + off * np.sqrt(2 * true) + off**2 + 1e-300, (upper, true)
    zero = float((np.asarray(Y, np.longdouble) ** 2).sum() / 2)
    if np.isfinite(zero) and solution.scope in ("global", "relaxation", "sampled-cells"):
        assert lower <= zero * (1 + 1e-12), (lower, zero)  # the network without neurons lies in all cells
    if optimum is not None and solution.scope in ("global", "relaxation"):
        assert lower <= optimum * (1 + 1e-7) + 1e-9, (lower, optimum)
