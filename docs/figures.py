"""Draws the figures of the concept pages from real solves: ``python docs/figures.py``."""

from __future__ import annotations

import pathlib

import jax
import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np

import jaxcvx
from jaxcvx.datasets import spiral

IMAGES = pathlib.Path(__file__).parent / "images"
BLUE, ORANGE, GREEN, RED, INK, FAINT = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#222222", "#999999"
plt.rcParams.update({"svg.hashsalt": "jaxcvx", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})


def save(figure, name: str) -> None:
    figure.savefig(IMAGES / f"{name}.svg", facecolor="white", metadata={"Date": None})
    plt.close(figure)


def wedge(ax, masks, X, mask, color, alpha):
    """Fill the cell with this pattern on the unit disc."""
    angles = np.linspace(0, 2 * np.pi, 3601)
    U = np.stack([np.cos(angles), np.sin(angles)])
    inside = ((X @ U >= 0) == np.asarray(mask)[:, None]).all(axis=0)
    start = np.flatnonzero(inside & ~np.roll(inside, 1))[0]
    turn = angles[start] + np.arange(inside.sum()) * (angles[1] - angles[0])
    ax.fill(np.r_[0, np.cos(turn)], np.r_[0, np.sin(turn)], color=color, alpha=alpha, lw=0)


def draw_cells() -> None:
    """Samples on the left; on the right the lines that they cut the plane of hidden weights with."""
    X = np.random.default_rng(1).standard_normal((6, 2))
    cells = jaxcvx.enumerate_arrangements(X)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    chosen = int(np.argmax(np.asarray(cells.masks).sum(axis=1) == 3))
    gate, mask = np.asarray(cells.gates[chosen]), np.asarray(cells.masks[chosen])
    gate = gate / np.linalg.norm(gate)
    side = np.array([-gate[1], gate[0]])
    left.axline((0, 0), side, color=RED, lw=1.2)
    left.annotate("", gate * 1.2, (0, 0), arrowprops={"arrowstyle": "->", "color": RED, "lw": 1.8})
    left.text(*(gate * 1.3), "u", color=RED, ha="center", va="center", fontsize=12)
    left.scatter(*X[mask].T, color=RED, s=55, zorder=3)
    left.scatter(*X[~mask].T, facecolor="white", edgecolor=INK, s=55, zorder=3)
    for k, x in enumerate(X):
        left.text(*(x + 0.13), f"$x_{k + 1}$", fontsize=10)
    left.set(
        title="samples: a neuron is active on one side of its line",
        aspect="equal",
        xlim=(-2.2, 2.2),
        ylim=(-2.2, 2.2),
    )
    palette = plt.get_cmap("tab20")
    for k, pattern in enumerate(np.asarray(cells.masks)):
        wedge(right, cells.masks, X, pattern, palette(k), 0.55 if k == chosen else 0.25)
    for k, x in enumerate(X):
        side = np.array([-x[1], x[0]]) / np.linalg.norm(x)
        right.plot(*np.stack([-1.05 * side, 1.05 * side]).T, color=INK, lw=0.8)
        right.text(*(1.16 * side), f"$x_{k + 1}$", ha="center", va="center", fontsize=9)
    gates = np.asarray(cells.gates) / np.linalg.norm(cells.gates, axis=1, keepdims=True)
    right.scatter(*(0.8 * gates.T), color=INK, s=10, zorder=3)
    right.plot(*(0.8 * gates[chosen]), "o", color=RED, ms=8, zorder=4)
    right.set(
        title=f"hidden weights: {len(gates)} cells, a gate in each",
        aspect="equal",
        xlim=(-1.3, 1.3),
        ylim=(-1.3, 1.3),
    )
    for ax in (left, right):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    save(figure, "cells")


def draw_kink() -> None:
    """Along the circle of directions: what one cell's neuron could gain, and where the constraint stops it."""
    rng = np.random.default_rng(4)
    X, y = rng.standard_normal((6, 2)), rng.standard_normal(6)
    angles = np.linspace(0, 2 * np.pi, 2881)
    U = np.stack([np.cos(angles), np.sin(angles)])
    cells = jaxcvx.enumerate_arrangements(X)
    best = None
    for mask in np.asarray(cells.masks):
        linear = (X * mask[:, None]).T @ y  # gain of a direction while the pattern holds
        inside = ((X @ U >= 0) == mask[:, None]).all(axis=0)
        free, held = np.linalg.norm(linear), (linear @ U)[inside].max()
        if 0.3 < held < 0.93 * free and (best is None or held > best[2]):
            best = (mask, linear, held, inside)
    mask, linear, held, inside = best
    relu = y @ np.maximum(X @ U, 0)
    start = angles[np.flatnonzero(inside & ~np.roll(inside, 1))[0]]
    turned = (angles - start + np.pi / 2) % (2 * np.pi)
    order = np.argsort(turned)
    figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
    t, width = turned[order], inside.sum() * (angles[1] - angles[0])
    ax.axvspan(np.pi / 2, np.pi / 2 + width, color=BLUE, alpha=0.13, lw=0)
    ax.text(np.pi / 2 + width / 2, -1.12 * np.linalg.norm(linear), "the cell", color=BLUE, ha="center")
    ax.plot(t, relu[order], color=INK, lw=1.6, label=r"what a neuron gains, $y^T(Xu)_+$")
    ax.plot(t, (linear @ U)[order], color=RED, lw=1.2, ls="--", label=r"the cell's linear continuation, $y^TDXu$")
    free = int(np.argmax((linear @ U)[order]))
    ax.plot(t[free], (linear @ U)[order][free], "o", color=RED, ms=8)
    ax.annotate(
        "gated solution: outside its cell",
        (t[free], (linear @ U)[order][free]),
        (12, 4),
        textcoords="offset points",
        color=RED,
    )
    value = np.where(inside, linear @ U, -np.inf)[order]
    kink = int(np.argmax(value))
    ax.plot(t[kink], value[kink], "o", color=BLUE, ms=8)
    ax.annotate(
        "constrained solution:\non the cell's edge, a kink",
        (t[kink], value[kink]),
        (-20, -125),
        textcoords="offset points",
        color=BLUE,
        ha="right",
        arrowprops={"arrowstyle": "-", "color": BLUE, "lw": 0.8},
    )
    ax.set(
        xlabel="angle of u",
        ylabel="gain",
        xticks=[],
        ylim=(-1.25 * np.linalg.norm(linear), 1.25 * np.linalg.norm(linear)),
    )
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    save(figure, "kink")


def draw_chain() -> None:
    """Bounds and networks on a problem where they differ: ten samples, four features, one-hot targets."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((10, 4)), np.eye(3)[rng.integers(0, 3, 10)]
    beta = 0.3
    cells = jaxcvx.enumerate_arrangements(X)
    problem = jaxcvx.make_problem(X, Y, beta, arrangements=cells)
    gated = jaxcvx.solve(problem, jaxcvx.NuclearProximalGradient(tol=1e-6))
    relaxed = jaxcvx.solve(problem, jaxcvx.CopositiveADMM(tol=1e-6))
    exact = jaxcvx.solve(problem, jaxcvx.ColumnGeneration(tol=1e-8))
    keys = jax.random.split(jax.random.key(0), 6)
    rows = [
        ("gated nuclear norm", [float(gated.objective)], FAINT),
        ("copositive relaxation", [float(relaxed.objective)], GREEN),
        ("optimum (column generation)", [float(exact.upper_bound)], BLUE),
    ]
    for width in (10, 5, 3):
        adam = jaxcvx.GradientDescent(width=width, max_steps=3000)
        ends = jax.jit(jax.vmap(lambda key, adam=adam: jaxcvx.solve(problem, adam, key=key).upper_bound))(keys)
        rows.append((f"Adam, {width} neurons, six runs", [float(v) for v in ends], RED))
    figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for place, (_, values, color) in enumerate(rows):
        ax.plot(values, [-place] * len(values), "o", color=color, ms=8, alpha=0.8)
        ax.text(min(values), -place + 0.28, f"{min(values):.4f}", color=color, ha="center", fontsize=8.5)
    ax.axvline(float(exact.upper_bound), color=BLUE, lw=0.8, ls=":")
    ax.set(
        yticks=-np.arange(len(rows)),
        yticklabels=[row[0] for row in rows],
        xlabel="objective",
        ylim=(-len(rows) + 0.5, 0.7),
    )
    save(figure, "chain")
    assert gated.objective <= relaxed.objective * (1 + 1e-6) <= exact.upper_bound * (1 + 1e-5)


def draw_column_generation() -> None:
    """Rounds of column generation on the spiral, and prices over the circle before and after."""
    X, labels = spiral(12)
    Y, beta = np.eye(3)[labels], 0.1
    problem = jaxcvx.make_problem(X, Y, beta)
    rounds: list[tuple[int, float, float]] = []
    start = jaxcvx.Network(np.array([[1.0, 0.2]]), np.zeros((1, 3)))
    loop = jaxcvx.ColumnGeneration(tol=1e-8, new_neurons=2)
    solution = jaxcvx.solve(
        problem,
        loop,
        init=start,
        callback=lambda info: rounds.append((info.step, info.objective, info.bound)) or False,
    )
    angles = np.linspace(0, 2 * np.pi, 1441)
    U = np.stack([np.cos(angles), np.sin(angles)])

    def price(network):
        R = Y - np.asarray(network(X))
        return np.linalg.norm(R.T @ np.maximum(X @ U, 0), axis=0)

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    step, objective, bound = np.array(rounds).T
    left.plot(step, objective, "o-", color=RED, ms=4, label="objective of the network")
    left.plot(step, np.maximum.accumulate(bound), "o-", color=BLUE, ms=4, label="proved lower bound")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set(xlabel="round", ylabel="objective", title="objective and bound meet")
    left.legend(frameon=False)
    right.plot(angles, price(start), color=RED, label="prices at the start")
    right.plot(angles, price(solution.network), color=BLUE, label="at the end: none above beta")
    right.axhline(beta, color=INK, lw=0.8, ls="--")
    for u in np.asarray(solution.network.hidden):
        right.plot(np.arctan2(u[1], u[0]) % (2 * np.pi), beta, "o", color=BLUE, ms=5)
    right.set(xlabel="angle of u", ylabel=r"$\|R^T(Xu)_+\|$", yscale="log", title="what a new neuron is worth")
    right.set_xticks([0, np.pi, 2 * np.pi], ["0", "π", "2π"])
    right.legend(frameon=False, loc="center right")
    save(figure, "column-generation")


# Questions from top to bottom. The answer yes leads to solvers: name, when to take it, what it proves.
DECISIONS = (
    (
        "A low-rank matrix,\nor another smooth problem?",
        (
            ("GradientDescent", "the first to try", "nothing"),
            ("AnnealedNoise", "against spurious minima", "nothing"),
            ("PrimalDual", "rows of bounded norm", "nothing"),
        ),
    ),
    (
        "Samples on a line with free biases,\nor rows of rank two?",
        (("CuttingPlane", "one output,\nor the squared loss", "optimum"),),
    ),
    (
        "Whitened rows and squared loss?",
        (("SoftThresholdedSVD", "a closed form; one output\nor one-hot targets", "optimum"),),
    ),
    (
        "Few enough cells to list them all?\n(rank up to 3, hundreds of rows)",
        (
            ("ConeADMM", "one output", "optimum"),
            ("ColumnGeneration", "several outputs", "optimum"),
            ("CopositiveADMM", "several outputs,\nas a relaxation", "bound"),
        ),
    ),
    (
        "The lowest objective wanted,\nand minutes to spend?",
        (
            ("ColumnGeneration", "with an estimate\nof the gap", "nothing"),
            ("ColumnGeneration", 'pricing="branch": a bound\non all networks', "bound"),
        ),
    ),
    (
        "Otherwise: many cells, a path of\nbetas, batches, derivatives",
        (
            ("ProximalGradient", "on the cells of a trained\nnetwork, or on random ones", "bound"),
            ("NuclearProximalGradient", "several outputs,\na tighter bound", "bound"),
        ),
    ),
)


def draw_solvers() -> None:
    """The decision figure of the page "Which solver do I take": questions on the left, solvers on the right."""
    colors = {"optimum": BLUE, "bound": "#007A59", "nothing": "#A36A00"}
    figure, ax = plt.subplots(figsize=(11, 7.6), layout="constrained")

    def box(x, y, width, height, edge, face):
        style = matplotlib.patches.BoxStyle("round", pad=0, rounding_size=0.12)
        ax.add_patch(matplotlib.patches.FancyBboxPatch((x, y), width, height, style, ec=edge, fc=face, lw=1.2))

    def arrow(start, end, label, offset):
        ax.annotate(
            "", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.0, "shrinkA": 0, "shrinkB": 0}
        )
        ax.text(start[0] + offset[0], start[1] + offset[1], label, fontsize=9, color=INK, ha="center", va="center")

    last = len(DECISIONS) - 1
    for place, (question, solvers) in enumerate(DECISIONS):
        y = -1.5 * place
        box(0, y, 3.7, 1.0, INK, "#F4F4F4")
        ax.text(1.85, y + 0.5, question, ha="center", va="center", fontsize=10, linespacing=1.35)
        if place < last:
            arrow((1.85, y), (1.85, y - 0.5), "no", (0.22, -0.22))
        arrow((3.7, y + 0.5), (4.4, y + 0.5), "yes" if place < last else "", (0.3, 0.17))
        for column, (name, note, proof) in enumerate(solvers):
            x, color = 4.4 + 2.9 * column, colors[proof]
            box(x, y, 2.75, 1.0, color, matplotlib.colors.to_rgba(color, 0.10))
            ax.text(x + 1.375, y + 0.77, name, ha="center", va="center", fontsize=10.5, weight="bold", color=color)
            ax.text(x + 1.375, y + 0.33, note, ha="center", va="center", fontsize=9, linespacing=1.25, color=INK)
    labels = {"optimum": "proves the optimum of training", "bound": "proves a lower bound", "nothing": "proves nothing"}
    handles = [
        matplotlib.patches.Patch(fc=matplotlib.colors.to_rgba(colors[k], 0.10), ec=colors[k], label=labels[k])
        for k in labels
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    ax.set(xlim=(-0.1, 13.05), ylim=(-1.5 * last - 0.1, 1.1))
    ax.axis("off")
    save(figure, "solvers")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    IMAGES.mkdir(exist_ok=True)
    for draw in (draw_cells, draw_kink, draw_chain, draw_column_generation, draw_solvers):
        draw()
        print(draw.__name__)
