"""Properties of pytrees and their leaves, and the registration of dataclasses that validate their arguments."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def is_traced(*values: Any) -> bool:
    """True if any of the values is traced (by jit, vmap or grad), so that its numbers are unknown."""
    return any(isinstance(v, jax.core.Tracer) for v in values)


def all_finite(tree: Any) -> Bool[Array, ""]:
    """True if every floating or complex leaf is finite."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves])) if leaves else jnp.asarray(True)


def tree_norm(tree: Any) -> Float[Array, ""]:
    """Euclidean norm over all leaves."""
    return jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(tree)))


def register_validated(cls: type) -> type:
    """Register a frozen dataclass, whose ``__init__`` validates its arguments, as a pytree.

    Unflattening fills in the fields without a call of ``__init__``, because the leaves may then be tracers, shapes or
    anything else. Fields with the metadata ``{"static": True}`` are no leaves.
    """
    static = [f.name for f in dataclasses.fields(cls) if f.metadata.get("static")]
    data = [f.name for f in dataclasses.fields(cls) if f.name not in static]

    def flatten(problem: Any) -> tuple[tuple, tuple]:
        return tuple(getattr(problem, n) for n in data), tuple(getattr(problem, n) for n in static)

    def flatten_with_keys(problem: Any) -> tuple[tuple, tuple]:
        leaves, aux = flatten(problem)
        return tuple((jax.tree_util.GetAttrKey(n), leaf) for n, leaf in zip(data, leaves, strict=True)), aux

    def unflatten(aux: Any, leaves: Any) -> Any:
        problem: Any = object.__new__(cls)
        problem.__dict__.update(zip(static, aux, strict=True), **dict(zip(data, leaves, strict=True)))
        return problem

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
