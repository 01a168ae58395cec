"""Off the CPU every product of a solve is traced at the highest precision."""

import re

import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx.numerics.precision import with_full_precision

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 3)), RNG.standard_normal(12)
CELLS = jaxcvx.sample_arrangements(jax.random.key(0), X, 5)
PROBLEM = dict(beta=0.1, arrangements=CELLS)


def products(function, *args):
    """The number of products, and of those at the highest precision."""
    text = str(jax.make_jaxpr(function)(*args))
    return len(re.findall(r"\bdot_general\[", text)), text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)")


@pytest.mark.routine(2)
@pytest.mark.parametrize("solver", [jaxcvx.ProximalGradient(), jaxcvx.ConeADMM(), jaxcvx.NuclearProximalGradient()])
def test_every_product_of_a_solve(monkeypatch, solver):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def numbers(X, Y):
        solution = jaxcvx.solve(jaxcvx.make_problem(X, Y, **PROBLEM), solver)
        return solution.objective, solution.upper_bound, solution.lower_bound

    found, exact = products(numbers, X, Y)
    assert found == exact > 20


def test_derivatives_too(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def value(X, Y):
        return jaxcvx.solve(jaxcvx.make_problem(X, Y, **PROBLEM), jaxcvx.ProximalGradient()).params.sum()

    found, exact = products(jax.grad(value), X, Y)
    assert found == exact > 20


def test_precision_is_left_alone_on_cpus(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")

    @with_full_precision
    def product(A):
        """Doc."""
        return A @ A

    with jax.default_matmul_precision("default"):  # whatever the other tests run in
        assert products(product, X[:3]) == (1, 0)
    assert product.__doc__ == "Doc."
