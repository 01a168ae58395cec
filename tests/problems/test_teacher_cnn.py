"""TeacherCNN: closed forms against sampling and automatic differentiation, the spurious point and its sign rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.errors import InvalidInputError
from jaxcvx.numerics.sphere import unit
from jaxcvx.problems.teacher_cnn import StudentWeights, TeacherCNN


def _teacher(ratio=1.0, k=5, p=4, seed=0):
    return TeacherCNN.random(jax.random.key(seed), k, p, ratio)


def _params(problem, seed=1, length=1.0):
    params = problem.random_params(jax.random.key(seed), 2.0)
    return params._replace(w=length * params.w)


def _naive_objective(problem, params):
    """The formula of the population loss as in the papers, by arccos; w of any length."""
    w, a = params
    w_star, a_star = problem.optimum
    n = jnp.sqrt(w @ w)
    phi = jnp.arccos(w @ w_star / n)
    g = (jnp.pi - phi) * jnp.cos(phi) + jnp.sin(phi)
    c = 0.5 - 0.5 / jnp.pi
    return 0.5 * (
        c * (n**2 * a @ a + a_star @ a_star)
        + (n * a.sum() - a_star.sum()) ** 2 / (2 * jnp.pi)
        - n * (g - 1) / jnp.pi * (a @ a_star)
    )


@pytest.mark.routine("0.3")
@pytest.mark.parametrize("length", [1.0, 0.3, 7.0])
def test_loss_and_gradient_against_sampling(length):
    problem = _teacher()
    params = _params(problem, length=length)
    value_and_grad = jax.value_and_grad(problem.sampled_objective)
    keys = jax.random.split(jax.random.key(2), 200)
    values, gradients = jax.lax.map(lambda key: value_and_grad(params, key, 5000), keys)  # 1e6 samples
    wanted = (problem.objective(params), problem.gradient(params))
    for sample, exact in zip(jax.tree.leaves((values, gradients)), jax.tree.leaves(wanted), strict=True):
        error = sample.std(0, ddof=1) / len(keys) ** 0.5
        assert (jnp.abs(sample.mean(0) - exact) < 4 * error).all()


def test_batches_of_one_are_unbiased():
    problem = _teacher()
    params = _params(problem)
    keys = jax.random.split(jax.random.key(3), 100_000)
    values = jax.vmap(lambda key: problem.sampled_objective(params, key, 1))(keys)
    assert abs(float(values.mean() - problem.objective(params))) < 4 * float(values.std()) / len(keys) ** 0.5


@pytest.mark.parametrize("seed, length", [(0, 1.0), (1, 0.3), (2, 7.0)])
def test_gradient_against_automatic_differentiation(seed, length):
    problem = _teacher(seed=seed)
    params = _params(problem, length=length)
    np.testing.assert_allclose(problem.objective(params), _naive_objective(problem, params), rtol=1e-12)
    for grad in (
        jax.grad(lambda q: _naive_objective(problem, q))(params),
        jax.grad(problem.objective)(params),
    ):
        for mine, theirs in zip(problem.gradient(params), grad, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-10)


def test_angle_gradient_has_the_tangent_part_of_the_gradient():
    problem = _teacher()
    params = _params(problem)
    ours, full = problem.angle_gradient(params), problem.gradient(params)
    np.testing.assert_allclose(problem.tangent(params, ours).w, problem.tangent(params, full).w, atol=1e-14)
    np.testing.assert_allclose(ours.a, full.a, rtol=1e-13)
    longer = params._replace(w=5 * params.w)
    np.testing.assert_allclose(problem.angle_gradient(longer).w, ours.w, rtol=1e-13)


def test_length_of_the_teacher_counts_as_weights():
    problem = _teacher()
    scaled = TeacherCNN(3 * problem.w_star, problem.a_star / 3)
    params = _params(problem)
    np.testing.assert_allclose(scaled.objective(params), problem.objective(params), rtol=1e-12)
    key = jax.random.key(0)
    np.testing.assert_allclose(
        scaled.sampled_objective(params, key, 10), problem.sampled_objective(params, key, 10), rtol=1e-12
    )


def test_optimum_is_the_teacher():
    problem = _teacher()
    assert float(problem.objective(problem.optimum)) == 0
    assert float(problem.lower_bound()) == 0
    np.testing.assert_allclose(np.concatenate(problem.gradient(problem.optimum)), 0, atol=1e-15)


@pytest.mark.parametrize("k, ratio", [(25, 0.0), (25, 1.0), (25, 4.0), (4, 2.0), (1, 1.0)])
def test_spurious_point_is_stationary_with_the_value_of_the_formula(k, ratio):
    problem = _teacher(ratio, k)
    point = problem.spurious_point()
    gradient = problem.tangent(point, problem.gradient(point))
    assert max(float(jnp.abs(g).max()) for g in gradient) < 1e-12
    np.testing.assert_allclose(problem.objective(point), problem.spurious_value(), rtol=1e-12)
    # a solves the linear system of the papers
    a = np.linalg.solve(np.ones((k, k)) + (np.pi - 1) * np.eye(k), (np.ones((k, k)) - np.eye(k)) @ problem.a_star)
    np.testing.assert_allclose(point.a, a, atol=1e-13)


@pytest.mark.parametrize("ratio, value", [(0, 0.1333), (1, 0.147), (4, 0.187)])
def test_spurious_values_of_reference(ratio, value):
    np.testing.assert_allclose(_teacher(float(ratio), 25, 6).spurious_value(), value, atol=6e-4)


def _escapes(problem):
    """Whether gradient descent from next to the spurious point turns to the teacher (w* is the first axis)."""
    point = problem.spurious_point()
    params = point._replace(w=unit(point.w + jnp.array([0.0, 0.2, 0.0])))

    def step(_, params):
        tangent = problem.tangent(params, problem.gradient(params))
        return problem.retract(jax.tree.map(lambda x, g: x - 0.2 * g, params, tangent))

    return problem.angle(jax.lax.fori_loop(0, 10_000, step, params)) < jnp.pi / 2


@pytest.mark.parametrize("k", [4, 9, 25])
def test_trap_rule_is_exact_on_a_grid(k):
    threshold = (k + np.pi - 1) / np.pi
    ratios = np.array([q for q in (0, 0.5, 1, 2, 4, 9, 16) if q <= k] + [0.97 * threshold, 1.03 * threshold])
    problems = jax.vmap(lambda q, key: _teacher_at(q, key, k))(ratios, jax.random.split(jax.random.key(1), len(ratios)))
    np.testing.assert_array_equal(jax.vmap(TeacherCNN.traps)(problems), ratios < threshold)
    alignment = jax.vmap(lambda problem: problem.alignment(problem.spurious_point()))(problems)
    np.testing.assert_array_equal(alignment < 0, ratios < threshold)
    clear = np.abs(ratios / threshold - 1) > 0.2  # next to the threshold the escape takes for ever
    escaped = jax.jit(jax.vmap(_escapes))(problems)
    np.testing.assert_array_equal(escaped[clear], ratios[clear] > threshold)


def _teacher_at(ratio, key, k):
    """Traced ratios: mean and the rest put together by hand."""
    rest = jax.random.normal(key, (k,))
    rest = unit(rest - rest.mean())
    mean = jnp.sqrt(ratio) / k
    return TeacherCNN(jnp.array([1.0, 0, 0]), mean + jnp.sqrt(1 - k * mean**2) * rest)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 9.0])
def test_random_teacher_has_the_ratio(ratio):
    problem = _teacher(ratio, 25, 6)
    np.testing.assert_allclose(jnp.sum(problem.a_star) ** 2, ratio, atol=1e-12)
    np.testing.assert_allclose([unit(problem.w_star) @ problem.w_star, problem.a_star @ problem.a_star], 1)
    with pytest.raises(InvalidInputError, match="ratio"):
        _teacher(30.0, 25, 6)


def test_starts():
    problem = _teacher(4.0, 25, 6)
    keys = jax.random.split(jax.random.key(5), 4000)
    for start, radius in (
        (problem.initial_params, 2 / 5),
        (problem.random_params, 1.0),
        (lambda key: problem.random_params(key, 3.0), 3.0),
    ):
        params = jax.vmap(start)(keys)
        np.testing.assert_allclose(jnp.linalg.norm(params.w, axis=1), 1, rtol=1e-12)
        share = jnp.linalg.norm(params.a, axis=1) / radius
        assert float(share.max()) <= 1
        assert abs(float((share < 0.97).mean()) - 0.97**25) < 4 * 0.5 / 4000**0.5


def test_large_noise_pulls_the_output_weights_towards_the_teacher():
    """Mechanism: E g(phi) - 1 = pi/2 p kappa^2 - 1 > 0 over uniform directions, so a drifts to a.a* > 0 at q = 0."""
    p = 6
    problem = _teacher(0.0, 25, p)
    kappa = 2 / (15 / 8 * np.pi)  # Gamma(p/2) / (sqrt(pi) Gamma((p + 1)/2))
    expected = np.pi / 2 * p * kappa**2 - 1
    assert abs(expected - 0.0865) < 1e-4
    w = jax.vmap(unit)(jax.random.normal(jax.random.key(0), (200_000, p)))
    phi = jax.vmap(lambda w: problem.angle(StudentWeights(w, problem.a_star)))(w)
    g = (jnp.pi - phi) * jnp.cos(phi) + jnp.sin(phi)
    assert abs(float(g.mean()) - 1 - expected) < 4 * float(g.std()) / len(w) ** 0.5


def test_diagnostics():
    problem = _teacher()
    point = problem.spurious_point()
    np.testing.assert_allclose([problem.angle(point), problem.angle(problem.optimum)], [np.pi, 0], atol=1e-15)
    np.testing.assert_allclose(problem.alignment(problem.optimum), 1)


def test_solutions_can_be_saved(tmp_path):
    problem = _teacher()
    solution = jaxcvx.solve(problem, jaxcvx.AnnealedNoise(max_steps=100), key=jax.random.key(0))
    jaxcvx.save(tmp_path / "run", {"problem": problem, "solution": solution})
    loaded = jaxcvx.load(tmp_path / "run")
    again = jaxcvx.solve(loaded["problem"], jaxcvx.GradientDescent(max_steps=10), init=loaded["solution"].params)
    assert again.objective <= solution.objective


def test_bad_data_are_a_status():
    problem = TeacherCNN(jnp.zeros(3), jnp.ones(2))
    assert not bool(problem.is_valid())
    solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(max_steps=10), key=jax.random.key(0))
    assert solution.status == jaxcvx.Status.INVALID_INPUT


@pytest.mark.long
@pytest.mark.float32
def test_float32_gradient_next_to_the_spurious_point():
    problem = TeacherCNN.random(jax.random.key(0), 5, 3, 1.0, jnp.float32)
    assert problem.dtype == jnp.float32
    point = problem.spurious_point()
    side = jnp.array([1.0, -1.0, 0.5])
    turned = point._replace(w=unit(point.w + 1e-3 * side))
    gradient = problem.tangent(turned, problem.gradient(turned)).w
    with jax.enable_x64(True):
        exact, there = (jax.tree.map(lambda x: x.astype(float), tree) for tree in (problem, turned))
        there = there._replace(w=unit(there.w))
        wanted = exact.tangent(there, exact.gradient(there)).w
    np.testing.assert_allclose(gradient, wanted, atol=3e-7)
