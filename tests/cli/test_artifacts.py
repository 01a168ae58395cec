"""The files of a run: the model before its proof, and pictures of this run only."""

from __future__ import annotations

import os

import jax
import numpy as np
import pytest

from jaxcvx.cli.artifacts import draw, write_model
from jaxcvx.cli.model import fingerprint, load_model, load_rows
from jaxcvx.cli.phases import Compilations, Phases
from jaxcvx.cli.pipeline import Settings, train
from jaxcvx.cli.report import build_report
from jaxcvx.cli.tabular import Schema
from jaxcvx.datasets import Dataset
from tests.helpers import read_picture


@pytest.fixture(scope="module")
def run():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 2))
    data = Dataset("d", X, np.abs(X[:, 0]), "regression", ("a", "b"))
    settings = Settings(beta=0.4, folds=2, prove=0.0)
    with jax.enable_x64(True):
        result = train(data, Schema.numeric(("a", "b"), "y"), settings)
        return result, build_report(data, settings, result, Phases(quiet=True), Compilations(), [])


def test_the_model_is_kept_before_its_proof(run, tmp_path):
    result, _ = run
    write_model(str(tmp_path), result.split, result.network)
    network, prep, metadata = load_model(tmp_path)
    assert metadata["certificate"] is None and prep.beta == 0.4
    np.testing.assert_array_equal(network.hidden, result.network.hidden)
    X, y = load_rows(tmp_path / "training.npz")
    np.testing.assert_array_equal(X, result.split.X)
    assert metadata["rows"] == fingerprint(X, y) == fingerprint(X[::-1], y[::-1])
    assert fingerprint(X[1:], y[1:]) != fingerprint(X, y) != fingerprint(X, y + 1e-12)


def test_pictures_of_an_earlier_run_do_not_stay(run, tmp_path):
    result, report = run
    (tmp_path / "proof.png").write_bytes(b"old")
    (tmp_path / "regions.png").write_bytes(b"old")
    files = draw(str(tmp_path), report, result)
    assert sorted(os.listdir(tmp_path)) == ["effects.png", "path.png"] == sorted(map(os.path.basename, files))
    for name in ("effects.png", "path.png"):
        read_picture(tmp_path / name)
