"""The flax modules of :mod:`jaxcvx.integrations.flax`, ``flax_layer``, ``flax_features`` and ``alternating``."""

from jaxcvx.integrations.alternating import Alternation, alternate
from jaxcvx.integrations.flax import ConvexReLU, fit_head, from_nnx, to_nnx
from jaxcvx.integrations.flax_features import extract_features
from jaxcvx.integrations.flax_layer import ConvexLayer

__all__ = [
    "Alternation",
    "ConvexLayer",
    "ConvexReLU",
    "alternate",
    "extract_features",
    "fit_head",
    "from_nnx",
    "to_nnx",
]
