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
# # Annealed noise escapes a spurious minimum
#
# A student network with one convolutional filter $w$ (on the sphere) and output weights $a$ learns a teacher
# $(w_*, a_*)$ from Gaussian patches. Its population loss has a closed form, and a *spurious* local minimum at
# $w=-w_*$ that traps gradient descent with constant probability. Zhou et al. (2019) take gradients at *perturbed
# iterates*, $\nabla f(w+\varepsilon)$, and anneal the noise: averaged over $\varepsilon$ the bad minimum is smoothed
# away, and as the noise shrinks the good one comes into focus.
#
# In a checkout use `pip install -e ".[plots]"` and skip the next cell.

# %%
# %pip install -q "jaxcvx[plots]"

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxcvx

STEPS, EPOCH, RUNS = 4000, 200, 100

# %%
teacher = jaxcvx.TeacherCNN.random(jax.random.key(0), patches=25, size=6, ratio=1.0)
print(f"loss at the spurious point {float(teacher.spurious_value()):.3f}, at the teacher {float(teacher.lower_bound()):.3f}")

# %% [markdown]
# ## A hundred runs of each
#
# Solvers are pure functions: `vmap` over keys runs them side by side. `track_params` keeps where they went.

# %%
descent = jaxcvx.GradientDescent(optimizer=optax.sgd(0.1), max_steps=STEPS, check_every=EPOCH)
annealed = jaxcvx.AnnealedNoise(max_steps=STEPS, check_every=EPOCH)


def train(solver, key):
    start, noise = jax.random.split(key)
    init = teacher.random_params(start)
    path = jaxcvx.trajectory(teacher, solver, STEPS, init=init, key=noise, every=50)
    last = jax.tree.map(lambda leaf: leaf[-1], path)
    return teacher.objective(last), jax.vmap(teacher.alignment)(path), jax.vmap(teacher.angle)(path)


keys = jax.random.split(jax.random.key(1), RUNS)
results = {}
for name, solver in (("gradient descent", descent), ("annealed noise", annealed)):
    results[name] = jax.device_get(jax.jit(jax.vmap(lambda key, s=solver: train(s, key)))(keys))
    print(f"{name:17s} reaches the global minimum in {np.mean(results[name][0] < 1e-2):.0%} of {RUNS} runs")
assert np.mean(results["annealed noise"][0] < 1e-2) > np.mean(results["gradient descent"][0] < 1e-2) + 0.2

# %% [markdown]
# ## Where the runs go
#
# The plane of the two quantities that the theory follows: the angle between $w$ and $w_*$, and $a^Ta_*$. A run whose
# $a^Ta_*$ is negative turns its filter away from the teacher's; noise carries it across.

# %%
figure, axes = plt.subplots(1, 3, figsize=(12.5, 3.9), layout="constrained", width_ratios=[1, 1, 0.8])
for ax, (name, (losses, alignment, angle)) in zip(axes[:2], results.items(), strict=True):
    good = losses < 1e-2
    for k in range(30):
        color = "#0072B2" if good[k] else "#D55E00"
        ax.plot(angle[k], alignment[k], color=color, lw=0.8, alpha=0.6)
        ax.plot(angle[k, -1], alignment[k, -1], "o", color=color, ms=4)
    trap = teacher.spurious_point()
    ax.plot(np.pi, float(teacher.alignment(trap)), "x", color="black", ms=9, mew=2)
    ax.axhline(0, color="#999999", lw=0.6)
    ax.set(title=f"{name}: {good.mean():.0%}", xlabel=r"angle between $w$ and $w_*$", xlim=(-0.05, 3.3), ylim=(-1.1, 1.3))
    ax.set_xticks([0, np.pi / 2, np.pi], ["0", "π/2", "π"])
axes[0].set_ylabel(r"$a^T a_*$")
for name, color in (("gradient descent", "#D55E00"), ("annealed noise", "#0072B2")):
    values = np.sort(np.maximum(results[name][0], 1e-12))
    axes[2].semilogy((np.arange(RUNS) + 0.5) / RUNS, values, color=color, label=name)
axes[2].axhline(float(teacher.spurious_value()), color="black", lw=0.8, ls="--")
axes[2].set(title="loss at the end", xlabel="share of the runs", ylim=(1e-9, 3))
axes[2].legend(frameon=False, fontsize=8, loc="lower right")
plt.show()

# %% [markdown]
# The cross is the spurious minimum, the dashed line its loss.
#
# ## The same as an optax transformation
#
# In your own training loop `perturb_iterates` wraps any optimiser: ask it for the noisy parameters, and give it the
# gradient taken there. Here it minimises a ragged function of one variable with a dozen local minima.

# %%


def ragged(x):
    return 0.25 * x**2 + 0.5 * (1 - jnp.cos(5 * x))


def minimise(optimizer, x):
    def step(carry, _):
        x, state = carry
        noisy, state = optimizer.perturb(x, state)
        updates, state = optimizer.update(jax.grad(ragged)(noisy), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    return jax.lax.scan(step, (x, optimizer.init(x)), length=2000)[1]


radius = jaxcvx.epochwise_geometric(3.0, 0.6, 200)
starts = jnp.linspace(-6, 6, 60)
paths = {}
for name, size in (("plain", 0.0), ("annealed", radius)):
    paths[name] = jax.jit(
        jax.vmap(lambda x, k, size=size: minimise(jaxcvx.perturb_iterates(optax.sgd(0.02), size, key=k), x))
    )(starts, jax.random.split(jax.random.key(2), len(starts)))
    print(f"{name:9s} {np.mean(np.abs(paths[name][:, -1]) < 0.1):.0%} of the starts end at the global minimum")
assert np.mean(np.abs(paths["annealed"][:, -1]) < 0.1) > 0.9

figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
x = np.linspace(-6.5, 6.5, 1000)
ax.plot(x, ragged(x), color="#999999", lw=1)
ax.plot(paths["plain"][:, -1], ragged(paths["plain"][:, -1]), "o", color="#D55E00", ms=5, label="gradient descent")
ax.plot(paths["annealed"][:, -1], ragged(paths["annealed"][:, -1]), "o", color="#0072B2", ms=8, label="annealed noise")
ax.set(xlabel="x", ylabel="f(x)", title="Sixty starts in [-6, 6]: where they end")
ax.legend(frameon=False)
plt.show()
