"""Draws the figures of the page on proofs from real searches: ``python docs/figures_proof.py``."""

from __future__ import annotations

import time

import jax
import matplotlib.pyplot as plt
import numpy as np
from figures import BLUE, GREEN, INK, ORANGE, RED, save
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

import jaxcvx
from jaxcvx.pricing.box_tree import BoxTree, grow_boxes, start_boxes

MOMENTS = (16, 48, 300)  # boxes bounded


def panel(ax, tree: BoxTree, face: int) -> PatchCollection:
    """The boxes of one face and of the side +r, coloured by their bound over the largest price."""
    boxes = tree.boxes
    here = (boxes.side == 0) & (boxes.width[:, face] == 0) & (boxes.centre[:, face] > 0)
    here &= np.arange(len(here)) < boxes.count
    free = [j for j in range(3) if j != face]
    c, w = boxes.centre[here][:, free], boxes.width[here][:, free]
    patches = [Rectangle(a - b, *(2 * b)) for a, b in zip(c, w, strict=True)]
    ratio = tree.scale * boxes.bound[here] / tree.value
    drawn = PatchCollection(patches, cmap="viridis", edgecolor="white", linewidth=0.3)
    drawn.set_array(ratio)
    drawn.set_clim(0.6, 1.6)
    ax.add_collection(drawn)
    ax.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xlabel="second coordinate of u")
    ax.set_title(f"{tree.nodes} boxes: M is at most {tree.upper / tree.value:.4f}\nof the best price found", fontsize=9)
    return drawn


def draw_boxes() -> None:
    """One face of the cube at three moments of a search on three features."""
    rng = np.random.default_rng(3)
    X, r = rng.standard_normal((40, 3)), rng.standard_normal(40)
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.3), layout="constrained")
    with jax.enable_x64(True):
        tree = grow_boxes(start_boxes(X, r), 0.0)
        u = tree.axes.T @ tree.neuron
        face = int(np.abs(u).argmax())
        tree = start_boxes(X, r * np.sign(np.maximum(X @ tree.neuron, 0) @ r))
        tree.inner, tree.axes = tree.inner * np.sign(u), tree.axes * np.sign(u)
        for ax, nodes in zip(axes, MOMENTS, strict=True):
            tree = grow_boxes(tree, 0.0, report=lambda tree, nodes=nodes: tree.nodes >= nodes)
            drawn = panel(ax, tree, face)
    y = np.abs(u) / np.abs(u).max()
    for ax in axes:
        ax.plot(*np.delete(y, face), "*", color=RED, ms=12)
    axes[0].set_ylabel("third coordinate of u")
    figure.colorbar(drawn, ax=axes, label="bound of the box over the best price", shrink=0.85)
    save(figure, "boxes")


def draw_proof() -> None:
    """Gap over seconds on diabetes (11 columns) and breast cancer (31 columns), at two betas each."""
    from benchmarks.adam import beta_max
    from benchmarks.tables import load

    figure, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
    colours = iter((BLUE, GREEN, ORANGE, RED))
    for name, label in (("diabetes", "diabetes, 10 features"), ("breast_cancer", "breast cancer, 30 features")):
        table = load(name)
        for fraction in (0.3, 0.1):
            problem = table.problem(fraction * beta_max(table))
            network = jaxcvx.solve(problem, jaxcvx.ColumnGeneration()).network
            began, seen = time.perf_counter(), []

            def record(info, began=began, seen=seen) -> None:
                seen.append((time.perf_counter() - began, 100 * info.residual))

            arguments = (network, table.X_train, table.Y_train, float(problem.beta))
            jaxcvx.certify(*arguments, loss=table.loss, method="branch", tol=2e-3, max_seconds=30, callback=record)
            ax.step(
                *np.array(seen).T,
                where="post",
                marker="o",
                ms=3,
                color=next(colours),
                label=f"{label}, beta {fraction:g} of its maximum",
            )
    ax.set(xlabel="seconds, compilation included (2 cores)", ylabel="proved gap, %", yscale="log", xscale="log")
    ax.grid(alpha=0.3, which="both")
    ax.legend(frameon=False, labelcolor=INK, fontsize=9)
    save(figure, "proof")


if __name__ == "__main__":
    draw_boxes()
    draw_proof()
