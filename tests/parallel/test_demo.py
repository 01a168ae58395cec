"""Two processes on this machine get the same solution as one device."""

from __future__ import annotations

import json

import jaxcvx
from jaxcvx.parallel import demo


def test_two_processes(capfd):
    assert demo.main(["--processes", "2"]) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    reports = [json.loads(line) for line in lines]
    assert sorted(report["process"] for report in reports) == [0, 1]
    assert len({report["rows"] for report in reports}) == 2
    for report in reports:
        assert report["devices"] == 2 * demo.DEVICES
        assert report["status"] == [jaxcvx.Status.CONVERGED] * 2
        assert report["steps"][0] == report["steps"][1] < 1000
        assert report["objective_difference"] < 1e-10 and report["params_difference"] < 1e-10
        assert report["lower_bound"] <= report["objective"]
