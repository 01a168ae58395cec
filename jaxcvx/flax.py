"""flax modules; see :mod:`jaxcvx.integrations.flax`."""

from jaxcvx.integrations.flax import ConvexReLU, from_nnx, to_nnx

__all__ = ["ConvexReLU", "from_nnx", "to_nnx"]
