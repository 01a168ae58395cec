"""Time to a given accuracy against every peer: pyscnn, celer, skglm, Clarabel, SCS.

Our time is the time of ``solve`` to a certified relative gap. It includes the certificate and the network. A peer's
time is read from its own clock. It is the time to a relative error of the objective that only we can check: against a
certified optimum, at the weights that the peer returns. pyscnn's R-FISTA is rerun without metrics up to the iteration
where its own curve reaches the accuracy. All solvers run in turns; compilation is not counted. pyscnn
runs in ``.venv-pyscnn`` (``make bench`` makes it). Peers that are not installed are left out, for example on another
device, where only our own times matter.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import device_name, planted_instance, print_table, seconds_of, versions

FOLDER = pathlib.Path(__file__).parent
PYSCNN = FOLDER.parent / ".venv-pyscnn" / "bin" / "python"
LIMIT = 900.0  # seconds for one run of a peer
_SCS_LIMIT = 60.0  # it returns what it has by then
_SLOW = 8.0  # seconds beyond which a peer runs once


class Case(NamedTuple):
    """One comparison."""

    name: str
    kind: str  # "gated" or "relu"
    data: Callable[[], Any]  # -> (X, Y (n, c), gates)
    fraction: float  # beta / gated beta_max
    tol: float  # our gap, and the peers' relative error
    peers: tuple[str, ...]
    repeats: int = 5


def planted(n: int, d: int, P: int) -> Callable[[], Any]:
    """Data of the planted instance."""

    def data() -> Any:
        instance = planted_instance(n, d, P)
        return instance.X, instance.y[:, None], instance.gates

    return data


def _standardised(X: np.ndarray) -> np.ndarray:
    size = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(size > 0, size, 1.0)


def breast_cancer() -> Any:
    """569 samples, 30 columns, 100 gates."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    y = _standardised(data.target[:, None].astype(float))
    return _standardised(data.data), y, np.random.default_rng(0).standard_normal((100, 30))


def digits() -> Any:
    """1797 samples, 64 columns, 10 outputs, 500 gates."""
    from sklearn.datasets import load_digits

    data = load_digits()
    Y = np.eye(10)[data.target]
    gates = np.random.default_rng(0).standard_normal((500, 64))
    return _standardised(data.data), Y - Y.mean(axis=0), gates


ALL = ("pyscnn", "celer", "skglm", "CLARABEL", "SCS")
CASES = (
    Case("gated (1000, 50, 100), 0.05", "gated", planted(1000, 50, 100), 0.05, 1e-6, ALL),
    Case("gated (1000, 50, 100), 0.01", "gated", planted(1000, 50, 100), 0.01, 1e-6, ALL),
    Case("gated breast cancer, 0.05", "gated", breast_cancer, 0.05, 1e-6, ALL),
    Case("gated (5000, 100, 500), 0.05", "gated", planted(5000, 100, 500), 0.05, 1e-6, ("pyscnn",)),
    Case("gated (5000, 100, 500), 0.01", "gated", planted(5000, 100, 500), 0.01, 1e-6, ("pyscnn",), 2),
    Case("gated digits, c = 10, P = 500", "gated", digits, 0.05, 1e-4, ("pyscnn",), 3),
    Case("cone (400, 20, 50)", "relu", planted(400, 20, 50), 0.05, 1e-5, ("pyscnn", "CLARABEL", "SCS")),
    Case("cone breast cancer, P = 100", "relu", breast_cancer, 0.05, 1e-5, ("pyscnn", "CLARABEL", "SCS")),
    Case("cone (2000, 50, 200)", "relu", planted(2000, 50, 200), 0.05, 1e-5, ("CLARABEL",), 2),
)


def installed(peer: str) -> bool:
    """True if a peer can be run here."""
    if peer == "pyscnn":
        return PYSCNN.exists()
    needed = ("cvxpy", peer.lower()) if peer in ("CLARABEL", "SCS") else (peer,)
    return all(importlib.util.find_spec(package) is not None for package in needed)


def objective(X: Any, Y: Any, masks: Any, blocks: list[Any], beta: float, groups: str) -> float:
    """Compute the value of the program in plain numpy. Blocks are (P, d, c): one array (gated), or two (V and W)."""
    signs = (1.0, -1.0)
    fit = sum(
        sign * np.einsum("pn,npc->nc", masks, np.einsum("nd,pdc->npc", X, W))
        for sign, W in zip(signs, blocks, strict=False)
    )
    axes = (1, 2) if groups == "frobenius" else 1
    penalty = sum(np.sqrt((W**2).sum(axis=axes)).sum() for W in blocks)
    return float(0.5 * np.sum((fit - Y) ** 2) + beta * penalty)


def violation(X: Any, masks: Any, blocks: list[Any]) -> float:
    """Largest violated cone constraint relative to the row and the largest block; 0 for gated weights."""
    if len(blocks) < 2:
        return 0.0
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    slack = [np.einsum("nd,pdc->pnc", unit, W) * (2.0 * masks - 1)[:, :, None] for W in blocks]
    return float(max(0.0, *(-s.min() for s in slack)) / max(np.abs(W).max() for W in blocks))


def run_worker(python: Any, script: str, timeout: float, **task: Any) -> dict[str, Any] | None:
    """Run a script of ``workers/`` with a task in a file. Return its answer, empty if it is late, None if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/task.npz", f"{folder}/answer.npz"]
        np.savez(paths[0], **task)
        command = [str(python), str(FOLDER / "workers" / script), *paths]
        try:
            subprocess.run(command, check=True, timeout=timeout, capture_output=True)
        except subprocess.TimeoutExpired:
            return {}
        except subprocess.CalledProcessError:
            return None
        return dict(np.load(paths[1]))


class Peer:
    """A peer on one case: ``prepare`` finds its settings, ``run`` returns its seconds."""

    def __init__(self, name: str, case: Case, X: Any, Y: Any, gates: Any, beta: float) -> None:
        self.name, self.case, self.X, self.Y, self.gates, self.beta = name, case, X, Y, gates, beta
        self.masks = (gates @ X.T) >= 0
        self.found: dict[str, Any] = {}

    def prepare(self, optimum: float) -> bool:
        """Find settings with which the peer reaches the accuracy. Return False if there are none."""
        self.optimum = optimum
        if self.name == "pyscnn":
            return self._prepare_pyscnn()
        if self.name in ("celer", "skglm"):
            n, d = self.X.shape
            A = np.concatenate([mask[:, None] * self.X for mask in self.masks], axis=1)
            self.A = np.asfortranarray(A)
        for tol in (1e-4, 1e-6, 1e-8, 1e-10):
            self.tol = tol
            seconds = self.run()
            if seconds is None:
                return False
            if self.found["error"] <= self.case.tol:
                return True
            if seconds > _SCS_LIMIT:
                return False
        return False

    def run(self) -> float | None:
        """Seconds of one run; None if it did not end."""
        if self.name == "pyscnn":
            return self._run_pyscnn(False)
        return self._run_group_lasso() if self.name in ("celer", "skglm") else self._run_cvxpy()

    def _judge(self, blocks: list[Any], masks: Any = None) -> None:
        masks = self.masks if masks is None else masks
        groups = "columns" if self.Y.shape[1] > 1 else "frobenius"
        value = objective(self.X, self.Y, masks, blocks, self.beta, groups)
        error = (value - self.optimum) / self.optimum
        self.found = {"error": error, "violation": violation(self.X, masks, blocks), "settings": self._settings()}

    def _gone(self, answer: dict[str, Any] | None) -> None:
        """Record why there is no answer: the peer had not ended after so many seconds, or it failed."""
        self.found = {"failed": True} if answer is None else {"late": LIMIT, "settings": self._settings()}

    def _settings(self) -> dict[str, Any]:
        return {"max_iters": self.max_iters} if self.name == "pyscnn" else {"tol": self.tol}

    def _prepare_pyscnn(self) -> bool:
        self.max_iters = 4000 if self.case.kind == "relu" else 1500
        if self._run_pyscnn(True) is None:
            return False
        if self.case.kind == "relu":
            return self.found["error"] <= self.case.tol and self.found["violation"] <= 1e-6
        close = (self.curve - self.optimum) / self.optimum <= self.case.tol
        if not close.any():
            return False
        self.max_iters = int(np.argmax(close))
        return True

    def _run_pyscnn(self, curve: bool) -> float | None:
        answer = run_worker(
            PYSCNN, "pyscnn.py", LIMIT, X=self.X, Y=self.Y, gates=self.gates, beta=self.beta, kind=self.case.kind,
            tol=1e-12, max_iters=self.max_iters, curve=curve, dtype="float64",
        )  # fmt: skip
        if not answer:
            return self._gone(answer)
        self.curve = answer.get("objectives", np.zeros(0))
        weights = [np.moveaxis(answer[key], 0, 2) for key in ("weights_0", "weights_1") if key in answer]
        self._judge(weights, (answer["gates"] @ self.X.T) >= 0)
        return float(answer["seconds"])

    def _run_group_lasso(self) -> float | None:
        n, d = self.X.shape
        y = self.Y[:, 0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.name == "celer":
                import celer

                model = celer.GroupLasso(groups=d, alpha=self.beta / n, fit_intercept=False, tol=self.tol)
            else:
                import skglm

                model = skglm.GroupLasso(groups=d, alpha=self.beta / n, fit_intercept=False, tol=self.tol)
            begin = time.perf_counter()
            model.fit(self.A, y)
            seconds = time.perf_counter() - begin
        self._judge([np.asarray(model.coef_).reshape(-1, d, 1)])
        return seconds

    def _run_cvxpy(self) -> float | None:
        options: dict[str, Any] = {"tol_gap_rel": self.tol} if self.name == "CLARABEL" else {}
        if self.name == "SCS":
            options = {"eps_abs": self.tol, "eps_rel": self.tol, "time_limit_secs": _SCS_LIMIT, "max_iters": 10**6}
        answer = run_worker(
            sys.executable, "convex.py", LIMIT, X=self.X, y=self.Y[:, 0], masks=self.masks, beta=self.beta,
            kind=self.case.kind, solver=self.name, options=json.dumps(options),
        )  # fmt: skip
        if not answer:
            return self._gone(answer)
        self._judge([answer[key][:, :, None] for key in ("weights_0", "weights_1") if key in answer])
        return float(answer["seconds"])


def compare(case: Case, quick: bool) -> dict[str, Any]:
    """Time one case."""
    import jax
    import jax.numpy as jnp

    import jaxcvx

    X, Y, gates = case.data()
    masks = (gates @ X.T) >= 0
    first = np.sort(np.unique(masks, axis=0, return_index=True)[1])
    masks, gates = masks[first], gates[first]
    pull = np.einsum("pn,nd,nc->pdc", masks, X, Y, optimize=True)
    per_output = Y.shape[1] > 1
    largest = np.linalg.norm(pull, axis=(1, 2)).max()
    beta = case.fraction * largest
    cells = jaxcvx.Arrangements(jnp.asarray(masks), jnp.asarray(gates))
    problem = jaxcvx.make_problem(X, Y, beta, arrangements=cells)
    kind: Any = jaxcvx.ProximalGradient if case.kind == "gated" else jaxcvx.ConeADMM
    ours = lambda: jaxcvx.solve(problem, kind(tol=case.tol))  # noqa: E731
    compiling, solution = seconds_of(ours)

    names = [name for name in case.peers if installed(name)]
    peer_beta = beta
    optimum = None
    if names and per_output:  # pyscnn has a group for each cell and output: another program, the same share of beta_max
        peer_beta = case.fraction * np.linalg.norm(pull, axis=1).max()
        parts = [jaxcvx.make_problem(X, Y[:, k], peer_beta, arrangements=cells) for k in range(Y.shape[1])]
        optimum = sum(float(jaxcvx.solve(p, kind(tol=1e-8)).objective) for p in parts)
    elif names:
        optimum = float(jaxcvx.solve(problem, kind(tol=1e-10)).objective)
    peers = []
    for name in names:
        peer = Peer(name, case, X, Y, gates, peer_beta)
        able = peer.prepare(optimum)
        print(f"  {name}: {'' if able else 'did not get there; '}{peer.found}", file=sys.stderr, flush=True)
        peers.append((peer, able))
    times: dict[str, list[float]] = {"jaxcvx": []}
    for k in range(1 if quick else case.repeats):
        times["jaxcvx"].append(seconds_of(ours)[0])
        for peer, able in peers:
            if able and (k == 0 or times[peer.name][0] < _SLOW):
                times.setdefault(peer.name, []).append(peer.run() or float("inf"))
    mine = statistics.median(times["jaxcvx"])
    return {
        "case": case.name,
        "tol": case.tol,
        "beta_over_beta_max": case.fraction,
        "optimum": optimum,
        "jaxcvx": {
            "seconds": times["jaxcvx"],
            "median": mine,
            "compile": compiling - mine,
            "objective": float(solution.objective),
            "program_gap": float(solution.program_gap),
            "steps": int(solution.num_steps),
            "status": jaxcvx.Status(int(solution.status)).name,
            "device": jax.default_backend(),
        },
        "peers": {
            peer.name: {
                "reached": able,
                **peer.found,
                **({"seconds": times[peer.name], "median": statistics.median(times[peer.name])} if able else {}),
                **({"ratio": statistics.median(times[peer.name]) / mine} if able else {}),
                **({"ratio_at_least": LIMIT / mine} if "late" in peer.found else {}),
            }
            for peer, able in peers
        },
    }


def run(quick: bool = False, *, cases: tuple[Case, ...] = CASES) -> dict[str, Any]:
    """All comparisons; ``quick``: the third case only, once."""
    import jax

    found = []
    with jax.enable_x64(True):
        for case in cases[2:3] if quick else cases:
            print(case.name, file=sys.stderr, flush=True)
            found.append(compare(case, quick))
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)  # a long run may be cut off
    return {
        "benchmark": "peers",
        "versions": versions("jaxcvx", "jax", "jaxlib", "celer", "skglm", "cvxpy", "clarabel", "scs"),
        "device": device_name(),
        "dtype": "float64",
        "cases": found,
    }


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    rows = []
    for case in result["cases"]:
        own = case["jaxcvx"]
        rows.append((case["case"], "jaxcvx", f"{own['median']:.3f}", f"gap {own['program_gap']:.0e}", ""))
        for name, peer in case["peers"].items():
            error = f"error {peer['error']:.0e}" if "error" in peer else "no answer"
            error += f", violation {peer['violation']:.0e}" if peer.get("violation") else ""
            seconds, ratio = (f"{peer['median']:.3f}", f"{peer['ratio']:.1f}") if peer["reached"] else ("-", "-")
            if "late" in peer:
                seconds, ratio = f"> {peer['late']:.0f}", f"> {peer['ratio_at_least']:.1f}"
            rows.append(("", name, seconds, error, ratio))
    print_table("Time to the same accuracy", ("case", "", "median s", "reached", "ratio"), rows)
