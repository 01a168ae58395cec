"""pyscnn in an environment of its own: ``python pyscnn.py TASK.npz ANSWER.npz``.

The task holds X, Y, gates (P, d), beta, kind ("gated" or "relu"), tol, max_iters, curve (bool). Its objective is ours
divided by n c, so lambda is beta / (n c). Every iteration logs its metrics whatever ``metric_freq`` says, so times are
taken from a run that logs nothing but the time; the objective's curve comes from another one.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from scnn.metrics import Metrics
from scnn.models import ConvexGatedReLU, ConvexReLU
from scnn.optimize import optimize_model
from scnn.regularizers import NeuronGL1
from scnn.solvers import AL, RFISTA


def main(task_path: str, answer_path: str) -> None:
    """Solve one task."""
    task = np.load(task_path)
    X, Y, gates, kind = task["X"], task["Y"], task["gates"], str(task["kind"])
    n, c = Y.shape
    tol, max_iters, curve = float(task["tol"]), int(task["max_iters"]), bool(task["curve"])
    if kind == "gated":
        model = ConvexGatedReLU(gates.T.copy(), c=c)
        solver = RFISTA(model, max_iters=max_iters, tol=tol)
    else:
        model = ConvexReLU(gates.T.copy(), c=c)
        solver = AL(model, max_primal_iters=max_iters, tol=tol, constraint_tol=tol)
    metrics = Metrics(
        metric_freq=1, objective=curve, grad_norm=False, time=True, constraint_gaps=curve and kind == "relu"
    )
    begin = time.perf_counter()
    fitted, metrics = optimize_model(
        model,
        solver,
        metrics,
        X,
        Y,
        regularizer=NeuronGL1(float(task["beta"]) / (n * c)),
        return_convex=True,
        unitize_data=False,
        dtype=str(task["dtype"]),
    )
    answer = {"seconds": time.perf_counter() - begin, "times": np.asarray(metrics.time)}
    if curve:
        answer["objectives"] = np.asarray(metrics.objective) * (n * c)
    for k, weights in enumerate(fitted.get_parameters()):
        answer[f"weights_{k}"] = np.asarray(weights)
    np.savez(answer_path, **answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
