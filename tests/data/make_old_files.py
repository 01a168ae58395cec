"""Write the files of this folder. Run it with the version of jaxcvx whose files are to be kept, not with this one.

    python make_old_files.py FOLDER

Written by jaxcvx 0.1.0 at commit a64216d, before the modules moved into sub-folders. It uses public names only,
except for ``PathBound``.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcvx
from jaxcvx.analysis.shortest_path import PathBound


def data() -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """X (12, 3), Y (12, 1), and the generator that goes on after them."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((12, 3)), rng.standard_normal((12, 1)), rng


def problem_of(X: np.ndarray, Y: np.ndarray, num_cells: int) -> jaxcvx.Problem:
    """The squared loss over sampled cells."""
    return jaxcvx.make_problem(X, Y, 0.5, arrangements=jaxcvx.sample_arrangements(jax.random.key(1), X, num_cells))


def other_problems(X: np.ndarray, Y: np.ndarray, rng: np.random.Generator) -> list[jaxcvx.Problem]:
    """One problem of each other loss and kind of features."""
    images = [rng.standard_normal((2, 4, 4, 1)) for _ in range(2)]
    classes, signs = np.arange(12) % 3, np.sign(Y)
    return [
        jaxcvx.make_problem(X, signs, 0.1, loss="logistic"),
        jaxcvx.make_problem(X, signs, 0.1, loss="hinge"),
        jaxcvx.make_problem(X, Y, 0.1, loss=jaxcvx.Huber(0.5)),
        jaxcvx.make_problem(X, Y, 0.1, loss="interpolation"),
        jaxcvx.make_problem(X, classes, 0.1, loss="softmax", features=jaxcvx.Dense(bias=True, skip=True)),
        jaxcvx.make_problem(X, Y, 0.1, features=jaxcvx.FreeBias()),
        jaxcvx.make_problem(images[0], Y[:2], 0.1, features=jaxcvx.ConvPool((3, 3))),
        jaxcvx.make_problem(images[1], Y[:2], 0.1, features=jaxcvx.ConvFlatten((3, 3))),
    ]


def objects() -> dict[str, Any]:
    """An object of every type that ``jaxcvx.save`` knows."""
    X, Y, rng = data()
    problem = problem_of(X, Y, 6)
    gated = jaxcvx.solve(problem, jaxcvx.ProximalGradient())
    teacher = jaxcvx.TeacherCNN(jnp.asarray([0.6, 0.8, 0.0, 0.0]), jnp.asarray([1.0, 2.0, 3.0]))
    path = jaxcvx.trajectory(teacher, jaxcvx.GradientDescent(), 10, key=jax.random.key(0))
    rng.standard_normal(6)  # drawn for an object that is no longer part of the file
    return {
        "cells": problem.arrangements,
        "problem": problem,
        "gated": gated,
        "cone": jaxcvx.solve(problem, jaxcvx.ConeADMM()),
        "copositive": jaxcvx.solve(problem_of(X, Y, 3), jaxcvx.CopositiveADMM(tol=1e-4)),
        "cuts": jaxcvx.solve(jaxcvx.make_problem(X, Y, 0.5), jaxcvx.CuttingPlane(tol=1e-4)),
        "teacher": teacher,
        "student": jaxcvx.solve(teacher, jaxcvx.GradientDescent(max_steps=20), key=jax.random.key(0)),
        "report": jaxcvx.path_report(path),
        "certificate": jaxcvx.certify(gated.network, X, Y, 0.5, method="relaxed"),
        "problems": other_problems(X, Y, rng),
        "path_bound": PathBound(np.float64(0.0), np.float64(1.0)),
    }


def write_checkpoints(folder: Path) -> None:
    """Two solves that end at max_steps (40, or 50: one whole block of steps) and leave a Checkpoint file."""
    X, Y, _ = data()
    accelerated = jaxcvx.ProximalGradient(tol=1e-12, phases="accelerated", max_steps=40)
    adam = jaxcvx.GradientDescent(width=4, max_steps=40, tol=0.0)
    for name, problem, solver in (
        ("gated", problem_of(X, Y, 6), accelerated),
        ("adam", jaxcvx.make_problem(X, Y, 0.5), adam),
    ):
        callback = jaxcvx.Checkpoint(folder / f"checkpoint_{name}.npz")
        jaxcvx.solve(problem, solver, key=jax.random.key(0), callback=callback)


def write_pickle(folder: Path) -> None:
    """Arrays are numpy's: how jax pickles its own may change with its version."""
    X, Y, _ = data()
    problem = problem_of(X, Y, 6)
    solution = jaxcvx.solve(problem, jaxcvx.ProximalGradient())
    copositive = jaxcvx.solve(problem_of(X, Y, 3), jaxcvx.CopositiveADMM(tol=1e-4))
    plain = jax.tree.map(np.asarray, (solution, problem))
    static = (jaxcvx.ConvPool((3, 3)), jaxcvx.Huber(0.5))
    point = jax.tree.map(np.asarray, copositive.params)
    (folder / "old.pickle").write_bytes(pickle.dumps((*plain, *static, point), protocol=4))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with jax.enable_x64(True):
        jaxcvx.save(folder / "objects.npz", objects(), {"written by": "jaxcvx 0.1.0 at a64216d"})
        write_checkpoints(folder)
        write_pickle(folder)
