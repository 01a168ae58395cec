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
    options = ["--beta", "0.5", "--width", "4", "--cells", "10", "--tol", "0.1", "--decimal", ","]
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
