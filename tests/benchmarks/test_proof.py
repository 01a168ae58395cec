"""The benchmark of proofs on a tiny table: its record, its lines, and the derived tables."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import proof, tables


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tables.SOURCES, "tiny", ("jax", "squared", (40, 3, 1)))
    monkeypatch.setattr(proof, "AIMS", {"tiny": {0.3: 1e-2}})
    monkeypatch.setattr(proof, "SECONDS", 20.0)


def test_the_record_holds_a_proof_that_fits_the_judge(tiny, tmp_path, capsys) -> None:
    assert command.main(["proof", "--tables", "tiny", "--out", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "proof.json").read_text())["rows"]
    assert row["gap"] <= row["aim"] == 1e-2 and row["lower"] <= row["upper"] and row["fraction"] == 0.3
    np.testing.assert_allclose(row["gap"], (row["upper"] - row["lower"]) / row["upper"])
    gaps = [gap for _, gap, _ in row["gap over seconds"]]
    assert gaps == sorted(gaps, reverse=True)
    network, beta = proof.trained(tables.load("tiny"), 0.3)
    np.testing.assert_allclose(
        tables.objective(tables.load("tiny"), network.hidden, network.output, beta), row["upper"], rtol=1e-6
    )
    assert "1 of 1 aims reached" in capsys.readouterr().out


def test_derived_tables() -> None:
    X, y = tables.raw("wine_0")
    assert X.shape == (178, 13) and y.sum() == (tables.raw("wine")[1] == 0).sum()
    X, y = tables.raw("breast_cancer_10")
    assert X.shape == (569, 10) and np.allclose(X.T @ X, np.diag(np.diag(X.T @ X)), atol=1e-6)
    assert tables.raw("friedman")[0].shape == (1000, 10)
    assert set(proof.AIMS) <= set(tables.SOURCES | tables.EXTRA)
