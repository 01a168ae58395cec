"""jaxcvx.torch is imported on first use, and needs no torch."""

import jaxcvx
from jaxcvx.integrations import torch


def test_public_names_of_torch():
    assert jaxcvx.torch.from_torch is torch.from_torch
    assert jaxcvx.torch.__all__ == ["from_torch"]
