"""pyscnn in an environment of its own: ``python pyscnn.py TASK.npz ANSWER.npz``.

The task holds X, Y, gates (P, d), beta, kind ("gated" or "relu"), tol, max_iters, curve, dtype. pyscnn's objective is
ours divided by n c, so lambda is beta / (n c). It logs its metrics in every iteration for every ``metric_freq``.
Therefore set ``curve`` to false for timing. ``seconds`` is its own clock, which starts after its preprocessing.
"""

from __future__ import annotations

import sys

import numpy as np
from scnn.metrics import Metrics
from scnn.models import ConvexGatedReLU, ConvexReLU
from scnn.optimize import optimize_model
from scnn.regularizers import NeuronGL1
from scnn.solvers import AL, RFISTA


def main(task_path: str, answer_path: str) -> None:
    """Solve one task."""
    task = np.load(task_path)
    Y, gates, kind = task["Y"], task["gates"], str(task["kind"])
    n, c = Y.shape
    tol, max_iters, curve = float(task["tol"]), int(task["max_iters"]), bool(task["curve"])
    if kind == "gated":
        model = ConvexGatedReLU(gates.T.copy(), c=c)
        solver = RFISTA(model, max_iters=max_iters, tol=tol)
    else:
        model = ConvexReLU(gates.T.copy(), c=c)
        solver = AL(model, max_primal_iters=max_iters, tol=tol, constraint_tol=tol)
    fitted, metrics = optimize_model(
        model,
        solver,
        Metrics(metric_freq=1, objective=curve, grad_norm=False, time=True),
        task["X"],
        Y,
        regularizer=NeuronGL1(float(task["beta"]) / (n * c)),
        return_convex=True,
        unitize_data=False,
        dtype=str(task["dtype"]),
    )
    answer = {"seconds": np.asarray(metrics.time)[-1], "gates": np.asarray(fitted.G).T}
    if curve:
        answer["objectives"] = np.asarray(metrics.objective) * (n * c)
    for k, weights in enumerate(fitted.get_parameters()):
        answer[f"weights_{k}"] = np.asarray(weights)
    np.savez(answer_path, **answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
