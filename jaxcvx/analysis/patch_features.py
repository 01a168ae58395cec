"""Convolutional features with filters that are not trained: extreme points of a set of random patches.

The patches are normalised and whitened. The filter of a patch is the neuron that this patch activates more than any
other patch does (lemma 7). Convolution, ReLU and pooling then give features for a convex head.

Source: T. Ergen and M. Pilanci, "Convex geometry and duality of over-parameterized neural networks", JMLR 22 (2021),
algorithm 2 (Convex-RF).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxcvx.analysis.extreme_points import residual_neurons
from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.features.patches import extract_patches, output_positions
from jaxcvx.numerics.validation import as_real_matrix


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PatchFeatures:
    """The map ``images -> pool(relu(normalise(patches) @ filters + bias))``. It is a pytree; works under jit and vmap.

    Attributes:
      filters: (h, m) filters for normalised patches of h = height * width * channels numbers. The whitening of the
        patches is part of the filters.
      bias: (m,) number added before the ReLU.
      floor: number added to the variance of a patch, in squared units of the images.
      filter_shape: static; height and width of the patches.
      stride: static; step between patches.
      pool: static; the positions are divided into pool x pool regions. The largest value of each region is kept.

    Example:
      >>> import jax
      >>> import jaxcvx
      >>> images = jax.random.normal(jax.random.key(0), (4, 6, 6))
      >>> features = jaxcvx.fit_patch_features(jax.random.key(1), images, 5, filter_shape=(2, 2))
      >>> features(images).shape == (4, 2 * 2 * features.num_filters)
      True
    """

    filters: Float[Array, "h m"]
    bias: Float[Array, m]
    floor: Float[Array, ""]
    filter_shape: tuple[int, int] = dataclasses.field(metadata={"static": True})
    stride: int = dataclasses.field(default=1, metadata={"static": True})
    pool: int = dataclasses.field(default=2, metadata={"static": True})

    @property
    def num_filters(self) -> int:
        """Number m of filters."""
        return self.filters.shape[1]

    def __call__(self, images: Float[Array, "n H W *ch"]) -> Float[Array, "n f"]:
        """Compute the features (n, pool * pool * m). The regions are in row-major order, the filters vary fastest.

        Args:
          images: (n, H, W) or (n, H, W, channels).

        Raises:
          InvalidInputError: images of another shape, or smaller than ``pool`` patches on a side.
        """
        images = _with_channels(images)
        steps = (self.stride, self.stride)
        rows, cols = output_positions(images.shape[1:3], self.filter_shape, steps, "VALID")
        if min(rows, cols) < self.pool:
            raise invalid("images", f"{rows} x {cols} patches", f"at least pool = {self.pool} on a side")
        patches = normalise(extract_patches(images, self.filter_shape, steps, "VALID"), self.floor)
        if patches.shape[1] != self.filters.shape[0]:
            expected = f"{self.filters.shape[0] // np.prod(self.filter_shape)} channels, as in training"
            raise invalid("images", f"{images.shape[-1]} channels", expected)
        activations = jax.nn.relu(patches @ self.filters + self.bias)
        activations = activations.reshape(len(images), rows, cols, -1)
        across = [jnp.max(part, axis=1) for part in jnp.array_split(activations, self.pool, axis=1)]
        regions = [jnp.max(part, axis=1) for row in across for part in jnp.array_split(row, self.pool, axis=1)]
        return jnp.stack(regions, axis=1).reshape(len(images), -1)


def normalise(patches: Float[Array, "k h"], floor: Any) -> Float[Array, "k h"]:
    """Subtract from every patch its mean, and divide it by the square root of (its variance + ``floor``)."""
    centred = patches - jnp.mean(patches, axis=1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(centred**2, axis=1, keepdims=True) + floor)


def fit_patch_features(
    key: PRNGKeyArray,
    images: Any,
    num_filters: int = 200,
    *,
    filter_shape: tuple[int, int] = (4, 4),
    stride: int = 1,
    pool: int = 2,
    floor: float = 0.1,
    zca: float | None = 0.1,
    threshold: float = 0.0,
) -> PatchFeatures:
    """Choose filters from random patches of the images. Nothing is trained, and no label is used.

    Let z_i be the drawn patches after normalisation and whitening. Filter i is the unit vector u_i along ``z_i`` minus
    the nearest convex combination of the other patches. A patch that is not a vertex of the hull of all patches gives
    no filter. Therefore there may be fewer filters than ``num_filters``.

    Args:
      key: random key that draws the patches.
      images: (n, H, W) or (n, H, W, channels).
      num_filters: number of patches drawn, at least 2.
      filter_shape: height and width of a patch.
      stride: step between the patches, both for drawing them and for the features.
      pool: number of regions along each side of an image. The largest activation of each region is kept.
      floor: number added to the variance of each patch, relative to the variance of all pixels.
      zca: patches are whitened by ``(C + zca * mean eigenvalue * I)^(-1/2)``, C their covariance. None: not whitened.
      threshold: factor of the lemma's bias ``b_i = min_{j != i} -z_j^T u_i``. With 1 no drawn patch activates two
        filters; with 0 the filters have no bias and the features are dense.

    Returns:
      The features, as a function of images.

    Raises:
      InvalidInputError, InvalidTypeError: a bad argument, or images whose patches are all constant.

    Example:
      >>> import jax
      >>> import jaxcvx
      >>> images = jax.random.normal(jax.random.key(0), (4, 6, 6))
      >>> features = jaxcvx.fit_patch_features(jax.random.key(1), images, 5, filter_shape=(2, 2))
      >>> features.filters.shape == (4, features.num_filters)
      True
    """
    images = _with_channels(as_real_matrix("images", images, (3, 4)))
    for name, value, least in (("num_filters", num_filters, 2), ("stride", stride, 1), ("pool", pool, 1)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidTypeError(f"{name}: got {value!r}, expected an integer.")
        if value < least:
            raise invalid(name, value, f"an integer >= {least}")
    if not floor >= 0 or not np.isfinite(floor):
        raise invalid("floor", floor, "a number >= 0")
    if zca is not None and not 0 < zca < np.inf:
        raise invalid("zca", zca, "None or a positive number")
    if not 0 <= threshold <= 1:
        raise invalid("threshold", threshold, "a number in [0, 1]")
    if len(filter_shape) != 2 or not all(1 <= f <= s for f, s in zip(filter_shape, images.shape[1:3], strict=True)):
        raise invalid("filter_shape", filter_shape, f"(height, width) of 1..{images.shape[1:3]}")
    shape = (int(filter_shape[0]), int(filter_shape[1]))
    absolute = floor * jnp.var(images)
    drawn = _draw_patches(key, images, num_filters, shape, stride)
    patches = normalise(drawn, jnp.maximum(absolute, jnp.finfo(images.dtype).tiny))
    whiten = jnp.eye(patches.shape[1], dtype=patches.dtype) if zca is None else _zca(patches, zca)
    neurons = residual_neurons(patches @ whiten)
    kept = np.flatnonzero(np.asarray(neurons.vertex))
    hidden = neurons.hidden[kept]
    features = PatchFeatures(
        whiten @ hidden[:, :-1].T, threshold * hidden[:, -1], absolute, shape, int(stride), int(pool)
    )
    features(images[:1])  # raises if the images are too small
    return features


def _with_channels(images: Any) -> Array:
    if images.ndim not in (3, 4):
        raise invalid("images", f"shape {images.shape}", "(n, H, W) or (n, H, W, channels)")
    return images[..., None] if images.ndim == 3 else images


def _draw_patches(key: Any, images: Array, num: int, shape: tuple[int, int], stride: int) -> Array:
    """Draw ``num`` distinct patches that are not constant, or fewer if there are not so many."""
    rows, cols = output_positions(images.shape[1:3], shape, (stride, stride), "VALID")
    host = np.asarray(images)
    which, place = jax.random.split(key)
    count = 20 * num  # many patches are blank or drawn twice
    chosen = np.asarray(jax.random.randint(which, (count,), 0, len(host)))
    places = np.asarray(jax.random.randint(place, (count,), 0, rows * cols))
    top, left = (stride * index for index in np.divmod(places, cols))
    patches = np.stack(
        [host[i, t : t + shape[0], j : j + shape[1]].reshape(-1) for i, t, j in zip(chosen, top, left, strict=True)]
    )
    spread = np.ptp(patches, axis=1)
    patches = patches[spread > 1e-3 * max(spread.max(), np.finfo(host.dtype).tiny)]
    _, distinct = np.unique(patches, axis=0, return_index=True)
    patches = patches[np.sort(distinct)][:num]
    if len(patches) < 2:
        raise invalid("images", "patches that are all constant or equal", "at least two different ones")
    return jnp.asarray(patches)


def _zca(patches: Array, strength: float) -> Array:
    """``(C + strength * mean eigenvalue * I)^(-1/2)``, C the second moment of the patches. Their means are zero."""
    size, directions = jnp.linalg.eigh(patches.T @ patches / len(patches))
    return (directions / jnp.sqrt(jnp.maximum(size, 0) + strength * jnp.mean(size))) @ directions.T
