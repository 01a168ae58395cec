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
# # Several outputs: a copositive program against stochastic gradient descent
#
# With $c$ outputs the convex form of training is a *copositive program* (Sahiner, Ergen, Pauly and Pilanci 2021): each
# cell's block of weights $V_i$ is penalised by a nuclear norm over rank-one matrices $uv^T$ whose $u$ stays in the
# cell. Its doubly non-negative relaxation is a semidefinite program, exact for two features. There is a chain of bounds:
#
# $$\text{gated nuclear norm}\;\le\;\text{relaxation}\;\le\;\text{optimum}\;\le\;\text{any network found by SGD}.$$
#
# In a checkout use `pip install -e ".[cli]"` and skip the next cell.

# %%
# %pip install -q "jaxcvx[cli]"

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxcvx
from jaxcvx.datasets import spiral

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## Three classes on a spiral
#
# Without a bias in the plane $n$ points have $2n$ cells, one per sector between lines through the origin.

# %%
X, labels = spiral(num_per_arm=12)
Y = np.eye(3)[labels]
beta = 0.1
cells = jaxcvx.enumerate_arrangements(X)
problem = jaxcvx.make_problem(X, Y, beta, arrangements=cells)
print(f"n = {len(X)}, c = 3, {cells.masks.shape[0]} cells")

# %%
gated = jaxcvx.solve(problem, jaxcvx.NuclearProximalGradient(tol=1e-6))
relaxed = jaxcvx.solve(problem, jaxcvx.CopositiveADMM(tol=1e-6))
exact = jaxcvx.solve(problem, jaxcvx.ColumnGeneration(tol=1e-8))
print(f"gated nuclear norm      {gated.objective:.6f}")
print(f"copositive relaxation   {relaxed.objective:.6f}   (program gap {relaxed.program_gap:.0e})")
print(f"its rounded network     {relaxed.upper_bound:.6f}   (proved gap {relaxed.gap:.0e})")
print(f"column generation       {exact.upper_bound:.6f}   (proved gap {exact.gap:.0e}, scope {exact.scope!r})")
assert gated.lower_bound <= relaxed.lower_bound * (1 + 1e-6) <= exact.upper_bound * (1 + 1e-5)
assert exact.gap < 1e-6

# %% [markdown]
# ## SGD, by width
#
# Five runs each, momentum and minibatches of twelve, for networks of 5 to 100 neurons.

# %%
widths = (5, 10, 20, 50, 100)
steps = 6000
rate = optax.cosine_decay_schedule(0.02, steps)
found = {}
for width in widths:
    sgd = jaxcvx.GradientDescent(optimizer=optax.sgd(rate, momentum=0.9), width=width, batch_size=12, max_steps=steps)
    keys = jax.random.split(jax.random.key(width), 5)
    found[width] = np.asarray(jax.jit(jax.vmap(lambda key, s=sgd: jaxcvx.solve(problem, s, key=key).upper_bound))(keys))
    print(f"m = {width:3d}: best {found[width].min():.4f}, worst {found[width].max():.4f}")
assert min(values.min() for values in found.values()) >= exact.lower_bound

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
for width in widths:
    axes[0].plot([width] * 5, found[width], "o", color="#D55E00", alpha=0.7, label="SGD, 5 runs" if width == 5 else None)
    excess = found[width] / exact.lower_bound - 1
    axes[1].plot([width] * 5, excess, "o", color="#D55E00", alpha=0.7)
axes[0].axhline(float(exact.upper_bound), color="#0072B2", label=f"optimum {exact.upper_bound:.4f} (proved)")
axes[0].axhline(float(relaxed.objective), color="#009E73", ls="--", label=f"copositive relaxation {relaxed.objective:.4f}")
axes[0].axhline(float(gated.objective), color="#999999", ls=":", label=f"gated nuclear norm {gated.objective:.4f}")
axes[0].set(xlabel="neurons of the SGD network", ylabel="training objective", xscale="log", title="The chain of bounds")
axes[0].legend(frameon=False)
axes[1].axhline(max(exact.gap, 1e-12), color="#0072B2")
axes[1].text(5, 1.5 * max(exact.gap, 1e-12), "gap of column generation", color="#0072B2")
axes[1].set(xlabel="neurons of the SGD network", ylabel="relative excess over the bound", xscale="log", yscale="log")
axes[1].set_title("How far from the optimum")
for ax in axes:
    ax.set_xticks(widths, [str(w) for w in widths])
    ax.minorticks_off()
plt.show()

# %% [markdown]
# The relaxation and the optimum coincide here (two features). Narrow networks end above the optimum, wide ones come
# close to it, and only the bounds can tell how close.
#
# ## How column generation gets there
#
# Each round solves the problem over the neurons it has, and *prices*: it looks for the unit vector $u$ with the largest
# $\|R^T(Xu)_+\|$, $R$ the residual. No value above $\beta$ means optimal; the excess gives the lower bound. In the plane
# the price is a function of an angle.

# %%
angles = np.linspace(0, 2 * np.pi, 1441)
U = np.stack([np.cos(angles), np.sin(angles)])


def price(network):
    R = Y - np.asarray(network(X))
    return np.linalg.norm(R.T @ np.maximum(X @ U, 0), axis=0)


narrow = jaxcvx.solve(problem, jaxcvx.GradientDescent(width=5, max_steps=3000), key=jax.random.key(0)).network
figure, ax = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
ax.plot(angles, price(narrow), color="#D55E00", label="Adam, 5 neurons: directions are missing")
ax.plot(angles, price(exact.network), color="#0072B2", label="optimum: no direction is worth more than beta")
ax.axhline(beta, color="black", lw=0.8, ls="--")
for u in np.asarray(exact.network.hidden):
    ax.plot(np.arctan2(u[1], u[0]) % (2 * np.pi), beta, "o", color="#0072B2", ms=5)
ax.set(xlabel="angle of u", ylabel=r"$\|R^T(Xu)_+\|$", xticks=[0, np.pi, 2 * np.pi], xticklabels=["0", "π", "2π"])
ax.legend(frameon=False, fontsize=9)
plt.show()
assert price(exact.network).max() <= beta * (1 + 1e-4)
