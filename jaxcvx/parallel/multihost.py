"""Problems spread over several processes. Each process holds the rows it has loaded; all run the same program."""

from __future__ import annotations

import collections
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcvx.arrangements.cells import Arrangements
from jaxcvx.errors import JaxcvxError, invalid
from jaxcvx.losses.base import Loss
from jaxcvx.parallel.mesh import mesh_axes
from jaxcvx.parallel.padding import weighted_for_padding
from jaxcvx.problems.training import Problem, make_problem

_COMMON = ("X", "Y", "beta", "loss", "features", "gates")  # arguments that must agree on all processes, except for rows


def initialize(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> tuple[int, int]:
    """Join the other processes. Call this before any other function of jax.

    On TPU pods and under SLURM or Open MPI the environment gives all three arguments. Elsewhere they must be passed.

    Args:
      coordinator: "address:port" of process 0.
      num_processes: number of processes.
      process_id: number of this process, from 0 to num_processes - 1.

    Returns:
      ``(process_id, num_processes)``.

    Raises:
      InvalidInputError: one or two of the three arguments are missing, or process_id is out of range.

    Example:
      >>> from jaxcvx import parallel
      >>> parallel.initialize("localhost:1234", num_processes=2, process_id=0)  # doctest: +SKIP
      (0, 2)
    """
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    if any(given) and not all(given):
        raise invalid("coordinator", "some of coordinator, num_processes and process_id", "all of them, or none")
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise invalid("process_id", process_id, f"from 0 to {num_processes - 1}")
    jax.distributed.initialize(coordinator, num_processes, process_id)
    return jax.process_index(), jax.process_count()


def problem_from_local_rows(
    X: Any,
    Y: Any,
    beta: Any,
    mesh: Mesh,
    *,
    gates: Any = None,
    loss: str | Loss = "squared",
    features: Any = "dense",
    samples: str | None = None,
    cells: str | None = None,
) -> Problem:
    """Build one problem from the samples of all processes. Each process passes its own samples; all must call it.

    No process ever holds all rows: masks are computed on the devices that hold the rows. Processes with fewer rows than
    others get zero rows, and cells without samples fill up the cells' axis. Neither changes the objective (see
    :func:`jaxcvx.parallel.shard_problem`, also for the losses and features that are refused). Read results with
    :func:`jaxcvx.parallel.gather`. It gives all processes the whole arrays; ``params[:P]`` belongs to the P gates.

    Args:
      X: (m, d) inputs of this process, or in another shape that the features accept. m may differ between processes.
      Y: (m, c) or (m,) targets of this process. The softmax loss needs one-hot rows, since a process cannot count the
        classes of the others.
      beta: weight decay, the same on all processes.
      mesh: mesh over the devices of all processes, with axes of type Auto. The samples' axis must run over processes.
      gates: (P, p) directions, one for each cell, the same on all processes. None for no cells.
      loss, features: as in :func:`jaxcvx.make_problem`.
      samples, cells: names of mesh axes, as in ``shard_problem``.

    Raises:
      InvalidInputError, InvalidTypeError: ``make_problem`` refuses the data; gates or mesh do not fit; rows must be
        added and would change the objective; or the processes differ in an argument that must be the same. If one
        process raises, all do.

    Example:
      >>> import jaxcvx
      >>> mesh = jaxcvx.parallel.make_mesh(samples=1)
      >>> problem = jaxcvx.parallel.problem_from_local_rows([[1.0], [2.0]], [1.0, 0.0], 0.1, mesh, gates=[[1.0]])
      >>> problem.num_samples, problem.arrangements.num_cells
      (2, 1)
    """
    from jax.experimental import multihost_utils

    samples, cells = mesh_axes(mesh, samples, cells)
    shares = devices_per_process(mesh, samples)
    failure, local, directions = None, None, None
    common: dict[str, Any] = dict.fromkeys(_COMMON)
    try:
        local = _local_problem(X, Y, beta, loss, features)
        directions = _checked_gates(local, gates)
        common = _common(local, directions)
    except JaxcvxError as error:  # raised after the report below: without it the other processes would wait forever
        failure = error
    fingerprints = [zlib.crc32(repr(value).encode()) & 0x7FFFFFFF for value in common.values()]
    report = np.asarray([failure is None, 0 if local is None else local.num_samples, *fingerprints], np.int32)
    everywhere = np.asarray(multihost_utils.process_allgather(report)).reshape(-1, len(report))
    if failure is not None:
        raise failure
    assert local is not None
    check_reports(everywhere, common)

    rows = -(-int(everywhere[:, 1].max()) // shares) * shares
    if (everywhere[:, 1] != rows).any():
        local = weighted_for_padding(local, f"{rows} samples on every process")

    def spread(array: Any) -> jax.Array:
        host = np.asarray(array)
        host = np.concatenate([host, np.zeros((rows - len(host), *host.shape[1:]), host.dtype)])
        return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec(samples)), host)

    whole_X, whole_Y = spread(local.X), spread(local.Y)
    weight = None if local.sample_weight is None else spread(local.sample_weight)
    whole = Problem(whole_X, whole_Y, _everywhere(mesh, local.beta), None, local.loss, local.features, None, weight)
    if directions is None:
        return whole
    return whole.replace(arrangements=_cells(whole, mesh, directions, samples, cells))


def devices_per_process(mesh: Mesh, samples: str) -> int:
    """Return the number of places along the samples' axis that each process owns.

    Raises:
      InvalidInputError: the number differs between processes, or several processes share a place.
    """
    places = np.moveaxis(mesh.devices, mesh.axis_names.index(samples), 0).reshape(mesh.shape[samples], -1)
    owners = [{device.process_index for device in place} for place in places]
    counts = collections.Counter(min(owner) for owner in owners)
    shared = any(len(owner) > 1 for owner in owners)
    if shared or len(counts) != jax.process_count() or len(set(counts.values())) > 1:
        raise invalid(
            "mesh",
            f"processes {[sorted(owner) for owner in owners]} along {samples!r}",
            f"each place there on one process, and equally many on each of {jax.process_count()}",
        )
    return counts[0]


def _common(problem: Problem, gates: np.ndarray | None) -> dict[str, Any]:
    """Collect the values that must be the same on all processes, by argument."""
    values = (
        (problem.X.shape[1:], str(problem.dtype)),
        problem.num_outputs,
        float(problem.beta),
        problem.loss,
        problem.features,
        None if gates is None else (gates.shape, zlib.crc32(gates.tobytes())),
    )
    return dict(zip(_COMMON, values, strict=True))


def check_reports(everywhere: np.ndarray, common: dict[str, Any]) -> None:
    """Raise unless all processes have valid data and agree.

    Args:
      everywhere: (processes, 2 + k) one report per process: 1 if its data are valid, its number of rows, and k
        fingerprints.
      common: the k values with these fingerprints, on this process.

    Raises:
      InvalidInputError: names the processes with invalid data, or the argument that differs.
    """
    bad = np.flatnonzero(everywhere[:, 0] == 0).tolist()
    if bad:
        where = ", ".join(map(str, bad))
        raise invalid("X, Y, beta or gates", f"an error on process {where}", "what all processes accept")
    for k, (name, value) in enumerate(common.items(), start=2):
        if (everywhere[:, k] != everywhere[0, k]).any():
            raise invalid(name, f"different ones, here {value}", "the same on all processes")


def _local_problem(X: Any, Y: Any, beta: Any, loss: str | Loss, features: Any) -> Problem:
    """Build a problem from the samples of this process only."""
    local = make_problem(X, Y, beta, loss=loss, features=features)
    if local.loss.kind == "label" and np.ndim(Y) != 2:
        raise invalid("Y", f"shape {np.shape(Y)}", "one-hot rows (m, c): classes can't be counted locally")
    return local


def _checked_gates(problem: Problem, gates: Any) -> np.ndarray | None:
    if gates is None:
        return None
    host = np.asarray(gates)
    width = problem.features.num_weights(*problem.X.shape[1:])
    if host.ndim != 2 or host.shape[1] != width or not len(host) or not np.isfinite(host).all():
        raise invalid("gates", f"shape {host.shape}", f"finite numbers of shape (P, {width})")
    return host.astype(problem.dtype)


def _everywhere(mesh: Mesh, array: Any, *axes: str | None) -> jax.Array:
    """Build a global array from data that every process holds completely."""
    host = np.asarray(array)
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _cells(problem: Problem, mesh: Mesh, gates: np.ndarray, samples: str, cells: str | None) -> Arrangements:
    """Build the cells of the gates, and cells without samples until the devices divide their number."""
    extra = -len(gates) % mesh.shape[cells] if cells is not None else 0
    placed = _everywhere(mesh, np.pad(gates, ((0, extra), (0, 0))), cells)
    given = _everywhere(mesh, np.arange(len(gates) + extra) < len(gates), cells)

    def masks_of(X: jax.Array, gates: jax.Array, given: jax.Array) -> jax.Array:
        values = jnp.matmul(gates, problem.features.matrix(X).T, precision=jax.lax.Precision.HIGHEST)
        return (values >= 0) & given[:, None]

    sharding = NamedSharding(mesh, PartitionSpec(cells, samples))
    return Arrangements(jax.jit(masks_of, out_shardings=sharding)(problem.X, placed, given), placed)
