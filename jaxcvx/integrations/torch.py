"""Networks from modules of torch, by their state dict. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcvx.errors import InvalidTypeError, invalid, shown, wrong_type
from jaxcvx.features.dense import Dense
from jaxcvx.networks.network import Network
from jaxcvx.numerics.arrays import plain_array

_EXPECTED = "two linear layers, as in Sequential(Linear, ReLU, Linear)"
_HARMLESS = ("ReLU", "Dropout", "Identity", "Flatten")  # modules without weights that may stand beside the layers


def from_torch(module: Any) -> Network:
    """Convert a module of two linear layers with relu between them, or its state dict, to a network.

    The module is ``Sequential(Linear, ReLU, Linear)``, or one of your own with two linear layers of which the hidden
    one comes first. A state dict, and the source of your own module, tell nothing of the activation: it must be relu.
    Dropout counts as switched off. Torch itself is not needed: entries are tensors or arrays.

    Args:
      module: an object with ``state_dict()``; or a mapping from names, such as "0.weight" and "0.bias", to weights
        (out, in) and biases (out,).

    Returns:
      A network of ``Dense(bias=..., output_bias=...)``, with the biases that the layers have, in numpy arrays on the
      host. Weight decay includes the hidden biases; ``dataclasses.replace(network, features=FreeBias())`` is the
      same network without weight decay on biases.

    Raises:
      InvalidTypeError: another object, or an entry that numpy cannot read.
      InvalidInputError: another number of layers, other modules, or shapes that do not fit each other.

    Example:
      >>> import numpy as np
      >>> import jaxcvx
      >>> from jaxcvx.torch import from_torch
      >>> state = {"0.weight": np.array([[1.0], [-1.0]]), "2.weight": np.array([[2.0, 3.0]]), "2.bias": np.array([0.5])}
      >>> network = from_torch(state)
      >>> print(network(np.array([[-1.0], [1.0]])), network.features.output_bias)
      [[3.5]
       [2.5]] True
    """
    state = module
    if not isinstance(module, Mapping):
        if not callable(getattr(module, "state_dict", None)):
            raise wrong_type("module", module, "a module with state_dict(), or a state dict")
        _check_modules(module)
        state = module.state_dict()
    layers = _layers(state)
    if len(layers) != 2:
        raise invalid("module", f"{len(layers)} layers ({', '.join(layers)})", _EXPECTED)
    (first, hidden), (second, output) = ((name, _checked(name, layer)) for name, layer in layers.items())
    if hidden["weight"].shape[0] != output["weight"].shape[1]:
        shapes = f"weights of shapes {hidden['weight'].shape} of {first!r} and {output['weight'].shape} of {second!r}"
        raise invalid("module", shapes, "(m, d) of the hidden layer, then (c, m) of the output layer")
    U: Any = hidden["weight"]
    if "bias" in hidden:
        U = np.concatenate([U, hidden["bias"][:, None]], axis=1)
    V: Any = output["weight"].T
    bias: Any = output.get("bias")
    features = Dense(bias="bias" in hidden, output_bias=bias is not None)
    return Network(U, V, None, features, bias)


def _check_modules(module: Any) -> None:
    """Raise for parts of a module that the network has not; in a Sequential also for a wrong order of them."""
    names = [type(part).__name__ for part in _leaves(module)]
    others = [name for name in names if name not in ("Linear", *_HARMLESS)]
    if others:
        raise invalid("module", f"a module with {', '.join(others)}", _EXPECTED)
    if type(module).__name__ == "Sequential":
        order = [name for name in names if name in ("Linear", "ReLU")]
        if order != ["Linear", "ReLU", "Linear"]:
            raise invalid("module", f"Sequential({', '.join(names)})", _EXPECTED)


def _leaves(module: Any) -> list[Any]:
    """The parts of a module that have no parts themselves; none where the object cannot name its parts."""
    parts = list(module.children()) if callable(getattr(module, "children", None)) else []
    return [leaf for part in parts for leaf in (_leaves(part) or [part])]


def _layers(state: Any) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a state dict by layer and kind, in their order.

    Raises:
      InvalidTypeError, InvalidInputError: an entry that is not a weight or a bias of a layer.
    """
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in state.items():
        layer, _, kind = str(name).rpartition(".")
        if kind not in ("weight", "bias"):
            raise invalid("module", f"the entry {name!r}", "entries named LAYER.weight and LAYER.bias")
        layers.setdefault(layer, {})[kind] = _host_array(f"module[{name!r}]", tensor)
    return layers


def _host_array(name: str, tensor: Any) -> np.ndarray:
    """A tensor as a numpy array of its own, on the host."""
    try:
        for step in ("detach", "cpu", "numpy"):
            tensor = getattr(tensor, step)() if callable(getattr(tensor, step, None)) else tensor
    except Exception as err:  # torch has no numpy array for bfloat16 and for sparse tensors
        raise InvalidTypeError(f"{name}: got {shown(err)}, expected a dense tensor that numpy can hold.") from err
    return np.array(plain_array(name, tensor))


def _checked(layer: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of one layer, after a check of their shapes and numbers."""
    if "weight" not in arrays or arrays["weight"].ndim != 2:
        got = f"shape {arrays['weight'].shape}" if "weight" in arrays else "a bias without a weight"
        raise invalid(f"module[{layer + '.weight'!r}]", got, "a matrix (out, in) of a linear layer")
    size = arrays["weight"].shape[:1]
    if "bias" in arrays and arrays["bias"].shape != size:
        raise invalid(f"module[{layer + '.bias'!r}]", f"shape {arrays['bias'].shape}", f"{size}, the weight's rows")
    for kind, array in arrays.items():
        if not np.isfinite(array).all():
            raise invalid(f"module[{layer + '.' + kind!r}]", "NaN or infinity", "finite numbers")
    return arrays
