"""A problem spread over a mesh of devices: samples over one axis, cells over another."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.numerics.trees import is_traced
from jaxcvx.parallel.padding import padded_cells, padded_rows
from jaxcvx.problems.training import Problem


def make_mesh(samples: int | None = None, cells: int = 1) -> Mesh:
    """A mesh with axes "samples" and "cells" that the compiler manages (Auto).

    Args:
      samples: devices along samples; None for all devices that ``cells`` leaves.
      cells: devices along cells.

    Raises:
      InvalidInputError: there are not that many devices.
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
    """Names of the axes that split samples and cells: those given, else the first and the second.

    Raises:
      InvalidTypeError: not a mesh.
      InvalidInputError: no such axis, twice the same, or one that is not Auto.
    """
    if not isinstance(mesh, Mesh):
        raise InvalidTypeError(f"mesh: got {type(mesh).__name__}, expected a jax.sharding.Mesh.")
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

    X and Y are split over samples, masks over cells and samples, gates over cells; beta is everywhere. A product with
    the operator then costs one all-reduce: of predictions over the cells' axis, or of gradients over the samples'.

    Where the devices don't divide the number of samples, zero rows of X and Y are added, on which all cells are open.
    They change no objective and no bound, by loss:

    * squared, Huber, interpolation: zero on such a row, as it is predicted as zero. With a bias it is not: refused.
    * logistic, softmax: become the weighted losses of :mod:`jaxcvx.losses.weighted`, with weight zero.
    * hinge: 1 on such a row, and there is no weighted form: refused.

    Where they don't divide the number of cells, cells are added that no sample is in, whose blocks stay zero.
    On several devices products are not formed in blocks (``max_bytes`` becomes None).
    ``complete`` is kept. Added cells come last: of P cells given the blocks are ``gather(solution.params)[:P]``, and a
    skip connection's is ``[-1]``.

    Solvers take the steps of one device up to rounding, with two exceptions: the default phases of ProximalGradient
    size a working set by the number of cells, from 64 on, and with a bias added rows enter the first guess of the step.
    With several outputs the network that is rounded from a gated solution has as many candidates as there are cells, so
    added cells can change ``upper_bound``.

    Args:
      problem: with concrete arrays. A solver's prepared problem (``CopositiveADMM().prepare``) is not taken.
      mesh: devices, on axes of type Auto: :func:`make_mesh`.
      samples: the mesh axis that splits samples; None for the first.
      cells: the mesh axis that splits cells; None for the second, if there is one.

    Raises:
      InvalidTypeError: problem or mesh is of another type, or the problem is traced.
      InvalidInputError: an axis is missing or not Auto; rows would have to be added, and would count.
    """
    if type(problem) is not Problem:
        raise InvalidTypeError(f"problem: got {type(problem).__name__}, expected one from jaxcvx.make_problem.")
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
        beta=put(problem.beta),
        arrangements=arrangements,
        max_bytes=problem.max_bytes if mesh.size == 1 else None,
    )


def gather(tree: Any) -> Any:
    """A pytree with its arrays whole and in numpy, on every process (a collective call where there are several)."""

    def whole(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            if leaf.is_fully_replicated:
                return np.asarray(leaf.addressable_data(0))
            from jax.experimental import multihost_utils

            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)
