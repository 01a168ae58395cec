"""Spread a problem over a mesh of devices: samples over one axis, cells over another."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcvx.errors import InvalidTypeError, invalid, wrong_type
from jaxcvx.numerics.trees import is_traced
from jaxcvx.parallel.padding import padded_cells, padded_rows
from jaxcvx.problems.training import Problem


def make_mesh(samples: int | None = None, cells: int = 1) -> Mesh:
    """Create a mesh with the axes "samples" and "cells". Both have the type Auto: the compiler manages them.

    Args:
      samples: number of devices along samples. None: the number of all devices divided by ``cells``.
      cells: number of devices along cells.

    Raises:
      InvalidInputError: there are fewer devices.

    Example:
      >>> import jaxcvx
      >>> mesh = jaxcvx.parallel.make_mesh(samples=1)
      >>> mesh.axis_names, mesh.size
      (('samples', 'cells'), 1)
    """
    num = jax.device_count()
    if cells < 1 or cells > num:
        raise invalid("cells", cells, f"from 1 to {num}, the number of devices")
    samples = num // cells if samples is None else samples
    if samples < 1 or samples * cells > num:
        raise invalid("samples", samples, f"from 1 to {num // cells}: there are {num} devices")
    devices = jax.devices()[: samples * cells]
    return jax.make_mesh((samples, cells), ("samples", "cells"), (AxisType.Auto,) * 2, devices=devices)


def mesh_axes(mesh: Mesh, samples: str | None, cells: str | None) -> tuple[str, str | None]:
    """Return the names of the axes that split samples and cells. The defaults are the first and the second axis.

    Raises:
      InvalidTypeError: ``mesh`` is not a mesh.
      InvalidInputError: the mesh has no such axis, both names are the same, or an axis is not Auto.
    """
    if not isinstance(mesh, Mesh):
        raise wrong_type("mesh", mesh, "a jax.sharding.Mesh")
    names = list(mesh.axis_names)
    for argument, name in (("samples", samples), ("cells", cells)):
        if name is not None and name not in names:
            raise invalid(argument, repr(name), f"an axis of the mesh: {', '.join(map(repr, names))}")
    if samples is not None and samples == cells:
        raise invalid("cells", repr(cells), "another axis than that of the samples")
    left = [name for name in names if name not in (samples, cells)]
    if samples is None and not left:
        raise invalid("cells", repr(cells), "an axis that is not the only one: samples need one too")
    samples = samples or left.pop(0)
    cells = cells or (left[0] if left else None)
    for name in filter(None, (samples, cells)):
        kind = mesh.axis_types[names.index(name)]
        if kind != AxisType.Auto:
            raise invalid("mesh", f"axis {name!r} of type {kind.name}", "Auto axes: jaxcvx.parallel.make_mesh()")
    return samples, cells


def shard_problem(problem: Problem, mesh: Mesh, *, samples: str | None = None, cells: str | None = None) -> Problem:
    """Place a problem on several devices. Solve it under jit: ``jax.jit(lambda p: solve(p, solver))(sharded)``.

    X and Y are split over samples, masks over cells and samples, gates over cells. Every device holds beta. A product
    with the operator then costs one all-reduce: a sum of predictions over the cells' axis, or of gradients over the
    samples' axis.

    If the number of samples is not divisible by the number of devices, zero rows of X and Y are added. All cells
    contain them. They change no objective and no bound. This depends on the loss:

    * squared, Huber, interpolation: such a row is predicted as zero and its loss is zero. With a bias the prediction is
      not zero; then the problem is refused.
    * logistic, softmax: they become the weighted losses of :mod:`jaxcvx.losses.weighted`, with weight zero.
    * hinge: the loss of such a row is 1, and there is no weighted form. The problem is refused.

    If the number of cells is not divisible by the number of devices, cells without samples are added. Their blocks stay
    zero. Added cells come last: for P given cells the blocks are ``gather(solution.params)[:P]``, and the block of a
    skip connection is ``[-1]``. ``complete`` is kept. On several devices products are not formed in blocks
    (``max_bytes`` becomes None).

    Solvers take the same steps as on one device up to rounding, with two exceptions. The default phases of
    ProximalGradient choose the size of a working set by the number of cells, from 64 cells on. With a bias, added rows
    enter the first guess of the step length. With several outputs, the ReLU network that is made from a gated solution
    has as many candidate neurons as there are cells. Therefore added cells can change ``upper_bound``.

    Args:
      problem: a problem with concrete arrays. The prepared problem of a solver (``CopositiveADMM().prepare``) is not
        accepted.
      mesh: devices, on axes of type Auto: :func:`make_mesh`.
      samples: the mesh axis that splits samples; None for the first.
      cells: the mesh axis that splits cells; None for the second, if there is one.

    Raises:
      InvalidTypeError: problem or mesh has another type, or the problem is traced.
      InvalidInputError: an axis is missing or not Auto; or rows must be added and would change the objective.

    Example:
      >>> import jax
      >>> import jaxcvx
      >>> X = [[0.0], [1.0], [2.0]]
      >>> problem = jaxcvx.make_problem(X, [1.0, 0.0, 1.0], 0.1, arrangements=jaxcvx.enumerate_arrangements(X))
      >>> sharded = jaxcvx.parallel.shard_problem(problem, jaxcvx.parallel.make_mesh(samples=1))
      >>> solution = jax.jit(lambda p: jaxcvx.solve(p, jaxcvx.ProximalGradient()))(sharded)
      >>> jaxcvx.Status(int(solution.status)).name
      'CONVERGED'
    """
    if type(problem) is not Problem:
        raise wrong_type("problem", problem, "one from jaxcvx.make_problem")
    if is_traced(*jax.tree.leaves(problem)):
        raise InvalidTypeError("problem: got traced arrays, expected concrete ones: place outside jit, solve inside.")
    samples, cells = mesh_axes(mesh, samples, cells)
    problem = padded_rows(problem, -problem.num_samples % mesh.shape[samples])
    if cells is not None and problem.arrangements is not None:
        problem = padded_cells(problem, -problem.arrangements.num_cells % mesh.shape[cells])

    def put(array: Any, *axes: str | None) -> jax.Array:
        return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*axes)))

    arrangements = problem.arrangements
    if arrangements is not None:
        arrangements = dataclasses.replace(
            arrangements, masks=put(arrangements.masks, cells, samples), gates=put(arrangements.gates, cells)
        )
    return dataclasses.replace(
        problem,
        X=put(problem.X, samples),
        Y=put(problem.Y, samples),
        sample_weight=None if problem.sample_weight is None else put(problem.sample_weight, samples),
        beta=put(problem.beta),
        arrangements=arrangements,
        max_bytes=problem.max_bytes if mesh.size == 1 else None,
    )


def gather(tree: Any) -> Any:
    """Return a pytree with whole numpy arrays on every process. With several processes, all of them must call it.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxcvx
      >>> whole = jaxcvx.parallel.gather({"a": jnp.ones(2)})
      >>> type(whole["a"]).__name__, whole["a"].tolist()
      ('ndarray', [1.0, 1.0])
    """

    def whole(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            if leaf.is_fully_replicated:
                return np.asarray(leaf.addressable_data(0))
            from jax.experimental import multihost_utils

            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)
