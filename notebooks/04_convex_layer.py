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
# # A convex program as the last layer of a flax model
#
# A small CNN on the digits, with two heads. The usual one is Linear, relu, Linear, trained with everything else. The
# other is `jaxcvx.flax.ConvexLayer`: its weights are not trained but *solved for*, on every batch, and the CNN learns
# through the solution. With $Z$ the features of a batch the layer's value is
#
# $$V(Z)=\min_W\;\ell\Big(\sum_i D_iZW_i,\,Y\Big)+\beta\sum_i\|W_i\|_F,\qquad D_i=\mathrm{diag}(1[Zg_i\ge0]),$$
#
# whose gradient needs no derivative of the solution (envelope theorem): descent on $V$ is descent on the joint objective
# of CNN and head, the head always at its optimum. (`layer.held_out_loss` is the bilevel alternative: solve on one half
# of the batch, judge on the other, and differentiate through the solution implicitly.)
#
# In a checkout use `pip install -e ".[cli,flax]"` and skip the next cell.

# %%
# %pip install -q "jaxcvx[cli,flax]"

# %%
import os
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import jaxcvx

SEED = int(os.environ.get("SEED", "0"))
SECONDS = float(os.environ.get("SECONDS", "8"))  # of training, for each head; compilation is not counted
images, labels = load_digits(return_X_y=True)
images = (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
x, x_test, y, y_test = train_test_split(images, labels, test_size=0.3, random_state=SEED, stratify=labels)
targets = np.eye(10, dtype=np.float32)[y]
print(f"{len(x)} images for training, {len(x_test)} for the test")


# %%
class Backbone(nnx.Module):
    """Two convolutions and a projection to 24 features."""

    def __init__(self, rngs):
        self.first = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.second = nnx.Conv(16, 32, (3, 3), strides=2, rngs=rngs)
        self.project = nnx.Linear(4 * 4 * 32, 24, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.first(x))
        x = nnx.relu(self.second(x))
        return self.project(x.reshape(len(x), -1))


class WithDenseHead(nnx.Module):
    def __init__(self, rngs):
        self.backbone = Backbone(rngs)
        self.head = jaxcvx.flax.ConvexReLU(24, 10, width=64, rngs=rngs)

    def __call__(self, x):
        return self.head(self.backbone(x))

    def loss(self, x, y):
        return optax.softmax_cross_entropy(self(x), y).mean() + 1e-3 * self.head.penalty()


QUICK = jaxcvx.ProximalGradient(tol=1e-2, max_steps=100, check_every=10, phases="accelerated")


class WithConvexLayer(nnx.Module):
    def __init__(self, rngs):
        self.backbone = Backbone(rngs)
        self.head = jaxcvx.flax.ConvexLayer(
            24, 10, num_gates=32, beta=1e-3, loss="softmax", beta_scale="per-sample", solver=QUICK, rngs=rngs
        )

    def __call__(self, x):
        return self.head(self.backbone(x))

    def loss(self, x, y):
        return self.head.value(self.backbone(x), y) / len(x)


# %% [markdown]
# ## The same time for both
#
# Adam with the same cosine schedule over the time budget, batches of 128, the dense head with the same weight decay. The
# convex layer's weights are refitted on all training features before each evaluation; that time counts as training.


# %%
@nnx.jit
def refresh(model, x, y):
    model.head.refresh(model.backbone(x), y, solver=QUICK)


def accuracy(model, x, y):
    return float(jnp.mean(jnp.argmax(predict(model, x), axis=1) == y))


@nnx.jit
def predict(model, x):
    return model(x)


def train(model, batch_size=128, peak=3e-3):
    optimizer = nnx.Optimizer(model, optax.inject_hyperparams(optax.adam)(learning_rate=peak), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y, rate):
        value, gradient = nnx.value_and_grad(lambda m: m.loss(x, y))(model)
        optimizer.opt_state.hyperparams["learning_rate"][...] = rate
        optimizer.update(model, gradient)
        return value

    convex = isinstance(model.head, jaxcvx.flax.ConvexLayer)
    graph, state = nnx.split((model, optimizer))
    rng = np.random.default_rng(SEED)
    trace, spent, steps = [], 0.0, -1
    while spent < SECONDS:
        start = time.perf_counter()
        rows = rng.permutation(len(x))[:batch_size]
        rate = peak * 0.5 * (1 + np.cos(np.pi * spent / SECONDS))
        step(model, optimizer, x[rows], targets[rows], jnp.float32(rate)).block_until_ready()
        if steps < 0:  # the first step compiles: forget it
            if convex:
                refresh(model, x, targets)
            accuracy(model, x_test, y_test)
            model, optimizer = nnx.merge(graph, state)
            steps = 0
            continue
        steps += 1
        due = not trace or spent - trace[-1][0] > SECONDS / 12
        if convex and (due or time.perf_counter() - start + spent >= SECONDS):
            refresh(model, x, targets)
        spent += time.perf_counter() - start
        if due or spent >= SECONDS:
            trace.append((spent, accuracy(model, x_test, y_test)))
    return model, np.array(trace), steps


# %%
trained = {}
for name, make in (("dense head", WithDenseHead), ("convex layer", WithConvexLayer)):
    model, trace, steps = train(make(nnx.Rngs(SEED)))
    trained[name] = (model, trace)
    assert trace[-1, 1] > 0.9
    print(f"{name:13s} {steps:5d} steps in {trace[-1, 0]:.1f} s: test accuracy {trace[-1, 1]:.4f}")

# %%
figure, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
for (name, (_, trace)), color in zip(trained.items(), ("#D55E00", "#0072B2"), strict=True):
    ax.plot(trace[:, 0], 1 - trace[:, 1], "o-", color=color, ms=4, label=f"{name}, at the end {trace[-1, 1]:.4f}")
ax.set(xlabel="seconds of training", ylabel="test error", yscale="log", title="The same CNN, two heads")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Certifying the layer
#
# The head's program is convex, so its solution comes with a proof. `freeze` solves on all training features and
# stores the weights.

# %%
model, trace = trained["convex layer"]
features = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
graph, state = nnx.split(model.backbone)
careful = jaxcvx.ProximalGradient(tol=1e-3, max_steps=2000, phases="accelerated")
solution = model.head.freeze(features(state, x), targets, solver=careful)
print(f"head's objective {solution.objective:.4f}; no weights in its cells are better by more than {solution.program_gap:.1e}")
print(f"test accuracy with the certified weights {accuracy(model, x_test, y_test):.4f}")
assert solution.program_gap <= 1e-2

# %% [markdown]
# ## What the CNN has learned
#
# The features of the test images, by their two main directions.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
for ax, (name, (model, trace)) in zip(axes, trained.items(), strict=True):
    Z = np.asarray(model.backbone(x_test))
    Z = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    Z = Z - Z.mean(axis=0)
    plane = Z @ np.linalg.svd(Z, full_matrices=False)[2][:2].T
    for digit in range(10):
        ax.scatter(*plane[y_test == digit].T, s=9, color=plt.get_cmap("tab10")(digit), label=str(digit))
    ax.set(title=f"{name}: {trace[-1, 1]:.4f}", xticks=[], yticks=[])
axes[1].legend(frameon=False, ncols=2, fontsize=8, markerscale=2)
plt.show()
