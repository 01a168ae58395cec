"""The inner products against the device's limits: FLOP/s over those of a matrix product, bytes/s over a copy's.

The products are ``sum_i D_i X W_i`` and its adjoint, as every solver calls them. The count of operations follows the
order of contraction that the operator chooses. The count of bytes has the operands, the result and the intermediate
array, each moved once.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import device_name, interleave, print_table, versions


def counts(n: int, d: int, P: int, c: int, size: int) -> dict[str, tuple[float, float]]:
    """Count FLOPs and bytes of one forward and one adjoint product, with ``size`` bytes per number."""
    masks, X, W, F = P * n, n * d * size, P * d * c * size, n * c * size
    if d <= P or c == 1:
        forward = 2.0 * n * P * d * c + 2.0 * n * d * c
        inside = n * d * c * size
    else:
        forward = 2.0 * n * P * d * c + 2.0 * n * P * c
        inside = n * P * c * size
    adjoint = 2.0 * n * P * d * c + n * d * c
    return {
        "forward": (forward, masks + X + W + F + 2 * inside),
        "adjoint": (adjoint, masks + X + W + F + 2 * n * d * c * size),
    }


def run(
    quick: bool = False,
    *,
    sizes: tuple[tuple[int, int, int, int], ...] = ((1000, 50, 100, 1), (5000, 100, 500, 1), (5000, 100, 500, 10)),
    dtypes: tuple[str, ...] = ("float32", "float64"),
    side: int = 3000,
    length: int = 20_000_000,
    inner: int = 10,
) -> dict[str, Any]:
    """Time the products, and a square matrix product and a copy of the same dtype, in turns.

    Args:
      quick: the first size only, three repeats instead of nine.
      sizes: (n, d, P, c) of the products.
      dtypes: types of the numbers.
      side: order of the square matrices.
      length: entries of the copied vector.
      inner: products per call. With many of them the cost of a call does not matter.
    """
    from jaxcvx.operators.cells import CellOperator

    repeats, sizes = (3, sizes[:1]) if quick else (9, sizes)
    cases, limits = [], {}
    for dtype in dtypes:
        with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
            rng = np.random.default_rng(0)
            A = jnp.asarray(rng.standard_normal((side, side)), dtype)
            v = jnp.asarray(rng.standard_normal(length), dtype)
            calls = {"matmul": lambda A=A: _matmul(A), "copy": lambda v=v: _copy(v)}
            for size in sizes:
                n, d, P, c = size
                X = jnp.asarray(rng.standard_normal((n, d)), dtype)
                operator = CellOperator(X, jnp.asarray(rng.standard_normal((P, d)) @ np.asarray(X).T >= 0))
                W = jnp.asarray(rng.standard_normal((P, d, c)), dtype)
                R = jnp.asarray(rng.standard_normal((n, c)), dtype)
                calls[f"forward {size}"] = lambda o=operator, W=W: _forward(o, W, inner)
                calls[f"adjoint {size}"] = lambda o=operator, R=R: _adjoint(o, R, inner)
            seconds, _ = interleave(calls, repeats)
        item = jnp.dtype(dtype).itemsize
        flops = 2.0 * side**3 / seconds["matmul"]["median"]
        bandwidth = 2.0 * length * item / seconds["copy"]["median"]
        limits[dtype] = {"matmul_flops": flops, "copy_bytes": bandwidth}
        for size in sizes:
            for name, (work, moved) in counts(*size, item).items():
                t = seconds[f"{name} {size}"]["median"] / inner
                least = max(work / flops, moved / bandwidth)
                cases.append(
                    {
                        "size": size,
                        "dtype": dtype,
                        "product": name,
                        "seconds": t,
                        "flops": work / t,
                        "bytes": moved / t,
                        "of_matmul": work / t / flops,
                        "of_copy": moved / t / bandwidth,
                        "of_limit": least / t,
                    }
                )
    return {
        "benchmark": "roofline",
        "versions": versions("jaxcvx", "jax", "jaxlib"),
        "device": device_name(),
        "limits": limits,
        "cases": cases,
    }


@jax.jit
def _matmul(A: Any) -> Any:
    return A @ A


@jax.jit
def _copy(v: Any) -> Any:
    return v + 1


def _chain(product: Any, start: Any, inner: int) -> Any:
    """Make ``inner`` products. Each depends on the result before it, so the compiler cannot drop any of them."""
    tiny = float(jnp.finfo(start.dtype).tiny)

    def once(_, total):
        return 1 + 0 * jnp.max(jnp.abs(product(start + tiny * total)))

    return jax.lax.fori_loop(0, inner, once, jnp.ones((), start.dtype))


@jax.jit(static_argnums=2)
def _forward(operator: Any, W: Any, inner: int) -> Any:
    return _chain(operator.forward, W, inner)


@jax.jit(static_argnums=2)
def _adjoint(operator: Any, R: Any, inner: int) -> Any:
    return _chain(operator.adjoint, R, inner)


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    rows = []
    for case in result["cases"]:
        numbers = (f"{1e3 * case['seconds']:.3f}", f"{case['flops'] / 1e9:.1f}", f"{case['bytes'] / 1e9:.1f}")
        shares = (f"{100 * case[key]:.0f} %" for key in ("of_matmul", "of_copy", "of_limit"))
        rows.append((str(tuple(case["size"])), case["dtype"], case["product"], *numbers, *shares))
    header = ("(n, d, P, c)", "dtype", "product", "ms", "GFLOP/s", "GB/s", "of matmul", "of copy", "of limit")
    print_table(f"Inner products on {result['device']}", header, rows)
    for dtype, limit in result["limits"].items():
        print(f"{dtype}: matmul {limit['matmul_flops'] / 1e9:.1f} GFLOP/s, copy {limit['copy_bytes'] / 1e9:.1f} GB/s")
