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
# # One problem on several devices
#
# Solvers are plain array code: place the data, and the compiler splits the work. On a TPU slice or several GPUs this
# notebook uses what there is; on a CPU it simulates eight devices, which shows the layout and that results agree, and
# says nothing about speed.
#
# In a checkout use `pip install -e ".[plots]"` and skip the next cell.

# %%
# %pip install -q "jaxcvx[plots]"

# %%
import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"  # CPUs only

import jax
import matplotlib.pyplot as plt
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxcvx

jax.config.update("jax_enable_x64", jax.default_backend() != "tpu")
devices = jax.devices()
print(f"{len(devices)} x {devices[0].device_kind}")

# %% [markdown]
# ## A problem
#
# Gaussian data, a planted network of five neurons, 64 random cells; all on one device.

# %%
rng = np.random.default_rng(0)
n, d, c = 512, 16, 2
X = rng.standard_normal((n, d))
Y = np.maximum(X @ rng.standard_normal((d, 5)), 0) @ rng.standard_normal((5, c)) + 0.1 * rng.standard_normal((n, c))
cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 64)
whole = jaxcvx.make_problem(X, Y, 5.0, arrangements=cells)

# %% [markdown]
# ## Placing it
#
# A mesh of two axes, samples and cells. `X` and `Y` are split over samples, the masks over both, the gates over cells.
# Ask for `AxisType.Auto`, in which the compiler chooses the collectives.

# %%
rows = 2 if len(devices) % 2 == 0 else 1
mesh = jax.make_mesh((len(devices) // rows, rows), ("n", "cells"), axis_types=(AxisType.Auto,) * 2)


def place(array, *axes):
    return jax.device_put(array, NamedSharding(mesh, P(*axes)))


masks = place(cells.masks, "cells", "n")
spread = jaxcvx.Arrangements(masks, place(cells.gates, "cells"), cells.complete)
problem = jaxcvx.make_problem(place(X, "n"), place(Y, "n"), 5.0, arrangements=spread)

# %%
figure, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
ax.imshow(np.asarray(cells.masks), aspect="auto", cmap="Greys", alpha=0.25, interpolation="nearest")
colors = plt.get_cmap("tab10")
for shard in masks.addressable_shards:
    (a, b), (e, f) = (s.indices(size)[:2] for s, size in zip(shard.index, masks.shape, strict=True))
    ax.add_patch(plt.Rectangle((e, a), f - e, b - a, color=colors(shard.device.id % 10), alpha=0.45))
    ax.text((e + f) / 2, (a + b) / 2, f"device {shard.device.id}", ha="center", va="center", fontsize=8)
ax.set(xlabel="samples", ylabel="cells", title="The masks of the cells, and the device that holds each part")
plt.show()

# %% [markdown]
# ## Solving
#
# The call is the same. Under `jit` the compiled program holds the collectives: one all-reduce of predictions over
# cells, one of gradients over samples.

# %%
solver = jaxcvx.ProximalGradient(tol=1e-5, phases="accelerated")
run = jax.jit(lambda problem: jaxcvx.solve(problem, solver))
one, many = run(whole), run(problem)
print(f"one device:  objective {one.objective:.10f}, program gap {one.program_gap:.1e}, {one.num_steps} steps")
print(f"{len(devices)} devices:   objective {many.objective:.10f}, program gap {many.program_gap:.1e}, {many.num_steps} steps")
difference = abs(float(one.objective) - float(many.objective)) / float(one.objective)
print(f"relative difference {difference:.1e}; the weights live on {len(many.params.sharding.device_set)} devices")
assert difference < (1e-6 if jax.config.jax_enable_x64 else 1e-4)

text = run.lower(problem).compile().as_text()
counts = {name: text.count(f"{name}(") + text.count(f"{name}-start(") for name in ("all-reduce", "all-gather")}
print("collectives in the compiled program:", counts)
assert len(devices) == 1 or counts["all-reduce"] > 0

# %% [markdown]
# ## Batches over devices
#
# Independent problems need no communication: split a `vmap` over betas instead.

# %%
betas = np.geomspace(50.0, 0.5, 8)
line = jax.make_mesh((len(devices),), ("beta",), axis_types=(AxisType.Auto,))
spread_betas = jax.device_put(betas, NamedSharding(line, P("beta" if 8 % len(devices) == 0 else None)))
each = jax.jit(jax.vmap(lambda beta: jaxcvx.solve(whole.replace(beta=beta), solver)))(spread_betas)
active = np.sum(np.linalg.norm(np.asarray(each.params), axis=(2, 3)) > 0, axis=1)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
axes[0].loglog(betas, each.objective, "o-", color="#0072B2", label="objective")
axes[0].loglog(betas, np.maximum(each.lower_bound, 1e-3), "o--", color="#56B4E9", label="lower bound")
axes[0].set(xlabel="beta", title="Eight problems, one program")
axes[0].legend(frameon=False)
axes[1].semilogx(betas, active, "o-", color="#D55E00")
axes[1].set(xlabel="beta", ylabel="cells in use", title="Sparsity along the path")
plt.show()
assert (np.asarray(each.program_gap) < 1e-3).all()
