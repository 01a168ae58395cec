"""The command line, run in process on small files: what it writes, prints, and refuses."""

import csv
import importlib.util
import json
import pathlib

import numpy as np
import pytest

import jaxcvx
from jaxcvx.cli.main import main
from jaxcvx.cli.model import load_model, load_rows
from tests.helpers import read_picture

QUICK = ["--folds", "2", "--prove", "10", "--quiet"]


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
    assert main(["train", str(path), "--beta", "0.5", *QUICK, "--out", str(out), "--json"]) == 0
    return path, out, labels


@pytest.fixture(scope="module")
def regressed(tmp_path_factory):
    """A run on a numeric target with a categorical column and test rows."""
    folder = tmp_path_factory.mktemp("regressed")
    rng = np.random.default_rng(1)
    X = rng.standard_normal((50, 4))
    kind = rng.choice(["x", "y"], 50)
    y = 100 + 10 * np.maximum(X[:, 0], 0) - 5 * (kind == "x") + 0.1 * rng.standard_normal(50)
    path = folder / "data.csv"
    rows = [[*map(float, x), k, float(t)] for x, k, t in zip(X, kind, y, strict=True)]
    write_csv(path, ["a", "b", "c", "d", "kind", "y"], rows)
    out = folder / "out"
    arguments = ["--target", "y", "--beta", "2", "--test-fraction", "0.3", *QUICK]
    assert main(["train", str(path), *arguments, "--out", str(out)]) == 0
    return path, out, y


def test_report_is_consistent_with_the_model_file(classified):
    path, out, labels = classified
    report = json.loads((out / "report.json").read_text())
    network, prep, metadata = load_model(out)
    X, y = load_rows(out / "training.npz")
    assert prep.classes == ("other", "same") and prep.loss == "logistic" and report["data"]["target"] == "label"
    assert report["num_neurons"] == network.width and report["rule"] == "given" and report["beta"] == 0.5
    value = jaxcvx.training_objective(network, prep.inputs(X), prep.targets(y), 0.5, loss="logistic")
    assert report["upper_bound"] == pytest.approx(float(value), rel=1e-5)  # that one in float32
    assert report["lower_bound"] <= report["upper_bound"] and report["scope"] in ("global", "relaxation")
    assert report["gap"] <= 0.01 and report["certificate"]["gap"] == report["gap"]
    assert metadata["certificate"]["lower"] == report["lower_bound"]
    assert report["beta_fraction"] == pytest.approx(0.5 / report["beta_max"]) and report["betas"][-1] == 0.5
    assert report["folds"] == len(report["cv_scores"]) == 2 and len(report["cv_mean"]) == len(report["betas"])
    assert report["data"]["train_rows"] == 40 and report["test"] is None
    assert sum(neuron["strength"] for neuron in report["neurons"]) == pytest.approx(1.0)
    assert report["proof"][-1][1:] == [report["upper_bound"], report["lower_bound"]]
    assert report["programs"] > 0 and report["seconds"]["total"] > 0


def test_pictures_and_the_page_are_written(classified):
    _, out, _ = classified
    for name in ("path.png", "proof.png", "effects.png", "regions.png"):
        read_picture(out / name)
    html = (out / "report.html").read_text()
    assert html.count("data:image/png;base64,") == 4 and "two-layer ReLU network" in html
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


def test_probabilities_and_a_column_of_names(classified, capsys):
    path, out, labels = classified
    assert main(["predict", str(out), str(path), "--proba", "--id", "a"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    given = list(csv.DictReader(path.read_text().splitlines()))
    assert list(rows[0]) == ["a", "prediction", "probability other", "probability same"]
    assert [row["a"] for row in rows] == [row["a"] for row in given]
    for row in rows:
        other, same = float(row["probability other"]), float(row["probability same"])
        assert other + same == pytest.approx(1.0) and row["prediction"] == ("same" if same > other else "other")


def test_certify_knows_its_training_rows_and_others(classified, capsys, tmp_path):
    path, out, _ = classified
    report = json.loads((out / "report.json").read_text())
    for arguments in ([], [str(path)]):
        assert main(["certify", str(out), *arguments, "--seconds", "0", "--json"]) == 0
        numbers = json.loads(capsys.readouterr().out)
        assert numbers["training_data"] and numbers["rows"] == 40
        assert numbers["lower"] == report["lower_bound"] and numbers["upper"] == report["upper_bound"]
    other = tmp_path / "other.csv"
    other.write_text("".join(path.read_text().splitlines(keepends=True)[:20]))
    assert main(["certify", str(out), str(other), "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert not numbers["training_data"] and "gap" not in numbers and 0 <= numbers["metrics"]["accuracy"] <= 1
    assert main(["certify", str(out), str(other)]) == 0
    assert "another data set" in capsys.readouterr().out
    assert main(["certify", str(out), str(other), "--as-training-data", "--seconds", "5", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["lower"] <= numbers["upper"] and numbers["rows"] == 19


def test_certify_goes_on_with_the_proof(classified, capsys):
    _, out, _ = classified
    before = json.loads((out / "report.json").read_text())
    assert main(["certify", str(out), "--seconds", "10", "--tol", "1e-4", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert before["lower_bound"] <= numbers["lower"] <= numbers["upper"] and numbers["gap"] <= before["gap"]


def test_regression_predicts_in_the_targets_units(regressed, capsys):
    path, out, y = regressed
    report = json.loads((out / "report.json").read_text())
    assert report["loss"] == "squared" and report["scoring"] == "r2" and report["data"]["test_rows"] == 15
    assert set(report["test"]) == {"rmse", "r2"} and report["test"]["r2"] > 0.5
    assert report["gap"] < 0.1
    capsys.readouterr()
    assert main(["predict", str(out), str(path), "--json"]) == 0
    got = np.array(json.loads(capsys.readouterr().out)["prediction"])
    assert np.sqrt(np.mean((got - y) ** 2)) < 0.5 * y.std()
    assert main(["predict", str(out), str(path), "--proba"]) == 2
    assert "--proba" in capsys.readouterr().err


def test_phases_are_told_where_there_is_no_terminal(tmp_path, capsys):
    rng = np.random.default_rng(2)
    X = rng.standard_normal((30, 2))
    write_csv(tmp_path / "d.csv", ["a", "b", "c"], np.c_[X, np.abs(X[:, 0])].tolist())
    arguments = [str(tmp_path / "d.csv"), "--beta", "0.5", "--folds", "2", "--prove", "0", "--out", str(tmp_path)]
    assert main(["train", *arguments]) == 0
    shown = capsys.readouterr()
    assert [line.split(":")[1] for line in shown.err.splitlines() if "..." not in line] == [
        " reading",
        " training one beta on all rows and in folds",
        " drawing and writing",
    ]
    assert "Nothing is proved" in shown.out and "target 'c'" in shown.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["lower_bound"] is None and report["gap"] is None and report["proof"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "nothing.csv", "--target", "y", "--out", "o"], "nothing.csv"),
        (["train", "mnist", "--out", "o"], "digits"),
        (["train", "{data}", "--target", "z", "--out", "o"], "label"),
        (["train", "{data}", "--target", "label", "--beta", "-1", "--out", "o"], "--beta"),
        (["train", "{data}", "--target", "label", "--beta", "much", "--out", "o"], "--beta"),
        (["train", "{data}", "--target", "label", "--beta", "0", "--out", "o"], "--beta"),
        (["train", "{data}", "--target", "label", "--folds", "1", "--out", "o"], "--folds"),
        (["train", "{data}", "--target", "label", "--prove", "-1", "--out", "o"], "--prove"),
        (["train", "{data}", "--target", "label", "--tol", "2", "--out", "o"], "--tol"),
        (["train", "{data}", "--target", "a", "--loss", "softmax", "--out", "o"], "--loss"),
        (["certify", "{data}", "--seconds", "nan"], "--seconds"),
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


def test_missing_cells_are_refused_on_demand(tmp_path, capsys):
    path = tmp_path / "holes.csv"
    write_csv(path, ["a", "b", "y"], [[1, 2, 0.1], [3, "", 0.2], [5, "NA", 0.3], ["", 8, 0.45], [9, 1, 0.5]])
    assert main(["train", str(path), "--target", "y", "--missing", "error", "--out", str(tmp_path / "o")]) == 2
    message = capsys.readouterr().err
    assert "3 cells of 2 columns" in message and "line 5), column 'a'" in message and "line 3), column 'b'" in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--decimal", "ab"], "--decimal: got 'ab'"),
        (["--decimal", ",", "--thousands", ","], "another mark"),
        (["--drop", "zzz"], "--drop: data.csv has no column 'zzz'"),
        (["--drop", "a", "b"], "no feature column is left"),
        (["--na", "x", "-", "--drop", "a", "--keep", "a"], "--keep: got 'a'"),
        (["--datetime", "a"], "not a date"),
    ],
)
def test_bad_options_of_the_reader(arguments, words, classified, capsys, tmp_path):
    assert main(["train", str(classified[0]), "--target", "label", *arguments, "--out", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_rows_with_holes_are_predicted_and_counted(tmp_path, capsys):
    """The preparation travels in the model: medians, indicators, dates, an identifier and a decimal comma."""
    rng = np.random.default_rng(0)
    lines = ["id;when;size;kind;y"]
    for i in range(24):
        size = "" if i == 7 else f"{rng.normal():.3f}"
        lines.append(f"k{i};{1 + i}/2/2024;{size};{'ab'[i % 2]};{i % 2 + rng.normal():.2f}".replace(".", ","))
    path = tmp_path / "data.csv"
    path.write_text("\n".join(lines))
    options = ["--beta", "0.5", "--folds", "2", "--prove", "0", "--quiet", "--decimal", ","]
    assert main(["train", str(path), "--target", "y", *options, "--out", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    told = "\n".join(report["data"]["preparation"])
    assert "'id': left out as an identifier" in told and "1 missing cell became the median" in told
    new = tmp_path / "new.csv"
    new.write_text("kind;size;when\na;;3/2/2024\nb;1,5;\n;2,0;9/2/2024\n")
    assert main(["predict", str(tmp_path), str(new), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["prediction"]) == 3
    assert found["notes"] == [
        "new.csv: 3 missing cells in 3 of 3 rows filled as in training: columns: 'when', 'size', 'kind'."
    ]
    assert main(["predict", str(tmp_path), str(new)]) == 0
    assert "3 missing cells" in capsys.readouterr().err


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
