"""Patch features as a scikit-learn transformer, for image pipelines that end with a convex head."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from jaxcvx.analysis.patch_features import PatchFeatures, fit_patch_features
from jaxcvx.errors import invalid, require_extra

require_extra("sklearn", "estimators")

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin  # noqa: E402
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.validation import check_array, check_is_fitted, validate_data  # noqa: E402

from jaxcvx.integrations.sklearn_base import own_array  # noqa: E402

_ROWS = 256  # number of images whose patches are in memory at a time


class ConvexPatchFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Image features: convolution with extreme points of random patches, ReLU and max-pooling.

    Use it in a pipeline, for example
    ``make_pipeline(ConvexPatchFeatures(image_shape=(8, 8)), StandardScaler(), ConvexReLUClassifier())``.

    Parameters:
      image_shape: (H, W) or (H, W, channels) of the image in each row of X. None if X is an array of images
        (n, H, W[, channels]).
      n_filters: number of patches drawn. The filters are the vertices of their hull, perhaps fewer.
      filter_shape, stride, pool, floor, zca, threshold: as in :func:`jaxcvx.fit_patch_features`.
      random_state: seed of the patches.

    Attributes:
      features_: the :class:`jaxcvx.PatchFeatures`.
      n_features_in_, feature_names_in_: as everywhere in scikit-learn, with ``image_shape``. Features out are named
        "convexpatchfeatures0" and so on, which ``set_output(transform="pandas")`` makes the columns of a table.

    Source: T. Ergen and M. Pilanci, JMLR 22 (2021), algorithm 2 (Convex-RF).

    Example:
      >>> import numpy as np
      >>> from jaxcvx.estimators import ConvexPatchFeatures
      >>> images = np.random.default_rng(0).standard_normal((5, 16))
      >>> features = ConvexPatchFeatures(image_shape=(4, 4), n_filters=3, filter_shape=(2, 2), random_state=0)
      >>> features.fit_transform(images).shape  # three filters in 2 x 2 regions
      (5, 12)
    """

    features_: PatchFeatures

    def __init__(
        self,
        *,
        image_shape=None,
        n_filters=200,
        filter_shape=(4, 4),
        stride=1,
        pool=2,
        floor=0.1,
        zca=0.1,
        threshold=0.0,
        random_state=None,
    ):
        self.image_shape = image_shape
        self.n_filters = n_filters
        self.filter_shape = filter_shape
        self.stride = stride
        self.pool = pool
        self.floor = floor
        self.zca = zca
        self.threshold = threshold
        self.random_state = random_state

    def _images(self, X: Any, reset: bool) -> np.ndarray:
        X = own_array("X", X)
        images = check_array(X, dtype=np.float64, ensure_2d=False, allow_nd=True)
        if self.image_shape is None:
            return images
        shape = tuple(self.image_shape)
        if images.ndim != 2 or images.shape[1] != math.prod(shape):
            raise invalid("X", f"shape {images.shape}", f"(n, {math.prod(shape)}), rows of images of shape {shape}")
        X = validate_data(self, X, reset=reset, dtype=np.float64)
        return X.reshape(len(X), *shape)

    def fit(self, X, y=None):
        """Draw the patches and compute the filters. y is not used."""
        images = self._images(X, True)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with jax.enable_x64(True):  # as everywhere in scikit-learn
            features = fit_patch_features(
                jax.random.key(seed),
                images,
                self.n_filters,
                filter_shape=self.filter_shape,
                stride=self.stride,
                pool=self.pool,
                floor=self.floor,
                zca=self.zca,
                threshold=self.threshold,
            )
            self.features_ = jax.tree.map(np.asarray, features)
            shape = jax.eval_shape(features, jax.ShapeDtypeStruct((1, *images.shape[1:]), np.float64)).shape
        self._n_features_out = shape[1]
        return self

    def transform(self, X):
        """Compute the features (n, pool * pool * filters), 256 images at a time."""
        check_is_fitted(self)
        images = self._images(X, False)
        blocks = []
        with jax.enable_x64(True):
            for start in range(0, len(images), _ROWS):
                block = images[start : start + _ROWS]
                padded = np.concatenate([block, np.zeros((_ROWS - len(block), *block.shape[1:]))])
                blocks.append(np.asarray(_apply(self.features_, padded))[: len(block)])
        return np.concatenate(blocks)


_apply = jax.jit(lambda features, images: features(images))
