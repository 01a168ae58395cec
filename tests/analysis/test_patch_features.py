"""Patch features against loops in numpy; filters as extreme points; refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.analysis.patch_features import PatchFeatures, normalise


def _images(seed=0, n=6, shape=(7, 6)):
    return np.random.default_rng(seed).standard_normal((n, *shape))


def _by_loops(features: PatchFeatures, images: np.ndarray) -> np.ndarray:
    """Compute the features of (n, H, W, ch) images patch by patch."""
    (fh, fw), step, pool = features.filter_shape, features.stride, features.pool
    rows, cols = (images.shape[1] - fh) // step + 1, (images.shape[2] - fw) // step + 1
    out = []
    for image in images:
        activation = np.zeros((rows, cols, features.num_filters))
        for i in range(rows):
            for j in range(cols):
                patch = image[i * step : i * step + fh, j * step : j * step + fw].reshape(-1)
                patch = (patch - patch.mean()) / np.sqrt(patch.var() + float(features.floor))
                activation[i, j] = np.maximum(patch @ np.asarray(features.filters) + np.asarray(features.bias), 0)
        for part in np.array_split(activation, pool, axis=0):
            out += [region.max(axis=(0, 1)) for region in np.array_split(part, pool, axis=1)]
    return np.stack(out).reshape(len(images), -1)


@pytest.mark.routine(1)
@pytest.mark.parametrize("channels, stride, pool", [(1, 1, 2), (2, 2, 1), (1, 1, 3)])
def test_features_equal_loops(channels, stride, pool):
    images = _images(shape=(7, 6, channels))
    features = jaxcvx.fit_patch_features(
        jax.random.key(0), images, 12, filter_shape=(3, 2), stride=stride, pool=pool, threshold=0.5
    )
    np.testing.assert_allclose(features(images), _by_loops(features, images), rtol=1e-10, atol=1e-12)
    assert features(images).shape == (6, pool * pool * features.num_filters)
    if channels == 1:
        np.testing.assert_array_equal(features(images[..., 0]), features(images))


def test_each_filter_is_activated_by_its_own_patch_only():
    """With the lemma's full bias no drawn patch activates two filters, and each filter is activated by one patch."""
    images = _images(1, 40)
    features = jaxcvx.fit_patch_features(
        jax.random.key(1), images, 30, filter_shape=(3, 3), floor=0.0, zca=None, threshold=1.0
    )
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2)).reshape(-1, 9)
    scores = normalise(windows, 0.0) @ features.filters
    # Of the drawn patches, a filter's own patch has the largest score; patches with a larger score were not drawn.
    # Here the drawn patches are recognised because they activate exactly one filter by a margin.
    norms = np.linalg.norm(features.filters, axis=0)
    np.testing.assert_allclose(norms, 1.0, rtol=1e-10)
    active = np.asarray(scores + features.bias > 1e-9)
    alone = active[active.sum(axis=1) == 1]
    assert (alone.sum(axis=0) > 0).all()


def test_whitening_is_in_the_filters():
    """Whiten by hand: filters of whitened patches, applied to whitened patches, give the same features."""
    images = _images(2, 30)
    key = jax.random.key(2)
    plain = jaxcvx.fit_patch_features(key, images, 200, filter_shape=(2, 2), zca=None)
    white = jaxcvx.fit_patch_features(key, images, 200, filter_shape=(2, 2), zca=1e9)
    # With such a strong ridge the whitening is a multiple of the identity.
    unit = white.filters / jnp.linalg.norm(white.filters, axis=0)
    np.testing.assert_allclose(unit, plain.filters, atol=1e-6)


def test_jit_vmap_and_single_precision():
    images = jnp.asarray(_images(3), jnp.float32)
    features = jaxcvx.fit_patch_features(jax.random.key(0), images, 8, filter_shape=(3, 3))
    out = features(images)
    assert out.dtype == jnp.float32 and features.num_filters <= 8
    np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(features, images), out, rtol=1e-5, atol=1e-6)
    single_images = jax.vmap(lambda image: features(image[None])[0])(images)
    np.testing.assert_allclose(single_images, out, rtol=1e-5, atol=1e-6)
    again = jaxcvx.fit_patch_features(jax.random.key(0), images, 8, filter_shape=(3, 3))
    np.testing.assert_array_equal(again.filters, features.filters)


@pytest.mark.parametrize(
    "argument, change",
    [
        ("images", {"images": np.zeros((3, 4))}),
        ("images", {"images": np.full((3, 6, 6), np.nan)}),
        ("images", {"images": np.ones((3, 6, 6))}),
        ("images", {"images": np.random.default_rng(0).standard_normal((3, 4, 4)), "filter_shape": (4, 4)}),
        ("num_filters", {"num_filters": 1}),
        ("num_filters", {"num_filters": 2.5}),
        ("stride", {"stride": 0}),
        ("pool", {"pool": 0}),
        ("floor", {"floor": -1.0}),
        ("zca", {"zca": 0.0}),
        ("threshold", {"threshold": 2.0}),
        ("filter_shape", {"filter_shape": (9, 9)}),
        ("filter_shape", {"filter_shape": (3,)}),
    ],
)
def test_errors_name_the_argument(argument, change):
    arguments = {"images": _images(), "num_filters": 5, "filter_shape": (3, 3)} | change
    images, num = arguments.pop("images"), arguments.pop("num_filters")
    with pytest.raises(jaxcvx.JaxcvxError, match=argument):
        jaxcvx.fit_patch_features(jax.random.key(0), images, num, **arguments)


def test_other_channels_are_refused():
    features = jaxcvx.fit_patch_features(jax.random.key(0), _images(), 5, filter_shape=(3, 3))
    with pytest.raises(jaxcvx.InvalidInputError, match="channels"):
        features(np.zeros((2, 7, 6, 3)))
