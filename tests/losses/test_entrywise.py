"""Losses: values, gradients, conjugates, prox, curvature, scalings."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from jaxcvx import InvalidInputError
from jaxcvx.errors import InvalidTypeError
from jaxcvx.losses.entrywise import LOSSES, Hinge, Huber, Logistic, Squared, resolve_loss
from tests.helpers import loss_value, targets_for

NAMES = sorted(LOSSES)
SMOOTH = [name for name in NAMES if name not in ("hinge", "interpolation")]
EVERY_LOSS = pytest.mark.parametrize("name", NAMES)
N, C = 5, 3
seeds = st.integers(0, 10**6)


def _jitted(method: str):
    """A method of a loss, compiled once per loss and shape."""
    return jax.jit(lambda loss, *args: getattr(loss, method)(*args), static_argnums=0)


value, grad, prox = _jitted("value"), _jitted("grad"), _jitted("prox")
dual_value, conjugate, best_scaling = _jitted("dual_value"), _jitted("conjugate"), _jitted("best_scaling")
autograd = jax.jit(lambda loss, F, Y: jax.grad(loss.value)(F, Y), static_argnums=0)
hessian_of_first_row = jax.jit(
    lambda loss, F, Y: jax.hessian(lambda row: loss.value(row[None], Y[:1]))(F[0]), static_argnums=0
)
dual_values = jax.jit(
    lambda loss, scales, R, Y: jax.vmap(lambda s: loss.dual_value(s * R, Y))(scales), static_argnums=0
)


def case(name: str, seed: int, scale: float = 2.0):
    """A loss, predictions F and targets Y in the loss's own form, and the raw targets."""
    rng = np.random.default_rng(seed)
    raw = targets_for(name, rng.standard_normal((N, C)))
    Y = np.eye(C)[raw] if name == "softmax" else raw
    return LOSSES[name](), jnp.asarray(scale * rng.standard_normal((N, C))), jnp.asarray(Y), raw


def dual_point(name: str, seed: int):
    """Random R in the dual domain, by construction and not by the library."""
    loss, _, Y, _ = case(name, seed)
    rng = np.random.default_rng(seed + 1)
    if name == "softmax":
        R = Y - rng.dirichlet(np.full(C, 0.5), N)
    elif name in ("logistic", "hinge"):
        R = Y * rng.uniform(0, 1, (N, C))
    else:
        R = jnp.asarray(rng.uniform(-1, 1, (N, C)))
    return loss, R, Y


@EVERY_LOSS
@pytest.mark.parametrize("scale", [0.1, 3.0, 1e3])
def test_value_is_the_formula(name, scale):
    for seed in range(5):
        loss, F, Y, raw = case(name, seed, scale)
        assert float(value(loss, F, Y)) == pytest.approx(loss_value(name, np.asarray(F), raw), rel=1e-13)


@EVERY_LOSS
@pytest.mark.parametrize("scale", [0.1, 3.0, 1e3])
def test_gradient_is_that_of_the_value(name, scale):
    for seed in range(5):
        loss, F, Y, _ = case(name, seed, scale)
        np.testing.assert_allclose(grad(loss, F, Y), autograd(loss, F, Y), atol=1e-12)


@EVERY_LOSS
def test_gradient_is_finite_for_huge_predictions(name):
    loss, F, Y, _ = case(name, 0, 1e8)
    assert bool(jnp.isfinite(grad(loss, F, Y)).all()) and bool(jnp.isfinite(value(loss, F, Y)))


@EVERY_LOSS
@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_fenchel_young(name, seed):
    loss, F, Y, _ = case(name, seed)
    G = grad(loss, F, Y)
    product, total = jnp.sum(F * G), value(loss, F, Y) + conjugate(loss, G, Y)
    assert float(total) == pytest.approx(float(product), rel=1e-12, abs=1e-11)  # equality at the gradient
    loss, R, Y = dual_point(name, seed)
    at_R = conjugate(loss, -R, Y)
    assert np.isfinite(at_R)
    for shift in range(3):
        _, F, _, _ = case(name, seed + shift, 4.0)
        assert float(value(loss, F, Y) + at_R) >= float(jnp.sum(-F * R)) - 1e-10


@pytest.mark.parametrize("name", ["squared", "huber", "logistic", "hinge"])
def test_conjugate_is_the_supremum_on_a_grid(name):
    loss = LOSSES[name]()
    f = np.linspace(-40, 40, 800_001)
    Y = jnp.asarray([[1.0]])
    values = np.asarray(jax.vmap(lambda x: value(loss, x[None, None], Y))(f))
    for g in np.linspace(-0.95, -0.05, 10):  # inside the domain of all four
        assert float(conjugate(loss, jnp.asarray([[g]]), Y)) == pytest.approx(np.max(g * f - values), abs=1e-8)


@pytest.mark.parametrize(
    ("name", "outside"),
    [
        ("huber", [[0.0, 1.01]]),
        ("huber", [[-1.01, 0.0]]),
        ("logistic", [[0.5, -0.01]]),
        ("logistic", [[0.5, 1.01]]),
        ("hinge", [[0.5, -0.01]]),
        ("hinge", [[0.5, 1.01]]),
        ("softmax", [[1.01, -1.01]]),
        ("softmax", [[-0.01, 0.01]]),
        ("softmax", [[0.5, -0.4]]),
    ],
)
def test_dual_value_is_minus_infinity_outside_its_domain(name, outside):
    Y = jnp.asarray([[1.0, 0.0]]) if name == "softmax" else jnp.ones((1, 2))
    R = jnp.asarray(outside)
    loss = LOSSES[name]()
    assert dual_value(loss, R, Y) == -np.inf
    inside = loss.project_dual(R, Y)
    assert np.isfinite(dual_value(loss, inside, Y))
    np.testing.assert_allclose(loss.project_dual(inside, Y), inside, atol=1e-15)


@pytest.mark.parametrize("name", ["logistic", "hinge", "softmax", "huber"])
def test_dual_value_at_the_boundary_of_its_domain(name):
    Y = jnp.asarray([[1.0, 0.0]]) if name == "softmax" else jnp.ones((1, 2))
    R = jnp.asarray([[1.0, -1.0]]) if name == "softmax" else jnp.ones((1, 2))
    expected = {"logistic": 0.0, "hinge": 2.0, "softmax": 0.0, "huber": 1.0}
    assert float(dual_value(LOSSES[name](), R, Y)) == pytest.approx(expected[name], abs=1e-15)
    gradient = jax.grad(lambda s: LOSSES[name]().dual_value(s * R, Y))(0.5)
    assert np.isfinite(gradient)


@EVERY_LOSS
@settings(max_examples=20, deadline=None)
@given(seed=seeds, log_step=st.floats(-4, 4))
def test_prox_is_the_minimiser(name, seed, log_step):
    loss, F, Y, _ = case(name, seed)
    step = 10.0**log_step
    G = prox(loss, F, Y, jnp.asarray(step))
    if name == "hinge":  # subgradients per entry: slope of the quadratic against [low, high]
        slope, margin = np.asarray(Y * (F - G) / step), np.asarray(Y * G)
        slack = 1e-8 * (1 + 1 / step)
        assert np.all(slope[margin < 1 - 1e-9] == pytest.approx(-1, abs=slack))
        assert np.all(slope[margin > 1 + 1e-9] == pytest.approx(0, abs=slack))
        assert np.all((slope <= slack) & (slope >= -1 - slack))
    elif name == "interpolation":
        slope, error = np.asarray((F - G) / step), np.asarray(G - Y)
        assert np.all(np.abs(slope) <= 1e6 * (1 + 1e-9))
        assert np.all(np.abs(error)[np.abs(slope) < 1e6 * (1 - 1e-9)] <= 1e-12)
        assert np.all((slope * error)[np.abs(error) > 1e-9] > 0)
    else:
        np.testing.assert_allclose((F - G) / step, grad(loss, G, Y), atol=1e-8 * (1 + 1 / step))


@EVERY_LOSS
def test_prox_of_far_points(name):
    for scale, step in itertools.product([1e-8, 50.0, 1e4], [1e-3, 1.0, 1e3]):
        loss, F, Y, _ = case(name, 3, scale)
        G = prox(loss, F, Y, jnp.asarray(step))

        def cost(A, loss=loss, Y=Y, F=F, step=step):
            return float(value(loss, A, Y) + jnp.sum((A - F) ** 2) / (2 * step))

        rng = np.random.default_rng(0)
        for size in (1e-3, 0.1, 1.0):
            assert cost(G) <= cost(G + size * rng.standard_normal(G.shape)) + 1e-9 * abs(cost(G))
        assert cost(G) <= cost(F)


@pytest.mark.parametrize("name", SMOOTH)
def test_curvature_bounds_the_hessian_and_is_attained(name):
    loss = LOSSES[name]()
    assert loss.curvature is not None
    worst = 0.0
    for seed, scale in itertools.product(range(10), (1e-3, 0.3, 3.0)):
        loss, F, Y, _ = case(name, seed, scale)
        if name == "softmax":  # the bound 1/2 is attained for two classes
            F, Y = F[:, :2], jnp.eye(2)[np.asarray(Y)[:, 0].astype(int)]
        hessian = hessian_of_first_row(loss, F, Y)
        worst = max(worst, float(np.linalg.eigvalsh(hessian)[-1]))
    assert worst <= loss.curvature * (1 + 1e-12)
    assert worst >= loss.curvature * (1 - 1e-3)


@EVERY_LOSS
@settings(max_examples=30, deadline=None)
@given(seed=seeds, log_limit=st.floats(-2, 2))
def test_best_scaling_beats_a_grid(name, seed, log_limit):
    loss, R, Y = dual_point(name, seed)
    limit = 10.0**log_limit
    scale = float(best_scaling(loss, R, Y, jnp.asarray(limit)))
    assert abs(scale) <= limit * (1 + 1e-12)
    reached = float(dual_value(loss, scale * R, Y))
    assert np.isfinite(reached)
    grid = np.linspace(-limit, limit, 401)
    values = np.asarray(dual_values(loss, grid, R, Y))
    assert reached >= values.max() - 1e-9 * (1 + abs(reached))


@pytest.mark.parametrize("loss", [Squared(), Huber()])
def test_best_scaling_is_two_sided(loss):
    Y = jnp.asarray([[1.0], [0.5]])
    R = jnp.asarray([[-0.8], [-0.1]])  # <R, Y> < 0: a network worse than the zero network
    scale = float(best_scaling(loss, R, Y, jnp.asarray(0.5)))
    assert scale == pytest.approx(-0.5)
    assert float(dual_value(loss, scale * R, Y)) > 0


@EVERY_LOSS
def test_scaling_of_a_zero_residual_gives_the_trivial_bound(name):
    loss, _, Y, _ = case(name, 0)
    R = jnp.zeros((N, C))
    scale = best_scaling(loss, R, Y, jnp.asarray(jnp.inf))
    assert float(dual_value(loss, scale * R, Y)) == 0.0


@EVERY_LOSS
def test_scaled_bounds_lie_between_zero_and_the_zero_networks_loss(name):
    # Weak duality: sup_R -loss*(-R) = loss(0), and R = 0 gives 0.
    for seed in range(5):
        loss, F, Y, _ = case(name, seed)
        most = float(value(loss, jnp.zeros_like(F), Y))
        for R in loss.dual_candidates(F, Y):
            scale = best_scaling(loss, R, Y, jnp.asarray(1e6))
            assert -1e-9 <= float(dual_value(loss, scale * R, Y)) <= most + 1e-9


@EVERY_LOSS
def test_dual_candidates_are_feasible_and_bound_the_loss(name):
    for seed in range(5):
        loss, F, Y, _ = case(name, seed)
        candidates = loss.dual_candidates(F, Y)
        assert candidates.ndim == 3
        for R in candidates:
            assert np.isfinite(dual_value(loss, R, Y))
            slack = 1e-9 * float(jnp.maximum(1.0, jnp.max(jnp.abs(R))))
            assert float(dual_value(loss, R, Y)) <= float(value(loss, F, Y) + jnp.sum(F * R)) + slack


@EVERY_LOSS
def test_max_scaling_is_the_edge_of_the_domain(name):
    for seed in range(5):
        loss, R, Y = dual_point(name, seed)
        edge = float(loss.max_scaling(R, Y))
        if name == "squared":
            assert edge == np.inf
            continue
        assert np.isfinite(dual_value(loss, edge * R, Y))
        assert dual_value(loss, 1.001 * edge * R, Y) == -np.inf


@EVERY_LOSS
@pytest.mark.float32
def test_float32_stays_float32_and_in_the_domain(name):
    loss, R, Y = dual_point(name, 0)
    R, Y = jnp.asarray(R, jnp.float32), jnp.asarray(Y, jnp.float32)
    scale = best_scaling(loss, R, Y, jnp.asarray(100.0, jnp.float32))
    for x in (
        scale,
        value(loss, R, Y),
        grad(loss, R, Y),
        dual_value(loss, scale * R, Y),
        prox(loss, R, Y, scale),
    ):
        assert x.dtype == jnp.float32 and bool(jnp.isfinite(x).all())


def test_huber_delta():
    assert Huber() == Huber(1.0) == resolve_loss("huber")
    loss, Y = Huber(0.5), jnp.zeros((1, 1))
    assert float(value(loss, jnp.asarray([[0.4]]), Y)) == pytest.approx(0.08)
    assert float(value(loss, jnp.asarray([[2.0]]), Y)) == pytest.approx(0.5 * (2.0 - 0.25))
    assert float(grad(loss, jnp.asarray([[2.0]]), Y)[0, 0]) == 0.5
    assert dual_value(loss, jnp.asarray([[0.51]]), Y) == -np.inf
    assert np.isfinite(dual_value(loss, jnp.asarray([[0.5]]), Y))


@pytest.mark.parametrize("delta", [0.0, -1.0, np.nan, np.inf])
def test_huber_refuses_a_bad_delta(delta):
    with pytest.raises(InvalidInputError, match="delta"):
        Huber(delta)


def test_prox_against_a_general_minimiser():
    loss, F, Y, _ = case("softmax", 5)
    step = 0.7

    def cost(flat):
        G = jnp.asarray(flat).reshape(N, C)
        return float(value(loss, G, Y) + jnp.sum((G - F) ** 2) / (2 * step))

    best = minimize(cost, np.asarray(F).ravel(), method="L-BFGS-B", options={"ftol": 1e-14})
    assert cost(prox(loss, F, Y, jnp.asarray(step))) <= best.fun + 1e-10


def test_names_and_objects_resolve():
    for name, kind in LOSSES.items():
        assert resolve_loss(name) == kind() and resolve_loss(kind()) == kind() and kind.name == name
    assert set(LOSSES) == {"squared", "logistic", "softmax", "huber", "hinge", "interpolation"}
    assert hash(Huber(0.5)) == hash(Huber(0.5)) != hash(Huber(0.7))
    assert Hinge().curvature is None and Logistic().curvature == 0.25
    with pytest.raises(InvalidInputError, match="loss.*'mse'.*'squared'"):
        resolve_loss("mse")
    with pytest.raises(InvalidTypeError, match="loss.*int"):
        resolve_loss(3)


@pytest.mark.parametrize("name", ["squared", "huber", "interpolation", "logistic", "hinge", "softmax"])
def test_centred_duals_sum_to_zero_and_some_multiple_is_feasible(name):
    for seed in range(5):
        loss, R, Y = dual_point(name, seed)
        centred = loss.center_dual(R, Y)
        np.testing.assert_allclose(jnp.sum(centred, axis=0), 0, atol=1e-12)
        scale = min(1.0, float(loss.max_scaling(centred, Y)))
        assert np.isfinite(dual_value(loss, scale * centred, Y))
        if name != "softmax" and len(np.unique(np.sign(Y[:, 0]))) > 1:
            assert np.abs(centred[:, 0]).max() > 0


@pytest.mark.parametrize("name", ["huber", "interpolation", "logistic", "hinge"])
def test_dual_intervals_are_the_domain(name):
    loss, R, Y = dual_point(name, 0)
    low, high = loss.dual_interval(Y)
    assert np.all((low <= R) & (high >= R))
    middle, half = (low + high) / 2, (high - low) / 2
    for side in (-1, 1):
        assert np.isfinite(dual_value(loss, middle + side * half, Y))
        assert not np.isfinite(dual_value(loss, middle + 1.01 * side * half, Y))
