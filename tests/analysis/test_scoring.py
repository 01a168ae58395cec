"""Scores with sample weights equal scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

import jaxcvx
from jaxcvx.analysis.scoring import UnweightedScore, resolve_scoring, score_name
from jaxcvx.losses.entrywise import resolve_loss

RNG = np.random.default_rng(0)
Y, F = RNG.standard_normal((30, 3)), RNG.standard_normal((30, 3))
W = RNG.integers(0, 3, 30).astype(float)
LABELS = RNG.integers(0, 3, 30)
ONE_HOT = np.eye(3)[LABELS]
SIGNS = np.where(Y[:, :1] > 0, 1.0, -1.0)
SOFTMAX = np.exp(F) / np.exp(F).sum(axis=1, keepdims=True)
SIGMOID = 1 / (1 + np.exp(-F[:, 0]))
CASES = {
    ("squared", None): (Y, F, metrics.r2_score(Y, F, sample_weight=W)),
    ("huber", "r2"): (Y, F, metrics.r2_score(Y, F, sample_weight=W)),
    ("squared", "neg_mean_squared_error"): (Y, F, -metrics.mean_squared_error(Y, F, sample_weight=W)),
    ("softmax", None): (ONE_HOT, F, metrics.accuracy_score(LABELS, F.argmax(axis=1), sample_weight=W)),
    ("softmax", "neg_log_loss"): (ONE_HOT, F, -metrics.log_loss(LABELS, SOFTMAX, sample_weight=W, labels=range(3))),
    ("logistic", "accuracy"): (SIGNS, F[:, :1], metrics.accuracy_score(SIGNS > 0, F[:, :1] > 0, sample_weight=W)),
    ("logistic", "neg_log_loss"): (SIGNS, F[:, :1], -metrics.log_loss(SIGNS[:, 0], SIGMOID, sample_weight=W)),
}


@pytest.mark.parametrize("loss, scoring", CASES)
def test_equals_scikit_learn(loss, scoring):
    targets, predictions, expected = CASES[loss, scoring]
    score = resolve_scoring(scoring, resolve_loss(loss))
    got = jax.jit(score)(jnp.asarray(targets), jnp.asarray(predictions), jnp.asarray(W))
    assert float(got) == pytest.approx(expected, rel=1e-12)
    usual = {"squared": "r2", "softmax": "accuracy"}
    assert score_name(score) == (scoring or usual[loss])


def test_r2_of_a_constant_output_is_one_if_met():
    score = resolve_scoring("r2", resolve_loss("squared"))
    constant = jnp.full((5, 1), 0.1)  # its mean is not 0.1 to the last bit
    assert float(score(constant, constant, jnp.ones(5))) == 1
    assert float(score(constant, constant + 1, jnp.ones(5))) == 0
    half = jnp.array([[0.1], [0.1], [0.1], [7.0]])  # the last one does not count
    assert float(score(half, half + 1, jnp.array([1.0, 1.0, 1.0, 0.0]))) == 0


def test_samples_of_weight_zero_do_not_count():
    for loss in ("squared", "softmax", "logistic"):
        targets, predictions = {"squared": (Y, F), "softmax": (ONE_HOT, F), "logistic": (SIGNS, F[:, :1])}[loss]
        for scoring in (None, "neg_mean_squared_error" if loss == "squared" else "neg_log_loss"):
            score = resolve_scoring(scoring, resolve_loss(loss))
            kept = W > 0
            part = score(jnp.asarray(targets[kept]), jnp.asarray(predictions[kept]), jnp.asarray(W[kept]))
            far = np.where(kept[:, None], predictions, 1e3)
            whole = score(jnp.asarray(targets), jnp.asarray(far), jnp.asarray(W))
            assert float(whole) == pytest.approx(float(part), rel=1e-12)


def test_signs_of_several_outputs_are_averaged():
    score = resolve_scoring("accuracy", resolve_loss("logistic"))
    signs = np.where(Y > 0, 1.0, -1.0)
    got = score(jnp.asarray(signs), jnp.asarray(F), jnp.ones(30))
    assert float(got) == pytest.approx(((F > 0) == (signs > 0)).mean())


def test_a_function_is_kept():
    def score(Y, F):
        return -jnp.max(jnp.abs(Y - F))

    kept = resolve_scoring(score, resolve_loss("squared"))
    assert isinstance(kept, UnweightedScore) and kept.function is score and score_name(kept) == ""


@pytest.mark.parametrize(
    "loss, scoring", [("squared", "accuracy"), ("squared", "neg_log_loss"), ("softmax", "r2"), ("logistic", "auc")]
)
def test_names_that_do_not_fit(loss, scoring):
    with pytest.raises(jaxcvx.InvalidInputError, match=f"scoring: got '{scoring}'.*{loss}"):
        resolve_scoring(scoring, resolve_loss(loss))


def test_other_types():
    with pytest.raises(jaxcvx.InvalidTypeError, match="scoring: got int"):
        resolve_scoring(3, resolve_loss("squared"))
