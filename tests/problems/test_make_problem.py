"""make_problem: what it accepts, what it makes of it, and what it refuses by name."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import Arrangements, ConvFlatten, ConvPool, Dense, InvalidInputError, make_problem
from jaxcvx.errors import InvalidTypeError, JaxcvxError
from jaxcvx.losses.entrywise import Huber, Squared

X = np.array([[1.0, 2.0], [-1.0, 0.5], [0.0, 3.0]])
Y = np.array([1.0, -2.0, 0.5])


def cells(n: int = 3, p: int = 2, num: int = 4) -> Arrangements:
    return Arrangements(jnp.ones((num, n), bool), jnp.ones((num, p)))


def ragged() -> list:
    return [[1.0, 2.0], [3.0]]


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (np.zeros(3), InvalidInputError, r"shape \(3,\).*2 axes"),
        (np.zeros((3, 2, 2)), InvalidInputError, "2 axes"),
        (np.float64(1), InvalidInputError, "2 axes"),
        (np.zeros((0, 2)), InvalidInputError, r"shape \(0, 2\)"),
        (np.zeros((3, 0)), InvalidInputError, r"shape \(3, 0\)"),
        (np.array([[1, 2], [3, np.nan], [5, 6]]), InvalidInputError, r"nan at index \(1, 1\)"),
        (np.array([[1, 2], [3, 4], [-np.inf, 6]]), InvalidInputError, r"-inf at index \(2, 0\)"),
        (X + 1j, InvalidTypeError, "complex128"),
        (X.astype(object).tolist()[:-1] + [[object(), 1.0]], InvalidTypeError, "object at index"),
        (X.astype(str), InvalidTypeError, "expected real numbers"),
        (np.zeros((3, 2), "M8[s]"), InvalidTypeError, "datetime64"),
        (ragged(), InvalidTypeError, "list"),
        (None, InvalidTypeError, "NoneType"),
    ],
)
def test_bad_X_is_refused(bad, error, words):
    with pytest.raises(error, match="^X: got .*" + words):
        make_problem(bad, Y, 0.1)


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (np.zeros(4), InvalidInputError, "4 rows, expected 3"),
        (np.zeros((3, 1, 1)), InvalidInputError, r"shape \(n,\) or \(n, c\)"),
        (1.0, InvalidInputError, r"shape \(\)"),
        (None, JaxcvxError, "expected"),
        (np.zeros((3, 0)), InvalidInputError, r"shape \(3, 0\)"),
        ([1, np.nan, 2], InvalidInputError, r"nan at index \(1,\)"),
        ([[1, 2], [3, 4], [np.inf, 2]], InvalidInputError, r"inf at index \(2, 0\)"),
        ([1, 2j, 3], InvalidTypeError, "complex"),
        (["a", "b", "c"], InvalidTypeError, "expected real numbers"),
        (np.array([1, None, 2]), InvalidInputError, "None at index"),
    ],
)
def test_bad_Y_is_refused(bad, error, words):
    with pytest.raises(error, match="^Y: got .*" + words):
        make_problem(X, bad, 0.1)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (-1e-9, InvalidInputError),
        (np.nan, InvalidInputError),
        (np.inf, InvalidInputError),
        (np.array([0.1]), JaxcvxError),
        (np.array([0.1, 0.2]), JaxcvxError),
        (jnp.array([0.1, 0.2]), JaxcvxError),
        (1j, InvalidTypeError),
        (None, InvalidTypeError),
        ("auto", InvalidTypeError),
    ],
)
def test_bad_beta_is_refused(bad, error):
    with pytest.raises(error, match="^beta: got "):
        make_problem(X, Y, bad)


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
@pytest.mark.parametrize("bad", [[0, 1, 2], [-1, 0, 1], [0.5, 1, 1], [-2, 2, 2], [[0, 1], [1, 1], [-1, 1]]])
def test_bad_signs_are_refused(loss, bad):
    with pytest.raises(InvalidInputError, match=f"^Y: got .*-1 and [+]1.*0 and 1.*'{loss}'"):
        make_problem(X, bad, 0.1, loss=loss)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([0, -1, 1], "label -1"),
        ([0, 1.5, 1], "label 1.5"),
        ([0, 5000, 1], "gaps"),
        ([0, 1e30, 1], "label"),
        ([[0.5, 0.5], [1, 0], [0, 1]], "one-hot"),
        ([[1, 1], [1, 0], [0, 1]], "one-hot"),
        ([[0, 0], [1, 0], [0, 1]], "one-hot"),
        ([0, np.nan, 1], "nan"),
    ],
)
def test_bad_labels_are_refused(bad, words):
    with pytest.raises(InvalidInputError, match="^Y: got .*" + words):
        make_problem(X, bad, 0.1, loss="softmax")


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (np.ones((4, 3), bool), InvalidTypeError, "arrangements: got ndarray"),
        (cells(n=4), InvalidInputError, r"arrangements.masks: got shape \(4, 4\)"),
        (cells(p=3), InvalidInputError, r"arrangements.gates: got shape \(4, 3\)"),
        (cells(num=0), InvalidInputError, "arrangements: got no cells, expected at least one"),
        (
            Arrangements(jnp.ones((4, 3)), jnp.ones((4, 2))),
            InvalidInputError,
            "arrangements.masks: got dtype",
        ),
        (
            Arrangements(jnp.ones((4, 3), bool), jnp.ones((4, 2), int)),
            InvalidInputError,
            "arrangements.gates: got dtype",
        ),
        (
            Arrangements(jnp.ones((4, 3), bool), jnp.ones((5, 2))),
            InvalidInputError,
            "arrangements.gates: got 5 rows",
        ),
        (Arrangements(jnp.ones(3, bool), jnp.ones((1, 2))), InvalidInputError, "arrangements.masks"),
    ],
)
def test_bad_arrangements_are_refused(bad, error, words):
    with pytest.raises(error, match="^" + words):
        make_problem(X, Y, 0.1, arrangements=bad)


def test_cells_must_fit_the_features():
    with pytest.raises(InvalidInputError, match="arrangements.gates.*3"):
        make_problem(X, Y, 0.1, arrangements=cells(), features=Dense(bias=True))
    make_problem(X, Y, 0.1, arrangements=cells(p=3), features=Dense(bias=True))


@pytest.mark.parametrize(
    ("name", "bad", "error"),
    [
        ("loss", "mse", InvalidInputError),
        ("loss", 3, InvalidTypeError),
        ("loss", Squared, InvalidTypeError),
        ("features", "conv", InvalidInputError),
        ("features", Dense, InvalidTypeError),
        ("features", None, InvalidTypeError),
    ],
)
def test_bad_options_are_refused(name, bad, error):
    with pytest.raises(error, match=f"^{name}: got "):
        make_problem(X, Y, 0.1, **{name: bad})


def test_messages_say_what_was_got_and_what_was_expected():
    for call in (
        lambda: make_problem(X, Y, -1),
        lambda: make_problem(X[0], Y, 1),
        lambda: make_problem(X, Y, 1, loss="l1"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            call()
        assert re.fullmatch(r"\w+: got .+, expected .+\.", str(caught.value), re.S)


def test_targets_become_a_matrix_of_the_inputs_dtype():
    problem = make_problem(X, Y.tolist(), 1)
    assert problem.Y.shape == (3, 1) and problem.Y.dtype == problem.X.dtype == problem.beta.dtype == jnp.float64
    assert make_problem(X, np.ones((3, 4)), 1).num_outputs == 4
    assert make_problem(X, [1, 2, 3], 1).Y.tolist() == [[1], [2], [3]]
    single = make_problem(X.astype(np.float32), Y, 0.1)
    assert single.X.dtype == single.Y.dtype == single.beta.dtype == jnp.float32


@pytest.mark.parametrize("dtype", [int, bool, np.uint8, np.float16, jnp.bfloat16])
def test_other_dtypes_become_the_default_float(dtype):
    assert make_problem(np.abs(X).astype(dtype), Y, 0.1).X.dtype == jnp.float64


@pytest.mark.float32
@pytest.mark.parametrize("dtype", [int, np.float16, np.float64])
def test_default_float_without_x64(dtype):
    problem = make_problem(X.astype(dtype), Y, 0.1)
    assert problem.X.dtype == problem.Y.dtype == problem.beta.dtype == jnp.float32


@pytest.mark.float32
@pytest.mark.parametrize("arguments", [(X * 1e300, Y, 0.1), (X, Y * 1e300, 0.1), (X, Y, 1e300)])
def test_numbers_beyond_float32_are_refused(arguments):
    with pytest.raises(InvalidInputError, match="^(X|Y|beta): got "):
        make_problem(*arguments)


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_signs(loss):
    expected = [[-1], [1], [1]]
    for given in (
        [0, 1, 1],
        [-1, 1, 1],
        [False, True, True],
        np.array([[0.0], [1.0], [1.0]]),
        jnp.array([0, 1, 1]),
    ):
        assert make_problem(X, given, 0.1, loss=loss).Y.tolist() == expected
    both = make_problem(X, [[0, 1], [1, 0], [1, 1]], 0.1, loss=loss).Y
    assert both.tolist() == [[-1, 1], [1, -1], [1, 1]]
    assert make_problem(X, [0, 0, 0], 0.1, loss=loss).Y.tolist() == [[-1]] * 3


def test_labels():
    expected = [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    for given in ([0, 2, 1], [[0], [2], [1]], [0.0, 2.0, 1.0], jnp.array([0, 2, 1]), expected):
        problem = make_problem(X, given, 0.1, loss="softmax")
        assert problem.Y.tolist() == expected and problem.Y.dtype == jnp.float64
    assert make_problem(X, [0, 0, 0], 0.1, loss="softmax").num_outputs == 2  # one class alone is no problem


def test_beta_zero_and_array_scalars_are_fine():
    for beta in (0, 0.0, np.float32(0.5), np.array(0.5), jnp.array(0.5)):
        assert float(make_problem(X, Y, beta).beta) == float(beta)


def test_objects_are_taken_as_they_are():
    problem = make_problem(X, Y, 0.1, loss=Huber(0.5), features=Dense(bias=True, skip=True), arrangements=cells(p=3))
    assert problem.loss == Huber(0.5)
    assert problem.rows.shape == (3, 3)
    np.testing.assert_array_equal(problem.rows[:, 2], 1)
    assert problem.operator.num_blocks == 5 and problem.operator.num_cells == 4


def test_inside_jit_shapes_are_checked_and_values_pass():
    made = jax.jit(lambda X, Y, b: make_problem(X, Y, b))(X, Y, 0.1)
    assert made.Y.shape == (3, 1) and float(made.beta) == 0.1
    nan = jax.jit(lambda X: make_problem(X, Y, 0.1))(X * np.nan)  # a status of solve, not an exception
    assert np.isnan(nan.X).all()
    with pytest.raises(InvalidInputError, match="^X: .*2 axes"):
        jax.jit(lambda x: make_problem(x, Y, 0.1))(X[0])
    with pytest.raises(InvalidInputError, match="^beta: .*vmap"):
        jax.jit(lambda b: make_problem(X, Y, b))(jnp.ones(2))
    with pytest.raises(InvalidInputError, match="^Y: got traced labels.*one-hot"):
        jax.jit(lambda y: make_problem(X, y, 0.1, loss="softmax"))(jnp.arange(3))


def test_concrete_targets_are_converted_inside_jit():
    def targets(beta):
        return make_problem(X, [0, 1, 1], beta, loss="logistic").Y

    assert jax.jit(targets)(0.1).tolist() == [[-1], [1], [1]]
    labels = jax.jit(lambda b: make_problem(X, [0, 2, 1], b, loss="softmax").Y)(0.1)
    assert labels.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_public_names_are_there():
    names = (
        "make_problem enumerate_arrangements sample_arrangements arrangements_of merge_arrangements solve "
        "ProximalGradient ConeADMM training_objective certify beta_max Network Solution Status Dense"
    )
    for name in names.split():
        assert hasattr(jaxcvx, name), name


@pytest.mark.parametrize("kind", [ConvPool, ConvFlatten])
def test_convolutional_problems(kind):
    images = np.random.default_rng(0).standard_normal((3, 4, 5, 2))
    features = kind((2, 2), stride=(2, 1))
    problem = make_problem(images, Y, 0.1, features=features, arrangements=cells(n=24, p=8))
    c = problem.num_outputs
    assert problem.num_samples == 3 and problem.num_rows == 24 and problem.rows.shape == (24, 8)
    assert problem.num_columns == (c if kind is ConvPool else 8 * c)
    assert problem.operator.forward(jnp.zeros((4, 8, problem.num_columns))).shape == (3, c)
    for n, p, name in ((3, 8, "masks"), (24, 2, "gates")):
        with pytest.raises(InvalidInputError, match=rf"^arrangements.{name}: "):
            make_problem(images, Y, 0.1, features=features, arrangements=cells(n=n, p=p))


@pytest.mark.parametrize(
    ("features", "shape", "words"),
    [
        (ConvPool((2, 2)), (3, 4), r"shape \(3, 4\), expected 3 or 4 axes"),
        (ConvPool((2, 2)), (3, 4, 5, 1, 1), "3 or 4 axes"),
        (ConvFlatten(2), (3, 4, 5, 1), "2 or 3 axes"),
        (ConvFlatten((5, 1)), (3, 4, 5), r"spatial shape \(4, 5\)"),
        (ConvPool(2), (0, 4), r"shape \(0, 4\)"),
    ],
)
def test_bad_X_for_convolutions(features, shape, words):
    with pytest.raises(InvalidInputError, match="^X: got .*" + words):
        make_problem(np.zeros(shape), Y, 0.1, features=features)
    with pytest.raises(InvalidInputError, match="^X: got .*" + words):
        jax.jit(lambda X: make_problem(X, Y, 0.1, features=features).rows)(np.zeros(shape))
