"""Networks from modules of torch. Torch is not installed here: the modules are stand-ins with its methods."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxcvx
from jaxcvx.torch import from_torch
from tests.helpers import gaussian_data


class Tensor:
    """Like a tensor with gradients on an accelerator: numpy gets it by detach, cpu, numpy only, and in this order."""

    def __init__(self, array, done=()):
        self.array, self.done = array, done

    def detach(self):
        return Tensor(self.array, (*self.done, "detach"))

    def cpu(self):
        return Tensor(self.array, (*self.done, "cpu"))

    def numpy(self):
        if set(self.done) != {"detach", "cpu"}:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return self.array

    def __array__(self, *_, **__):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


class Module:
    """Like torch.nn.Module: parts with names."""

    def __init__(self, **parts):
        self.parts = parts

    def children(self):
        return iter(self.parts.values())

    def state_dict(self):
        return {f"{name}.{key}": value for name, part in self.parts.items() for key, value in part.state_dict().items()}


class Sequential(Module):
    def __init__(self, *parts):
        super().__init__(**{str(i): part for i, part in enumerate(parts)})


class Linear(Module):
    def __init__(self, inputs, outputs, bias=True, seed=0):
        super().__init__()
        rng = np.random.default_rng([seed, inputs])
        self.state = {"weight": rng.standard_normal((outputs, inputs)).astype(np.float32)}
        if bias:
            self.state["bias"] = rng.standard_normal(outputs).astype(np.float32)

    def state_dict(self):
        return {name: Tensor(array) for name, array in self.state.items()}

    def __call__(self, X):
        return X @ self.state["weight"].T + self.state.get("bias", 0)


class ReLU(Module):
    pass


class Tanh(Module):
    pass


class Dropout(Module):
    pass


def outputs(hidden, output, X):
    return output(np.maximum(hidden(X), 0))


@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, True), (False, False)])
def test_outputs_and_certificate(biases):
    X, Y = gaussian_data(0, 12, 2)
    hidden, output = Linear(2, 5, biases[0]), Linear(5, 1, biases[1])
    network = from_torch(Sequential(hidden, ReLU(), Dropout(), output))
    assert network.features == jaxcvx.Dense(bias=biases[0], output_bias=biases[1])
    assert network.hidden.dtype == np.float32
    F = outputs(hidden, output, X)
    np.testing.assert_allclose(network(X), F, rtol=1e-6, atol=1e-9)
    penalised = [*hidden.state.values(), output.state["weight"]]
    value = 0.5 * ((F - Y) ** 2).sum() + 0.3 / 2 * sum((part.astype(float) ** 2).sum() for part in penalised)
    certificate = jaxcvx.certify(network, X, Y, 0.3)
    assert certificate.upper == pytest.approx(value, rel=1e-9)
    assert certificate.scope == "global" and 0 < certificate.lower <= certificate.upper


def test_state_dicts_and_own_modules():
    hidden, output = Linear(3, 4), Linear(4, 2)
    state = Module(fc1=hidden, act=ReLU(), fc2=output).state_dict()
    X, _ = gaussian_data(0, 6, 3)
    expected = outputs(hidden, output, X)
    arrays = {name: tensor.array for name, tensor in state.items()}
    nested = Module(model=Sequential(hidden, ReLU(), output))
    for given in (state, arrays, nested, Module(fc1=hidden, fc2=output)):
        np.testing.assert_allclose(from_torch(given)(X), expected, rtol=1e-6, atol=1e-9)
    network = from_torch(arrays)
    arrays["fc2.weight"][:] = 0  # the network has arrays of its own
    assert network.output.any()


NAN = np.full((1, 2), np.nan)
BAD = {
    "three layers": (Sequential(Linear(2, 3), ReLU(), Linear(3, 3), ReLU(), Linear(3, 1)), "Sequential"),
    "one layer": ({"weight": np.ones((2, 2))}, "1 layers"),
    "three layers in a state dict": ({f"{i}.weight": np.ones((2, 2)) for i in range(3)}, r"3 layers \(0, 1, 2\)"),
    "another activation": (Sequential(Linear(2, 3), Tanh(), Linear(3, 1)), "Tanh.*two linear layers"),
    "no activation": (Sequential(Linear(2, 3), Linear(3, 1)), r"Sequential\(Linear, Linear\)"),
    "activation in the wrong place": (Sequential(Linear(2, 3), Linear(3, 1), ReLU()), "Sequential"),
    "shapes in the wrong order": (Module(a=Linear(3, 1), b=Linear(2, 3)), r"\(1, 3\) of 'a' and \(3, 2\) of 'b'"),
    "a convolution": ({"0.weight": np.ones((2, 1, 3)), "2.weight": np.ones((1, 2))}, r"'0.weight'.*\(2, 1, 3\)"),
    "a bias of another size": (
        {"0.weight": np.ones((2, 1)), "0.bias": np.ones(3), "2.weight": NAN},
        r"'0.bias'.*\(3,\)",
    ),
    "a bias alone": ({"0.bias": np.ones(2), "2.weight": np.ones((1, 2))}, "'0.weight'.*a bias without a weight"),
    "statistics of a normalisation": ({"1.running_mean": np.ones(2)}, "'1.running_mean'.*LAYER.weight"),
    "not a number": ({"0.weight": np.ones((2, 1)), "2.weight": NAN}, "'2.weight'.*NaN or infinity.*finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_other_modules_are_refused(case):
    module, message = BAD[case]
    with pytest.raises(jaxcvx.InvalidInputError, match=rf"^module.*{message}"):
        from_torch(module)


def test_other_objects_are_refused():
    class Half(Tensor):
        def numpy(self):
            raise TypeError("Got unsupported ScalarType BFloat16")

        detach = cpu = lambda self: self

    with pytest.raises(jaxcvx.InvalidTypeError, match="module: got ndarray.*state_dict"):
        from_torch(np.ones((2, 2)))
    with pytest.raises(jaxcvx.InvalidTypeError, match=r"module\['0.weight'\]: got .*BFloat16"):
        from_torch({"0.weight": Half(np.ones((2, 2)))})
    with pytest.raises(jaxcvx.InvalidTypeError, match=r"module\['0.weight'\].*real"):
        from_torch({"0.weight": "text"})


def test_no_module_imports_torch():
    for path in Path(jaxcvx.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert not [name for name in names if name.split(".")[0] == "torch"], path
    code = "import sys; sys.modules['torch'] = None; import jaxcvx; print(jaxcvx.torch.from_torch.__name__)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "from_torch"
