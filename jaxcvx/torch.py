"""The converter of torch modules of :mod:`jaxcvx.integrations.torch`. It does not import torch."""

from jaxcvx.integrations.torch import from_torch

__all__ = ["from_torch"]
