"""Several processes: each holds the rows it has loaded, and all run the same program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcvx.arrangements.cells import Arrangements
from jaxcvx.errors import invalid
from jaxcvx.parallel.mesh import mesh_axes
from jaxcvx.parallel.padding import check_zero_rows, padded_loss
from jaxcvx.problems.base import make_problem
from jaxcvx.problems.losses import Loss
from jaxcvx.problems.relu import Problem


def initialize(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> tuple[int, int]:
    """Join the other processes; call it before anything else of jax.

    On TPU pods and under SLURM or Open MPI everything is found in the environment. Elsewhere say where process 0
    listens, how many processes there are, and which one this is.

    Args:
      coordinator: "address:port" of process 0.
      num_processes: how many there are.
      process_id: 0 to num_processes - 1.

    Returns:
      ``(process_id, num_processes)``.

    Raises:
      InvalidInputError: only some of the three are given, or process_id is out of range.
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
    """The problem of all processes' samples together, of which each passes its own. All processes must call it.

    No process ever holds all rows: masks are computed on the devices that hold the rows. Processes with fewer rows
    than others get zero rows, which change nothing (see :func:`jaxcvx.parallel.shard_problem`). Solve under jit, and
    read results with :func:`jaxcvx.parallel.gather`.

    Args:
      X: (m, d) this process's inputs, or as the features want them; m may differ between processes.
      Y: (m, c) or (m,) its targets; one-hot rows for the softmax loss, as classes can't be counted locally.
      beta: the same on all processes.
      mesh: over the devices of all processes, with axes of type Auto; the samples' axis must run over processes.
      gates: (P, p) directions, the same on all processes, one for each cell; P a multiple of the devices on the
        cells' axis. None for no cells.
      loss, features: as in :func:`jaxcvx.make_problem`.
      samples, cells: names of mesh axes, as in ``shard_problem``.

    Raises:
      InvalidInputError: what ``make_problem`` refuses; processes disagree on the number of columns; gates do not fit.
    """
    from jax.experimental import multihost_utils

    samples, cells = mesh_axes(mesh, samples, cells)
    local = make_problem(X, Y, beta, loss=loss, features=features)
    if local.loss.kind == "label" and np.ndim(Y) != 2:
        raise invalid("Y", f"shape {np.shape(Y)}", "one-hot rows (m, c): classes can't be counted locally")
    shapes = np.asarray([local.num_samples, *local.X.shape[1:], local.num_outputs])
    everywhere = np.asarray(multihost_utils.process_allgather(shapes)).reshape(-1, len(shapes))
    if (everywhere[:, 1:] != everywhere[0, 1:]).any():
        raise invalid("X", f"columns and outputs {everywhere[:, 1:].tolist()} by process", "the same on all")
    shares = mesh.shape[samples] // jax.process_count()
    if shares * jax.process_count() != mesh.shape[samples]:
        raise invalid("mesh", f"{mesh.shape[samples]} devices along samples", "a multiple of the number of processes")
    rows = -(-int(everywhere[:, 0].max()) // shares) * shares
    kept_loss = local.loss
    if (everywhere[:, 0] != rows).any():
        kept_loss = padded_loss(local.loss)
        check_zero_rows(local, kept_loss)

    def spread(array: Any) -> jax.Array:
        host = np.asarray(array)
        host = np.concatenate([host, np.zeros((rows - len(host), *host.shape[1:]), host.dtype)])
        return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec(samples)), host)

    whole_X, whole_Y = spread(local.X), spread(local.Y)
    whole = Problem(whole_X, whole_Y, _everywhere(mesh, local.beta), None, kept_loss, local.features)
    return whole if gates is None else whole.replace(arrangements=_cells(whole, mesh, gates, samples, cells))


def _everywhere(mesh: Mesh, array: Any, *axes: str | None) -> jax.Array:
    """A global array from data that all processes hold in whole."""
    host = np.asarray(array)
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _cells(problem: Problem, mesh: Mesh, gates: Any, samples: str, cells: str | None) -> Arrangements:
    host = np.asarray(gates)
    width = jax.eval_shape(lambda X: problem.features.matrix(X), problem.X).shape[1]
    if host.ndim != 2 or host.shape[1] != width or not len(host) or not np.isfinite(host).all():
        raise invalid("gates", f"shape {host.shape}", f"finite numbers of shape (P, {width})")
    if cells is not None and len(host) % mesh.shape[cells]:
        raise invalid("gates", f"{len(host)} cells", f"a multiple of the {mesh.shape[cells]} devices along cells")
    placed = _everywhere(mesh, host.astype(problem.dtype), cells)
    sharding = NamedSharding(mesh, PartitionSpec(cells, samples))
    masks = jax.jit(lambda X, G: G @ problem.features.matrix(X).T >= 0, out_shardings=sharding)(problem.X, placed)
    return Arrangements(jnp.asarray(masks), placed)
