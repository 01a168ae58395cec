"""The hash of a run: equal for equal runs, also in another process, and different for every other one."""

from __future__ import annotations

import dataclasses
import functools
import io
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcvx
from jaxcvx.callbacks.checkpoint import fingerprint
from jaxcvx.callbacks.identity import identity

SCALE = 2.0


def _scaled(x):
    return SCALE * x


def _with_default(x, power=2):
    return x**power


class Rule:
    def __init__(self, size):
        self.size = size

    def __call__(self, step):
        return self.size / (1 + step)


class Slotted:
    __slots__ = ("size",)

    def __init__(self, size):
        self.size = size


@dataclasses.dataclass(frozen=True)
class Setting:
    size: object


def _recursive():
    def inner(n):
        return 0 if n == 0 else inner(n - 1)

    return inner


def schedules(*boundaries):
    return optax.piecewise_constant_schedule(0.1, dict.fromkeys(boundaries, 0.5))


DIFFERENT = {  # pairs of runs that are not the same
    "learning rate": (optax.sgd(1e-5), optax.sgd(1e-2)),
    "optimiser": (optax.adam(1e-2), optax.adamw(1e-2)),
    "momentum": (optax.sgd(0.1, momentum=0.9), optax.sgd(0.1, momentum=0.8)),
    "schedule": (optax.adam(schedules(10, 20)), optax.adam(schedules(10, 30))),
    "schedule's kind": (optax.sgd(optax.cosine_decay_schedule(0.1, 5)), optax.sgd(optax.linear_schedule(0.1, 0, 5))),
    "chain": (optax.chain(optax.clip(1.0), optax.sgd(0.1)), optax.chain(optax.clip(2.0), optax.sgd(0.1))),
    "order": (optax.chain(optax.clip(1.0), optax.sgd(0.1)), optax.chain(optax.sgd(0.1), optax.clip(1.0))),
    "code": ((lambda x: x + 1), (lambda x: x * 1)),
    "constant": ((lambda x: x + 1), (lambda x: x + 2)),
    "nested constant": ((lambda x: [y + 1 for y in x]), (lambda x: [y + 2 for y in x])),
    "default": (_with_default, lambda x, power=3: x**power),
    "names": ((lambda x: jnp.sin(x)), (lambda x: jnp.cos(x))),
    "partial": (functools.partial(_with_default, power=2), functools.partial(_with_default, power=3)),
    "jitted": (jax.jit(lambda x: x + 1), jax.jit(lambda x: x + 2)),
    "object": (Rule(1.0), Rule(2.0)),
    "bound method": (Rule(1.0).__call__, Rule(2.0).__call__),
    "slots": (Slotted(1), Slotted(2)),
    "dataclass": (Setting(1), Setting(2)),
    "array": (Setting(np.arange(3)), Setting(np.arange(3) + 1)),
    "dtype": (Setting(np.zeros(2)), Setting(np.zeros(2, np.float32))),
    "type": (Setting(1), Setting(True)),
    "number": (1, 1.0),
    "text": ("1", 1),
    "long arrays": (Setting(np.zeros(5000)), Setting(np.eye(1, 5000, 2500)[0])),  # whose repr is the same
    "keys": (jax.random.key(0), jax.random.key(1)),
    "mapping": ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
    "set": ({1, 2}, {1, 3}),
    "split of text": (("ab", "c"), ("a", "bc")),
    "nothing": (None, 0),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_other_runs_are_told_apart(kind):
    one, other = DIFFERENT[kind]
    assert identity("a", one) != identity("a", other)
    assert identity("a", one) == identity("a", one)


def test_values_made_twice_are_the_same():
    for make in (
        lambda: optax.adamw(optax.cosine_decay_schedule(0.1, 100)),
        lambda: optax.chain(optax.clip(1.0), optax.lbfgs()),
        lambda: Rule(1.0),
        lambda: Setting((np.arange(3), {"a": jnp.ones(2)})),
        lambda: functools.partial(_with_default, power=2),
        _recursive,
        lambda: {"b": 1, "a": {3, 1, 2}},
    ):
        assert identity("a", make()) == identity("a", make())


def test_global_values_of_functions_count(monkeypatch):
    before = identity("a", _scaled)
    monkeypatch.setitem(_scaled.__globals__, "SCALE", 3.0)
    assert identity("a", _scaled) != before


def test_another_process_writes_the_same():
    code = """
import jax, numpy as np, optax, jaxcvx
from jaxcvx.callbacks.checkpoint import fingerprint
problem = jaxcvx.make_problem(np.eye(3), np.arange(3.0), 0.5)
rate = 0.1
optimizer = optax.chain(optax.clip(1.0), optax.adam(lambda step: rate / (1 + step)))
print(fingerprint(problem, jaxcvx.GradientDescent(width=4, optimizer=optimizer)))
"""
    run = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert run[0] == run[1] and len(run[0].strip()) == 64


@pytest.mark.parametrize("value", [io.StringIO(), threading.Lock(), (i for i in range(3)), iter([1]), memoryview(b"1")])
def test_what_cannot_be_written_is_refused_with_its_name(value):
    with pytest.raises(jaxcvx.JaxcvxError, match=r"solver\.optimizer\.size"):
        identity("solver", jaxcvx.GradientDescent(optimizer=Setting(value)))


def test_problems_with_functions_count_them_too():
    def problem(power):
        return jaxcvx.LeastSquares(
            inputs=jnp.ones(2), targets=jnp.ones(2), start=jnp.array(0.0), model=lambda a, x: (a * x) ** power
        )

    solver = jaxcvx.GradientDescent()
    assert fingerprint(problem(1), solver) != fingerprint(problem(3), solver)
    assert fingerprint(problem(1), solver) == fingerprint(problem(1), solver)


def test_a_run_with_another_optimiser_does_not_get_the_old_answer(tmp_path):
    X = np.random.default_rng(0).normal(size=(12, 2))
    problem = jaxcvx.make_problem(X, np.maximum(X[:, 0], 0) - np.maximum(X[:, 1], 0), 0.5)
    value = {}
    for file, rate in (("one.npz", 1e-5), ("one.npz", 1e-2), ("fresh.npz", 1e-2)):
        solver = jaxcvx.GradientDescent(width=4, max_steps=200, optimizer=optax.sgd(rate))
        callback = jaxcvx.Checkpoint(tmp_path / file)
        value[file, rate] = float(jaxcvx.solve(problem, solver, key=jax.random.key(0), callback=callback).upper_bound)
    assert value["one.npz", 1e-2] == value["fresh.npz", 1e-2] != value["one.npz", 1e-5]
