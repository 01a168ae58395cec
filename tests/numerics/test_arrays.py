"""Array types of many libraries at every entry point: taken rightly, or one error that names the argument."""

from __future__ import annotations

import array
import decimal
import fractions
import importlib.util
import warnings

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from jax.experimental import sparse

import jaxcvx
from jaxcvx.errors import JaxcvxError
from jaxcvx.numerics.arrays import plain_array

VALUES = np.array([[1.0, -1.0], [2.0, 0.0], [-1.0, 3.0], [0.0, 2.0], [1.0, 1.0]])
SECRET = -999.0  # what stands behind a mask


class Tensor:
    """An array of another library that numpy can read."""

    def __init__(self, values, error=None):
        self.values, self.error, self.shape = values, error, values.shape

    def __array__(self, dtype=None, copy=None):
        if self.error is not None:
            raise self.error
        return np.asarray(self.values, dtype)


class Exchanged:
    """An array that only DLPack can read."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


def masked(some):
    filled = VALUES.copy()
    filled[0, 0] = SECRET if some else filled[0, 0]
    return np.ma.array(filled, mask=np.eye(5, 2, dtype=bool) & some & (np.arange(5) == 0)[:, None])


class View(np.ndarray):
    pass


def missing(value, dtype=None):
    table = pd.DataFrame({"a": [value, 2, 3, 4, 5], "b": [1, 2, 3, 4, 5]})
    return table if dtype is None else table.astype(dtype)


def _matrix():
    """numpy's old matrix class, which warns wherever it is made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asmatrix(VALUES)


def _arrow():
    """Columns of pyarrow, where it is installed."""
    if importlib.util.find_spec("pyarrow") is None:
        return {}
    return {"arrow": pd.DataFrame(VALUES, columns=["a", "b"]).convert_dtypes(dtype_backend="pyarrow")}


TAKEN = {
    **_arrow(),
    **{name: VALUES.astype(name) for name in (">f8", ">f4", ">i2", ">i8", "<f2", "longdouble", "int8", "f4")},
    "uint64": np.abs(VALUES).astype("uint64"),
    "bool": VALUES > 0,
    "bfloat16": VALUES.astype(ml_dtypes.bfloat16),
    "float8": VALUES.astype(ml_dtypes.float8_e4m3fn),
    "int4": VALUES.astype(ml_dtypes.int4),
    "jax bfloat16": jnp.asarray(VALUES, jnp.bfloat16),
    "no mask": masked(False),
    "list of unmasked": [np.ma.array(row) for row in VALUES],
    "objects": VALUES.astype(object),
    "decimals": [[decimal.Decimal(int(a)) for a in row] for row in VALUES],
    "fractions": [[fractions.Fraction(int(a)) for a in row] for row in VALUES],
    "mixed numbers": [[int(VALUES[i, 0]), np.float32(VALUES[i, 1])] for i in range(5)],
    "frame": pd.DataFrame(VALUES, columns=["a", "b"]),
    "nullable": pd.DataFrame(VALUES, columns=["a", "b"]).astype("Int64"),
    "nullable floats": pd.DataFrame(VALUES, columns=["a", "b"]).astype("Float32"),
    "frame of two types": pd.DataFrame({"a": VALUES[:, 0].astype(int), "b": VALUES[:, 1]}).astype({"b": "Float64"}),
    "sparse columns": pd.DataFrame(VALUES).astype(pd.SparseDtype(float, 0.0)),
    "matrix": _matrix(),
    "subclass": VALUES.view(View),
    "reversed": VALUES[::-1][::-1],
    "Fortran": np.asfortranarray(VALUES),
    "read only": np.broadcast_to(VALUES, VALUES.shape),
    "tensor": Tensor(VALUES),
    "DLPack": Exchanged(VALUES),
    "tuples": tuple(map(tuple, VALUES)),
    "buffers": [array.array("d", row) for row in VALUES],
}
REFUSED = {
    "masked": masked(True),
    "list of masked": [*masked(True)],
    "masked constant": [[np.ma.masked, 1.0], *VALUES[1:].tolist()],
    "masked integers": masked(True).astype(int),
    "csr": scipy.sparse.csr_array(VALUES),
    "coo matrix": scipy.sparse.coo_matrix(VALUES),
    "BCOO": sparse.BCOO.fromdense(VALUES),
    "None": [[None, 1.0], *VALUES[1:].tolist()],
    "pd.NA": missing(pd.NA, "Int64"),
    "object pd.NA": missing(pd.NA, object),
    "NaT": missing(pd.NaT, object),
    "NaN": missing(np.nan),
    "decimal NaN": [[decimal.Decimal("NaN"), 1], *VALUES[1:].astype(int).tolist()],
    "text": VALUES.astype(str),
    "bytes": VALUES.astype("S4"),
    "text column": pd.DataFrame({"a": VALUES[:, 0], "b": list("abcde")}),
    "category": pd.DataFrame({"a": VALUES[:, 0], "b": pd.Categorical(list("abcde"))}),
    "dates": pd.DataFrame({"a": pd.date_range("2020-01-01", periods=5), "b": VALUES[:, 0]}),
    "datetime64": np.full((5, 2), "2020-01-01", "datetime64[D]"),
    "timedelta64": np.full((5, 2), 1, "timedelta64[s]"),
    "complex": VALUES + 0j,
    "complex256": VALUES.astype("clongdouble"),
    "records": np.zeros((5, 2), [("a", float)]),
    "ragged": [[1.0, 2.0], [3.0]],
    "dict": {"a": 1.0},
    "set": {1.0, 2.0},
    "generator": (row for row in VALUES),
    "needs gradients": Tensor(VALUES, RuntimeError("Can't call numpy() on Tensor that requires grad.")),
    "other device": Tensor(VALUES, TypeError("can't convert cuda:0 device type tensor to numpy.")),
    "beyond float64": np.array([["1e400", "1"]] * 5).astype("longdouble"),
    "random keys": jax.random.split(jax.random.key(0), (5, 2)),
}
CASES = jaxcvx.enumerate_arrangements(VALUES)
NETWORK = jaxcvx.Network(np.eye(2), np.ones((2, 1)))
y = VALUES[:, 0]


def _fitted():
    from jaxcvx.estimators import ConvexReLURegressor

    return ConvexReLURegressor(
        beta=1.0, solver=jaxcvx.ColumnGeneration(width=4, new_neurons=4, move_steps=1, max_steps=1), random_state=0
    )


ENTRIES = {  # the argument that the error names, and a function of a matrix (5, 2)
    "make_problem X": ("X", lambda A: jaxcvx.make_problem(A, y, 0.5).X),
    "make_problem Y": ("Y", lambda A: jaxcvx.make_problem(VALUES, A, 0.5).Y),
    "training_objective": ("X", lambda A: jaxcvx.training_objective(NETWORK, A, y, 0.5)),
    "training_objective hidden": (
        "network.hidden",
        lambda A: jaxcvx.training_objective(jaxcvx.Network(A, np.ones((5, 1))), VALUES, y, 0.5),
    ),
    "certify X": ("X", lambda A: jaxcvx.certify(NETWORK, A, y, 0.5, arrangements=CASES).upper),
    "certify Y": ("Y", lambda A: jaxcvx.certify(_wide(), VALUES, A, 0.5, arrangements=CASES).upper),
    "enumerate_arrangements": ("X", lambda A: jaxcvx.enumerate_arrangements(A).gates),
    "sample_arrangements": ("X", lambda A: jaxcvx.sample_arrangements(jax.random.key(0), A, 3).gates),
    "arrangements_of": ("X", lambda A: jaxcvx.arrangements_of(NETWORK, A).masks),
    "network": ("X", lambda A: NETWORK(A)),
    "extreme_points": ("X", lambda A: jaxcvx.is_spike_free(A)),
}


def _wide():
    return jaxcvx.Network(np.eye(2), np.ones((2, 2)))


def flat(tree):
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", TAKEN)
def test_numbers_of_every_type_are_taken(kind, entry):
    call, given = ENTRIES[entry][1], TAKEN[kind]
    plain = np.asarray(given.values if isinstance(given, Tensor | Exchanged) else plain_array("X", given), np.float64)
    try:
        expected = call(plain)
    except JaxcvxError:
        with pytest.raises(JaxcvxError):
            call(given)
        return
    np.testing.assert_allclose(flat(call(given)), flat(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Python iterable type 'generator':DeprecationWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # infinity times zero
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", REFUSED)
def test_everything_else_is_refused_with_the_name_of_the_argument(kind, entry):
    name, call = ENTRIES[entry]
    if entry == "network" and kind in ("NaN", "decimal NaN", "beyond float64"):  # predictions may be of any numbers
        assert not np.isfinite(call(REFUSED[kind])).all()
        return
    with pytest.raises(JaxcvxError) as caught:
        call(REFUSED[kind])
    assert name in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert str(SECRET) not in str(caught.value)


def test_the_values_are_those_of_the_array():
    for kind, given in TAKEN.items():
        host = plain_array("X", given)
        assert type(host) is np.ndarray and host.dtype.isnative and host.itemsize <= 8, kind
        expected = {"bool": VALUES > 0, "uint64": np.abs(VALUES)}.get(kind, VALUES)
        np.testing.assert_array_equal(np.asarray(host, np.float64), expected)


def test_a_bad_column_of_a_table_is_named():
    with pytest.raises(JaxcvxError, match=r"column 'b'"):
        plain_array("X", REFUSED["text column"])
    with pytest.raises(JaxcvxError, match=r"missing value.*column 'a'|column 'a', a missing value"):
        plain_array("X", REFUSED["object pd.NA"])


@pytest.mark.parametrize("name", ["sample_weight", "betas", "values", "rows"])
def test_masked_vectors_are_refused_everywhere(name):
    vector = np.ma.array([1.0, SECRET, 1.0, 1.0, 1.0], mask=[0, 1, 0, 0, 0])
    calls = {
        "sample_weight": lambda: jaxcvx.make_problem(VALUES, y, 0.5, sample_weight=vector),
        "betas": lambda: jaxcvx.regularization_path(
            jaxcvx.make_problem(VALUES, y, 0.5), vector, jaxcvx.ColumnGeneration()
        ),
        "values": lambda: jaxcvx.MatrixCompletion(np.arange(5), np.arange(5), vector, (5, 5), 1),
        "rows": lambda: jaxcvx.MatrixCompletion(vector.astype(int), np.arange(5), np.ones(5), (5, 5), 1),
    }
    with pytest.raises(JaxcvxError, match=f"{name}: got 1 masked entries"):
        calls[name]()


@pytest.mark.parametrize("method", ["fit", "predict", "y", "sample_weight"])
def test_estimators_refuse_masked_entries(method):
    from jaxcvx.estimators import ConvexReLURegressor

    model = ConvexReLURegressor(beta=1.0, max_iter=1)
    hidden = np.ma.array(y, mask=[1, 0, 0, 0, 0])
    with pytest.raises(JaxcvxError, match="masked"):
        if method == "fit":
            model.fit(masked(True), y)
        elif method == "y":
            model.fit(VALUES, hidden)
        elif method == "sample_weight":
            model.fit(VALUES, y, np.abs(hidden))
        else:
            model.network_, model.n_features_in_, model._flat = NETWORK, 2, True
            model.predict(masked(True))


@pytest.mark.parametrize("absent", [None, pd.NA, float("nan"), np.ma.masked, pd.NaT])
def test_missing_labels_are_refused_in_one_line(absent):
    from jaxcvx.estimators import ConvexReLUClassifier

    labels = np.array(["a", "b", "a", "b", "a"], object)
    if absent is np.ma.masked:
        labels = np.ma.array(["a", "b", "a", "b", "a"], mask=[0, 0, 1, 0, 0])
    else:
        labels[2] = absent
    with pytest.raises(JaxcvxError, match=r"^y: got .*(missing|masked).*index \(2,\)|^y: got .*index \(2,\).*missing"):
        ConvexReLUClassifier(beta=1.0).fit(VALUES, labels)
