"""Every optimiser of optax and optax.contrib that fits runs in GradientDescent, with all the arguments it asks for."""

from __future__ import annotations

import inspect
import warnings

import jax
import numpy as np
import optax
import optax.contrib
import pytest

import jaxcvx
from jaxcvx.solvers.gradient.base import optax_step

# Arguments without a default, and settings with which a short run gets somewhere.
SETTINGS = {
    "learning_rate": 1e-2,
    "total_steps": 300,
    "warmup_steps": 10,
    "lr": 1e-2,
}
# Not optimisers of one real function of any params, by name, with the reason.
OTHER = {
    "dpsgd": "needs gradients of single samples",
    "differentially_private_aggregate": "needs gradients of single samples",
    "complex_valued": "wraps functions of complex numbers",
    "split_real_and_imaginary": "wraps functions of complex numbers",
    "optimistic_adam": "deprecated name of optimistic_adam_v2",
    "galore": "takes an absent skip connection, None, for an array",
    "scale_by_galore": "the same",
    "scale_by_muon": "a part of muon, which says what the axes of the arrays mean",
}


def _optimizers():
    """All functions of optax and optax.contrib that need at most a learning rate and return a transformation."""
    found = {}
    for module in (optax, optax.contrib):
        for name, function in vars(module).items():
            if name.startswith("_") or not inspect.isfunction(function) or name in OTHER:
                continue
            if not function.__module__.startswith(("optax._src.alias", "optax.contrib")):
                continue
            needed = [
                p.name
                for p in inspect.signature(function).parameters.values()
                if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            ]
            if all(argument in SETTINGS for argument in needed):
                arguments = {argument: SETTINGS[argument] for argument in needed}
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        made = function(**arguments)
                except TypeError:
                    continue
                if isinstance(made, optax.GradientTransformation):
                    found[name] = made
    return found


OPTIMIZERS = _optimizers()
WITH_VALUES = {
    "backtracking": optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=15)),
    "zoom": optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(max_linesearch_steps=15)),
    "plateau": optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau()),
    "masked lbfgs": optax.masked(optax.lbfgs(), True),
    "lbfgs in chain": optax.chain(optax.clip_by_global_norm(10.0), optax.lbfgs()),
    "opaque sam": optax.contrib.sam(optax.sgd(1e-2), optax.sgd(1e-2), opaque_mode=True),
    "lookahead-free schedule": optax.contrib.schedule_free(optax.adam(1e-2), 1e-2),
    "mechanized": optax.contrib.mechanize(optax.adam(1e-2)),
    "perturbed": jaxcvx.perturb_iterates(optax.adam(1e-2), radius=1e-3, key=jax.random.key(1)),
    "multi steps": optax.MultiSteps(optax.adam(1e-2), 2).gradient_transformation(),
    "if finite": optax.apply_if_finite(optax.adam(1e-2), 3),
    "injected": optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
}


def _problem():
    X = np.random.default_rng(0).normal(size=(12, 2))
    return jaxcvx.make_problem(X, np.abs(X[:, 0]), 0.1)


def test_many_optimisers_are_found():
    assert {"adam", "lbfgs", "polyak_sgd", "lion", "adafactor", "momo", "prodigy", "dadapt_adamw"} <= OPTIMIZERS.keys()
    assert len(OPTIMIZERS) >= 35


@pytest.mark.parametrize("name", [*OPTIMIZERS, *WITH_VALUES])
def test_every_optimiser_lowers_the_objective(name):
    optimizer = (OPTIMIZERS | WITH_VALUES)[name]
    solver = jaxcvx.GradientDescent(width=4, max_steps=60, check_every=20, optimizer=optimizer)
    solution = jaxcvx.solve(_problem(), solver, key=jax.random.key(0))
    first = solution.history.objective[0]
    assert solution.objective <= first and np.isfinite(solution.objective)
    if name not in ("reduce_on_plateau", "polyak_sgd", "cocob", "dog", "dowg", "dadapt_adamw", "sm3"):  # slow or none
        assert solution.objective < first


@pytest.mark.parametrize("name", ["lbfgs", "polyak_sgd", "momo", "adam"])
@pytest.mark.float32
def test_batches_and_other_solvers_pass_the_values_too(name):
    problem, optimizer = _problem(), OPTIMIZERS[name]
    for solver in (
        jaxcvx.GradientDescent(width=4, max_steps=20, optimizer=optimizer, batch_size=6),
        jaxcvx.AnnealedNoise(width=4, max_steps=20, check_every=10, optimizer=optimizer),
        jaxcvx.Jaxopt(optimizer, width=4, max_steps=20),
    ):
        assert np.isfinite(jaxcvx.solve(problem, solver, key=jax.random.key(0)).objective)


def test_an_optimiser_sees_the_value_the_gradient_and_the_function():
    seen = {}

    def update(updates, state, params=None, *, value, grad, value_fn, grad_fn, obj_fn, **extra):
        seen.update(value=value, grad=grad, again=value_fn(params), slope=grad_fn(params, 0), other=obj_fn(params))
        return updates, state

    tx = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    optax_step(tx, optax.EmptyState(), np.array([3.0]), lambda x: (x**2).sum(), lambda params, gradient: gradient)
    assert seen["value"] == seen["again"] == seen["other"] == 9.0
    assert seen["grad"] == seen["slope"] == 6.0
