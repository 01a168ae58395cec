"""The command line, run in process on small files: what it writes, prints, and refuses."""

import csv
import importlib.util
import json
import pathlib

import numpy as np
import pytest

import jaxcvx
from jaxcvx.cli.main import main
from jaxcvx.cli.model import load_model
from tests.helpers import read_picture


def write_csv(path, header, rows):
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """A run on two noisy half-moons with string labels."""
    folder = tmp_path_factory.mktemp("classified")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 2))
    labels = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")
    path = folder / "data.csv"
    write_csv(path, ["a", "b", "label"], [[*map(repr, map(float, x)), y] for x, y in zip(X, labels, strict=True)])
    out = folder / "out"
    code = main(
        [
            "train",
            str(path),
            "--target",
            "label",
            "--beta",
            "0.5",
            "--width",
            "8",
            "--out",
            str(out),
            "--json",
        ]
    )
    assert code == 0
    return path, out, labels


@pytest.fixture(scope="module")
def regressed(tmp_path_factory):
    """A gated run on a numeric target with a categorical column."""
    folder = tmp_path_factory.mktemp("regressed")
    rng = np.random.default_rng(1)
    X = rng.standard_normal((50, 4))
    kind = rng.choice(["x", "y"], 50)
    y = 100 + 10 * np.maximum(X[:, 0], 0) - 5 * (kind == "x") + 0.1 * rng.standard_normal(50)
    path = folder / "data.csv"
    rows = [[*map(float, x), k, float(t)] for x, k, t in zip(X, kind, y, strict=True)]
    write_csv(path, ["a", "b", "c", "d", "kind", "y"], rows)
    out = folder / "out"
    arguments = ["--target", "y", "--beta", "1", "--solver", "gated", "--cells", "20", "--width", "8"]
    assert main(["train", str(path), *arguments, "--out", str(out)]) == 0
    return path, out, y


def test_report_is_consistent_with_the_model_file(classified):
    path, out, _ = classified
    report = json.loads((out / "report.json").read_text())
    assert report["scope"] == "global"  # 40 points in the plane: all cells are enumerated
    assert report["program_gap"] <= 1e-7
    assert 0 <= report["gap"] <= 1e-6
    assert report["lower_bound"] <= report["upper_bound"] <= report["baseline"]["objective"]
    network, prep, _ = load_model(out)
    assert prep.classes == ("other", "same")
    assert network.width == report["width"]


def test_pictures_are_written(classified):
    _, out, _ = classified
    for name in ("convergence.png", "regions.png"):
        read_picture(out / name)
    assert not list(out.glob("*.tmp"))


def test_predict_prints_original_labels(classified, capsys):
    path, out, labels = classified
    assert main(["predict", str(out), str(path)]) == 0
    lines = capsys.readouterr().out.split()
    assert lines[0] == "prediction" and len(lines) == 1 + len(labels)
    assert set(lines[1:]) <= {"same", "other"}
    assert np.mean(np.array(lines[1:]) == labels) > 0.7


def test_predict_to_a_file_equals_standard_output(classified, capsys, tmp_path):
    path, out, _ = classified
    assert main(["predict", str(out / "model.npz"), str(path), "--output", str(tmp_path / "p.csv")]) == 0
    assert main(["predict", str(out), str(path)]) == 0
    assert (tmp_path / "p.csv").read_text().split() == capsys.readouterr().out.split()


def test_certify_bounds_the_models_objective(classified, capsys):
    path, out, _ = classified
    assert main(["certify", str(out), str(path), "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["lower"] <= numbers["upper"]
    assert numbers["scope"] == "global" and numbers["rows"] == 40


@pytest.mark.long
def test_regression_predicts_in_the_targets_units(regressed, capsys):
    path, out, y = regressed
    report = json.loads((out / "report.json").read_text())
    assert report["solver"] == "ProximalGradient" and report["scope"] == "sampled-cells"
    assert report["program_gap"] <= 1e-5
    assert report["upper_bound"] <= report["baseline"]["objective"]
    capsys.readouterr()
    assert main(["predict", str(out), str(path), "--json"]) == 0
    got = np.array(json.loads(capsys.readouterr().out)["prediction"])
    assert np.sqrt(np.mean((got - y) ** 2)) < 0.5 * y.std()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "nothing.csv", "--target", "y", "--out", "o"], "nothing.csv"),
        (["train", "mnist", "--out", "o"], "digits"),
        (["train", "{data}", "--out", "o"], "--target"),
        (["train", "{data}", "--target", "z", "--out", "o"], "label"),
        (["train", "{data}", "--target", "label", "--beta", "-1", "--out", "o"], "--beta"),
        (["train", "{data}", "--target", "label", "--beta", "much", "--out", "o"], "--beta"),
        (["train", "{data}", "--target", "label", "--cells", "0", "--out", "o"], "--cells"),
        (["train", "{data}", "--target", "label", "--test-fraction", "1.5", "--out", "o"], "--test-fraction"),
        (["predict", "{data}", "{data}"], "jaxcvx"),
        (["predict", "missing", "{data}"], "missing"),
    ],
)
def test_bad_usage_exits_2_with_a_short_message(arguments, words, classified, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = str(classified[0])
    assert main([a.replace("{data}", data) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err and "Traceback" not in captured.err
    assert captured.err.count("\n") <= 3 and captured.out == ""


def test_missing_value_names_row_and_column(tmp_path, capsys):
    path = tmp_path / "holes.csv"
    write_csv(path, ["a", "b", "y"], [[1, 2, 0.1], [3, "", 0.2], [5, 6, 0.3], [7, 8, 0.45], [9, 1, 0.5]])
    assert main(["train", str(path), "--target", "y", "--out", str(tmp_path / "o")]) == 2
    message = capsys.readouterr().err
    assert "'b'" in message and "2" in message


def test_model_of_another_kind_is_refused(tmp_path, capsys, classified):
    other = tmp_path / "net.npz"
    jaxcvx.save(other, jaxcvx.Network(np.zeros((1, 2)), np.zeros((1, 1))))
    assert main(["predict", str(other), str(classified[0])]) == 2
    assert "another kind" in capsys.readouterr().err


def test_x64_is_left_as_it_was(classified):
    import jax

    before = jax.config.jax_enable_x64
    main(["predict", str(pathlib.Path(classified[1])), str(classified[0])])
    assert jax.config.jax_enable_x64 == before


def test_experiments_and_benchmarks_need_a_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for command in ("experiment", "bench"):
        assert main([command, "e1"]) == 2
        assert "checkout" in capsys.readouterr().err
