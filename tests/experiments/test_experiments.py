"""Every experiment runs on a small size, and its results satisfy the relations that the paper claims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import __main__ as command
from tests.helpers import read_picture

pytestmark = pytest.mark.long


def result_of(name: str, folder: Path) -> dict[str, Any]:
    assert command.main([name, "--quick", "--out", str(folder)]) == 0
    read_picture(folder / f"{name}.png")
    result = json.loads((folder / f"{name}.json").read_text())
    assert result["experiment"] == name and result["quick"] and {"jax", "numpy"} <= set(result["versions"])
    return result


def test_spiral(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (case,) = result_of("spiral", tmp_path)["cases"]
    methods = case["methods"]
    exact = methods["column generation"]
    assert exact["upper_bound"] == pytest.approx(4.157960, abs=2e-6) and exact["gap"] < 1e-8
    assert methods["gated nuclear norm"]["objective"] == pytest.approx(3.866766, abs=2e-6)
    assert methods["copositive relaxation"]["objective"] == pytest.approx(exact["upper_bound"], rel=1e-7)
    others = [methods["Frank-Wolfe"]["upper_bound"], *(v for a in case["adam"] for v in a["objectives"])]
    assert len(others) == 11 and min(others) >= exact["lower_bound"]
    assert min(case["adam"][0]["objectives"]) > 1.00001 * exact["upper_bound"]  # five neurons get stuck
    assert "copositive relaxation" in capsys.readouterr().out


def test_planted(tmp_path: Path) -> None:
    result = result_of("planted", tmp_path)
    assert result["exact"]["gap"] < 1e-8
    assert min(result["adam"]["objectives"]) > result["exact"]["lower_bound"]
    for walk in result["frank_wolfe"].values():
        k, excess, certified = (np.array(walk[key][1:]) for key in ("k", "excess", "certified"))
        assert k[-1] == result["settings"]["frank_wolfe_steps"]
        assert (excess > -1e-6).all() and (excess <= certified).all()
        assert (excess <= 2 * result["rate_constant"] / (k + 2)).all()
        assert excess[-1] < 0.1 * excess[0]


def test_whitened(tmp_path: Path) -> None:
    result = result_of("whitened", tmp_path)
    assert result["whitening"]["error"] < 1e-10
    (case,) = result["cases"]
    closed = case["closed"]
    assert closed["scope"] == "global" and closed["gap"] < 1e-10 and closed["width"] == 10
    assert closed["upper_bound"] == pytest.approx(case["formula"], rel=1e-10)
    assert case["formula"] <= case["adam"]["objective"] <= 1.01 * case["formula"]
    assert closed["accuracy"] > 0.7


def test_convolution(tmp_path: Path) -> None:
    result = result_of("convolution", tmp_path)
    assert {c["vary"] for c in result["counts"]} == {"images", "size"}
    assert all(c["cells"] == c["formula"] for c in result["counts"])
    assert result["exponents"]["2"] == pytest.approx(1) and result["exponents"]["3"] == pytest.approx(2, abs=0.1)
    (net,) = result["networks"]
    assert net["scope"] == "global" and net["gap"] <= 1e-6
    assert min(net["adam"][0]["objectives"]) >= net["lower_bound"]


def test_exactness(tmp_path: Path) -> None:
    result = result_of("exactness", tmp_path)
    assert len(result["cases"]) == 2
    for case in result["cases"]:
        assert case["exact_gap"] < 1e-8 and case["relaxation_gap"] < 1e-6
        assert case["difference"] > -1e-6  # a lower bound, to the tolerances
        assert case["is_exact"] == (case["difference"] < 1e-5)
    assert sum(row["instances"] for row in result["summary"]["facets"]) == 2


def test_cost(tmp_path: Path) -> None:
    result = result_of("cost", tmp_path)
    for case in result["by_rank"] + result["by_samples"]["2"]:
        assert case["gap"] <= 1e-6 and case["faces"] >= case["cells"] and case["seconds"] > 0
    assert [c["cells"] for c in result["by_rank"]] == [16, 58]
    assert result["exponents"]["2"]["cells"] == pytest.approx(1)


def test_annealed_noise(tmp_path: Path) -> None:
    table = result_of("annealed_noise", tmp_path)["table"]
    (plain,), (annealed,), (still,) = (table[k] for k in ("gradient descent", "annealed", "no noise on w"))
    assert annealed["rate"] >= 0.9 and annealed["rate"] > max(plain["rate"], still["rate"]) + 0.1
    assert plain["trapped"] == pytest.approx(1 - plain["rate"], abs=0.01)
    assert all(cell["agrees"] for cell in (plain, annealed, still))


def test_shortest_path(tmp_path: Path) -> None:
    result = result_of("shortest_path", tmp_path)
    assert len(result["cases"]) == 7
    for case in result["cases"]:
        assert all(bound["holds"] for bound in case["bounds"].values())
        assert 1 <= case["ratio"] <= 1.3 and case["upper"] <= 1 <= case["lower"]
    (digits,) = result["digits"]
    assert digits["misfit"][-1] < 0.5 and len(digits["distance"]) == 3


def test_unknown_name(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["nothing"])
    assert caught.value.code == 2 and "exactness" in capsys.readouterr().err


def test_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from experiments import cost

    monkeypatch.setattr(cost, "run", lambda quick: {"quick": quick})
    monkeypatch.setattr(cost, "draw", lambda result, path: None)
    assert command.main(["cost", "--json", "--out", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)["cost"]
    assert printed.pop("cpu_seconds") >= 0 and printed == {"quick": False}
