"""The solvers of tests/cases.py and everything else that is random, for the tests of determinism; results as bytes.

As a program it prints digests of results: python -m tests.reliability.cases NAME ...
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcvx
from tests.cases import CASES, completion, random_data, training

# Those whose loop is the driver's: a checkpoint holds their whole state.
DRIVEN = {name: case for name, case in CASES.items() if not case.on_host}
HOSTED = {name: case for name, case in CASES.items() if case.on_host}


def bits(tree: Any) -> dict[str, bytes]:
    """Every array of a pytree as dtype, shape and bytes, by its place."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        found[jax.tree_util.keystr(path)] = f"{array.dtype}{array.shape}".encode() + array.tobytes()
    return found


def differing(a: Any, b: Any) -> list[str]:
    """Places where two pytrees are not the same bits."""
    a, b = bits(a), bits(b)
    return sorted(place for place in a.keys() | b.keys() if a.get(place) != b.get(place))


def _data(n: int = 12, d: int = 3) -> tuple[jax.Array, jax.Array]:
    X, Y = random_data(n, d)
    return jnp.asarray(X, jnp.result_type(float)), jnp.asarray(Y, jnp.result_type(float))


def _relu(cells: int | None = 10) -> jaxcvx.Problem:
    return training(n=12, cells=cells, beta=0.05)(jnp.result_type(float))


def _completion() -> jaxcvx.MatrixCompletion:
    return completion()(jnp.result_type(float))


def _followed(transform: Any, **options: Any) -> Any:
    """Params after twenty updates by an optax transformation that draws random numbers."""
    params = {"w": jnp.linspace(-1, 1, 5), "a": jnp.ones(3)}
    gradient = jax.grad(lambda p: jnp.sum(p["w"] ** 4) + jnp.sum(jnp.cos(p["a"])))
    state = transform.init(params)
    for _ in range(20):
        given = None if options else gradient(params)
        updates, state = transform.update(given, state, params, **{k: gradient for k in options})
        params = optax.apply_updates(params, updates)
    return params


def _trained() -> jaxcvx.Network:
    problem = _relu(cells=None)
    return jaxcvx.solve(problem, jaxcvx.GradientDescent(width=4, max_steps=50), key=jax.random.key(0)).network


def _completion_params() -> Any:
    return tuple(jnp.ones((size, 2)) * jnp.arange(1, 3) for size in (10, 8))


def _polished() -> jaxcvx.Network:
    X, Y = _data()
    return jaxcvx.polish(_trained(), X, Y, 0.05)


def _certificate(method: str) -> Any:
    X, Y = _data()
    return jaxcvx.certify(_trained(), X, Y, 0.05, method=method)


def _images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, 6, 6, 1))


# Everything else that draws random numbers, or whose order of operations might vary. Each gives a pytree.
SAMPLERS: dict[str, Callable[[], Any]] = {
    "gaussian-gates": lambda: jaxcvx.sample_arrangements(jax.random.key(0), _data()[0], 30),
    "data-gates": lambda: jaxcvx.sample_arrangements(jax.random.key(0), _data()[0], 30, method="data"),
    "conv-gates": lambda: jaxcvx.sample_arrangements(
        jax.random.key(0), _images(), 20, method="conv", features=jaxcvx.ConvPool((3, 3))
    ),
    "all-cells": lambda: jaxcvx.enumerate_arrangements(_data()[0]),
    "perturbed": lambda: _followed(jaxcvx.perturb_iterates(optax.sgd(0.1), 0.5, key=jax.random.key(0)), grad_fn=True),
    "annealed": lambda: _followed(jaxcvx.noise_annealed_gd(0.1, 0.5, jax.random.key(0)), grad_fn=True),
    "gradient-noise": lambda: _followed(
        optax.chain(jaxcvx.annealed_gradient_noise(0.5, jax.random.key(0)), optax.sgd(0.1))
    ),
    "langevin": lambda: _followed(jaxcvx.langevin(0.1, 0.5, key=jax.random.key(0))),
    "trajectory": lambda: jaxcvx.trajectory(
        _completion(), jaxcvx.AnnealedNoise(), 20, init=_completion_params(), key=jax.random.key(0)
    ),
    "second-order": lambda: jaxcvx.second_order(_completion(), _completion_params(), jax.random.key(0)),
    "isometry": lambda: jaxcvx.isometry_constant(_completion(), jax.random.key(0)),
    "spike-free": lambda: jaxcvx.is_spike_free(_data(5, 4)[0], key=jax.random.key(0)),
    "patches": lambda: jaxcvx.fit_patch_features(jax.random.key(0), _images(), 8, filter_shape=(3, 3)),
    "beta-max": lambda: jaxcvx.beta_max(_relu(), "network"),
    "polish": _polished,
    "exact-certificate": lambda: _certificate("exact"),
    "multistart-certificate": lambda: _certificate("multistart"),
    "relaxed-certificate": lambda: _certificate("relaxed"),
    "path": lambda: jaxcvx.regularization_path(
        _relu(), jnp.asarray([0.5, 0.2, 0.1]), jaxcvx.ProximalGradient(tol=1e-6, phases="accelerated")
    ),
}


def result(name: str) -> Any:
    """The result of a case or of a sampler."""
    return CASES[name].solve() if name in CASES else SAMPLERS[name]()


def digest(tree: Any) -> str:
    """A short text that stands for all bits of a pytree."""
    found = bits(tree)
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


def main() -> None:
    """Digests of the results that are named on the command line, as JSON."""
    with jax.enable_x64(True):
        print(json.dumps({name: digest(result(name)) for name in sys.argv[1:]}))


if __name__ == "__main__":
    main()
