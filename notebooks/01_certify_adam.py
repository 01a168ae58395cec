# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How good is the network that Adam found?
#
# A two-layer ReLU network with hidden weights $u_j$ and output weights $v_j$ is trained by minimising
#
# $$\frac12\Big\|\sum_j (Xu_j)_+v_j-y\Big\|^2+\frac{\beta}{2}\sum_j\big(\|u_j\|^2+|v_j|^2\big).$$
#
# Adam returns some network. This notebook finds out how far it is from the best one, of any width: a *certificate* is a
# number below which no network's objective can be. Then a convex program finds the best network itself.
#
# The next cell installs the package; in a checkout use `pip install -e ".[cli]"` and skip it.

# %%
# %pip install -q "jaxcvx[cli]"

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxcvx
from jaxcvx.datasets import spiral

jax.config.update("jax_enable_x64", True)  # optional: everything runs in float32 too, with coarser gaps

# %% [markdown]
# ## Data and cells
#
# Thirty points on a spiral, one arm against the other two. A hidden neuron splits the points into those where it is
# active and those where it is not. Of all splits only a few can be made by a line: the *hyperplane arrangement cells*.
# In the plane (with a bias) there are about $n^2$ of them, so all can be listed.

# %%
X, arm = spiral(num_per_arm=10, noise=0.1)
y = np.where(arm == 1, 1.0, -1.0)
beta = 0.02

features = jaxcvx.Dense(bias=True)
cells = jaxcvx.enumerate_arrangements(X, features=features)
problem = jaxcvx.make_problem(X, y, beta, arrangements=cells, features=features)
print(f"{len(X)} points, {cells.masks.shape[0]} cells, complete: {cells.complete}")

# %% [markdown]
# ## Twelve Adam runs
#
# One `vmap` over random keys trains them side by side.

# %%
adam = jaxcvx.GradientDescent(width=20, max_steps=4000)
keys = jax.random.split(jax.random.key(0), 12)
runs = jax.jit(jax.vmap(lambda key: jaxcvx.solve(problem, adam, key=key).network))(keys)
networks = [jax.tree.map(lambda leaf, k=k: leaf[k], runs) for k in range(len(keys))]

certificates = [jaxcvx.certify(network, X, y, beta, arrangements=cells) for network in networks]
for k, c in enumerate(certificates[:4]):
    print(f"run {k}: objective {c.upper:.6f}, no network is below {c.lower:.6f}: gap {c.gap:.1%}, scope {c.scope!r}")

# %% [markdown]
# Each certificate comes from the run's own residuals: a poor network gives a poor bound. All of them are valid, so the
# best one holds for every run.

# %% [markdown]
# ## The optimum
#
# With all cells at hand, training is a convex program: one block of weights per cell, kept inside the cell by cone
# constraints, with a group-lasso penalty. `ConeADMM` solves it, and turns the solution into a network.

# %%
solution = jaxcvx.solve(problem, jaxcvx.ConeADMM(tol=1e-9))
print(f"optimum {solution.upper_bound:.8f}, lower bound {solution.lower_bound:.8f}")
print(f"gap {solution.gap:.1e}, scope {solution.scope!r}, {solution.network.hidden.shape[0]} neurons")
assert solution.scope == "global" and solution.gap < 1e-7

# %%
objectives = np.sort([c.upper for c in certificates])
polished = jaxcvx.polish(networks[int(np.argmin([c.upper for c in certificates]))], X, y, beta)
best = jaxcvx.training_objective(polished, X, y, beta)
print(f"best Adam run {objectives[0]:.8f}; the same, polished on its own cells: {best:.8f}")
assert solution.lower_bound <= best <= objectives[0] + 1e-12

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
bounds = [max(c.lower, 0) for c in certificates]
axes[0].plot(np.arange(12) + 1, objectives, "o", color="#D55E00", label="Adam, 12 runs")
axes[0].axhline(float(best), color="#E69F00", ls=":", label="best run, polished")
axes[0].axhline(float(solution.upper_bound), color="#0072B2", label="convex program = proved lower bound")
axes[0].axhline(max(bounds), color="#0072B2", ls="--", lw=1, label="best bound from Adam's residuals")
axes[0].set(xlabel="run, sorted", ylabel="training objective", title="What is reached, and what can be")
axes[0].legend(frameon=False, fontsize=8)
excess = objectives - solution.lower_bound
axes[1].semilogy(np.arange(12) + 1, excess / solution.lower_bound, "o", color="#D55E00")
axes[1].axhline(max(solution.gap, 1e-16), color="#0072B2")
axes[1].text(12, max(solution.gap, 1e-16) * 1.6, "convex program", color="#0072B2", ha="right")
axes[1].set(xlabel="run, sorted", ylabel="relative excess over the bound", title="Distance to the optimum")
plt.show()

# %% [markdown]
# ## What the optimum looks like
#
# Neurons of the optimal network sit on *kinks*: their lines pass through data points. Gradient descent, which sees a
# corner there, creeps towards them.

# %%
grid = np.stack(np.meshgrid(np.linspace(-0.75, 0.75, 160), np.linspace(-0.75, 0.75, 160)), axis=-1)
worst = networks[int(np.argmax([c.upper for c in certificates]))]
figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained", sharey=True)
for ax, network, title in (
    (axes[0], worst, f"Adam's worst run, {objectives[-1]:.4f}"),
    (axes[1], solution.network, f"global optimum, {float(solution.upper_bound):.4f}"),
):
    values = np.asarray(network(grid.reshape(-1, 2))).reshape(grid.shape[:2])
    ax.contourf(grid[..., 0], grid[..., 1], values, levels=np.linspace(-2, 2, 17), cmap="RdBu_r", extend="both")
    ax.contour(grid[..., 0], grid[..., 1], values, levels=[0], colors="black", linewidths=1.2)
    hidden = np.asarray(network.hidden)
    size = np.linalg.norm(hidden, axis=1) * np.abs(np.asarray(network.output)[:, 0])
    for a, b, c in hidden[size > 1e-3 * size.max()]:
        ax.contour(grid[..., 0], grid[..., 1], a * grid[..., 0] + b * grid[..., 1] + c, [0], colors="#666666", linewidths=0.5)
    ax.scatter(*X.T, c=np.where(y > 0, "#B2182B", "#2166AC"), edgecolor="white", s=36, zorder=3)
    ax.set(title=title, aspect="equal", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# Where next: many cells and other losses are in the documentation; the second notebook takes several outputs.
