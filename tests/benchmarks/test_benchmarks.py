"""The benchmarks run on tiny sizes and judge answers correctly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    common,
    copositive_vs_scs,
    gated_vs_celer,
    gated_vs_fista,
    memory,
    peers,
    plots,
    scaling,
    training,
)

TINY = (60, 4, 8)


@pytest.fixture(scope="module")
def fista() -> dict[str, Any]:
    return gated_vs_fista.run(quick=True, size=TINY, fractions=(0.1,))


def test_instance() -> None:
    a, b = common.planted_instance(*TINY), common.planted_instance(*TINY)
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    np.testing.assert_allclose([a.X.mean(axis=0), a.X.std(axis=0)], [[0] * 4, [1] * 4], atol=1e-12)
    assert a.y.mean() == pytest.approx(0, abs=1e-12) and a.y.std() == pytest.approx(1)
    np.testing.assert_array_equal(a.masks, (a.gates @ a.X.T) >= 0)
    with jax.enable_x64(True):
        assert float(common.make_problem(a, 1.0).beta_max()) == pytest.approx(a.beta_max, rel=1e-12)


def test_explicit_matrix_is_the_same_problem() -> None:
    instance = common.planted_instance(*TINY)
    A = gated_vs_celer.explicit_matrix(instance)
    assert A.flags.f_contiguous
    W = np.random.default_rng(0).standard_normal((len(instance.masks), 4))
    R = A @ W.reshape(-1) - instance.y
    objective = 0.5 * R @ R + 0.3 * np.linalg.norm(W, axis=1).sum()
    assert common.judge(instance, W, 0.3)[0] == pytest.approx(objective, rel=1e-12)


def test_zero_is_optimal_at_beta_max() -> None:
    instance = common.planted_instance(*TINY)
    objective, bound = common.judge(instance, np.zeros((len(instance.masks), 4)), instance.beta_max)
    assert objective == pytest.approx(bound, rel=1e-12)


@pytest.mark.long
def test_fista(fista: dict[str, Any]) -> None:
    cases = {case["method"]: case for case in fista["cases"]}
    assert len(cases) == 5
    for case in cases.values():
        assert -1e-12 <= case["true_gap"] <= 2e-6
        assert case["true_gap"] <= case["own_gap"] + 1e-12
        assert 0 < case["seconds"]["min"] <= case["seconds"]["median"] <= case["seconds"]["max"]
    assert cases["plain FISTA"]["own_gap"] <= 1e-6 and cases["FISTA with restarts"]["own_gap"] <= 1e-6


def test_celer() -> None:
    pytest.importorskip("celer")
    result = gated_vs_celer.run(quick=True, size=TINY, fraction=0.1)
    assert result["jaxcvx_status"] == "CONVERGED" and result["jaxcvx_program_gap"] <= 1e-8
    answers = result["answers"]
    assert answers["jaxcvx"]["true_gap"] <= 1.1e-8 and answers["celer"]["true_gap"] <= 1e-3
    assert answers["celer"]["objective"] == pytest.approx(answers["jaxcvx"]["objective"], rel=1e-3)
    gated_vs_celer.show(result)


@pytest.mark.long
def test_scs() -> None:
    pytest.importorskip("scs")
    result = copositive_vs_scs.run(quick=True, num_per_arm=4, betas=(0.1,), tols=(1e-6,), seconds=5.0)
    (case,) = result["cases"]
    assert case["optimum"] == pytest.approx(4.15796025, abs=1e-7) and case["optimum_gap"] <= 1e-8
    (ours,), theirs = case["jaxcvx"], case["scs"]
    assert ours["status"] == "CONVERGED" and ours["infeasibility"] <= 1e-12
    assert ours["error"] <= 1e-6 and 0 <= ours["certified_gap"] <= 2e-6
    assert [row["eps"] for row in theirs] == [1e-2, 1e-3]
    assert all(row["error"] <= 0.05 and 0 <= row["certified_gap"] <= 0.2 for row in theirs)
    assert theirs[0]["matched_tol"] == 1e-6 and theirs[0]["scs_over_jaxcvx"] > 0
    copositive_vs_scs.show(result)


def test_table_and_json(
    fista: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(gated_vs_fista, "run", lambda quick: fista)
    assert command.main(["gated_vs_fista", "--quick", "--out", str(tmp_path / "new")]) == 0
    assert "FISTA with restarts" in capsys.readouterr().out
    (file,) = (tmp_path / "new").iterdir()
    assert json.loads(file.read_text()) == fista


def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def run(quick: bool) -> dict[str, Any]:
        raise ImportError("No module named 'celer'")

    monkeypatch.setattr(gated_vs_celer, "run", run)
    assert command.main(["gated_vs_celer", "--out", str(tmp_path)]) == 2
    assert "[bench]" in capsys.readouterr().err


def test_unknown_name(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["nothing"])
    assert caught.value.code == 2
    assert "gated_vs_celer" in capsys.readouterr().err


def tiny_data() -> Any:
    instance = common.planted_instance(*TINY)
    return instance.X, instance.y[:, None], instance.gates


@pytest.mark.routine(1)
@pytest.mark.parametrize("kind", ["gated", "relu"])
def test_peers(kind: str) -> None:
    with jax.enable_x64(True):
        result = peers.compare(peers.Case("tiny", kind, tiny_data, 0.1, 1e-6, ("CLARABEL",), 1), quick=True)
    assert result["jaxcvx"]["status"] == "CONVERGED" and result["jaxcvx"]["program_gap"] <= 1e-6
    peer = result["peers"]["CLARABEL"]
    assert peer["reached"] and -1e-7 <= peer["error"] <= 1e-6 and peer["violation"] < 1e-6
    assert peer["ratio"] == pytest.approx(peer["median"] / result["jaxcvx"]["median"])


def test_a_peer_that_does_not_end_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "LIMIT", 0.05)
    with jax.enable_x64(True):
        result = peers.compare(peers.Case("tiny", "gated", tiny_data, 0.1, 1e-6, ("CLARABEL",), 1), quick=True)
    peer = result["peers"]["CLARABEL"]
    assert not peer["reached"] and peer["late"] == 0.05
    assert peer["ratio_at_least"] == pytest.approx(0.05 / result["jaxcvx"]["median"])
    peers.show({"cases": [result]})
    assert "no answer" in capsys.readouterr().out


def test_peers_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peers.installed("CLARABEL") and peers.installed("pyscnn") == peers.PYSCNN.exists()
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    with jax.enable_x64(True):
        result = peers.compare(peers.Case("tiny", "gated", tiny_data, 0.1, 1e-6, ("CLARABEL", "celer"), 1), quick=True)
    assert result["peers"] == {} and result["jaxcvx"]["program_gap"] <= 1e-6
    peers.show({"cases": [result]})


def test_objective_and_violation_of_peer_solutions() -> None:
    X, Y, gates = tiny_data()
    masks = (gates @ X.T) >= 0
    W = np.random.default_rng(0).standard_normal((len(gates), X.shape[1], 1))
    value, _ = common.judge(common.planted_instance(*TINY), W[:, :, 0], 0.3)
    assert peers.objective(X, Y, masks, [W], 0.3, "frobenius") == pytest.approx(value, rel=1e-12)
    inside = gates[:, :, None]
    assert peers.violation(X, masks, [inside, inside]) == 0.0
    assert peers.violation(X, masks, [inside, -inside]) > 0.1
    assert peers.violation(X, masks, [-inside]) == 0.0  # gated weights have no cone constraints


def test_scaling() -> None:
    assert scaling.slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    result = scaling.run(quick=True, ranges={"n": (8000, 16000)})
    assert result["curves"]["n"]["memory_slope"] == pytest.approx(1, abs=0.1)
    scaling.show(result)


def test_pyscnn_weights_give_a_network_with_the_same_objective() -> None:
    """If the blocks lie inside their cells, the program's value is the training objective, one group per output."""
    rng = np.random.default_rng(0)
    X, Y, gates = rng.standard_normal((30, 3)), rng.standard_normal((30, 2)), rng.standard_normal((5, 3))
    masks = gates @ X.T >= 0
    blocks = [np.abs(rng.standard_normal((2, 5, 1))) * gates for _ in range(2)]
    value = peers.objective(X, Y, masks, [np.moveaxis(b, 0, 2) for b in blocks], 0.3, "columns")
    with jax.enable_x64(True):
        network = training._network_of({"weights_0": blocks[0], "weights_1": blocks[1]})
        assert training.Opponents(X, Y, 0.3).objective(network) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("data", training.PROBLEMS.values(), ids=training.PROBLEMS)
def test_problems_of_the_training_benchmark(data: Any) -> None:
    X, Y = data()
    assert 300 <= len(X) <= 5000 and len(X) == len(Y) and np.isfinite(X).all() and np.isfinite(Y).all()
    assert 0.5 < np.std(Y) < 1.5


@pytest.mark.long
def test_training_at_equal_time() -> None:
    with jax.enable_x64(True):
        row = training.compare("tiny", lambda: (tiny_data()[0], tiny_data()[1]), 1.0)
    assert row["jaxcvx"]["objective"] <= row["adam"]["objective"] * (1 + 1e-6)
    assert row["jaxcvx"]["objective"] <= row["cone"]["objective"] and row["adam"]["seconds"] >= 1.0
    training.show({"problems": [row]})


@pytest.mark.long
def test_predicted_memory() -> None:
    result = memory.run(grid=(("ProximalGradient", (60_000, 100, 256, 1), "float32", 2**30),))
    (case,) = result["cases"]
    assert 1 / 1.5 < case["ratio"] < 1.5
    memory.show(result)


def test_pictures_of_the_records(tmp_path: Path) -> None:
    records = Path(peers.FOLDER) / "results"
    plots.main(["--results", str(records), "--out", str(tmp_path)])
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {f"benchmark-{name}.png" for name in plots.FIGURES if (records / f"{name}.json").exists()}
    assert "benchmark-peers.png" in written
