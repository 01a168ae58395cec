"""Problems over several devices and several processes: placement only, the solvers' code stays the same."""

from jaxcvx.parallel.mesh import gather, make_mesh, shard_problem
from jaxcvx.parallel.multihost import initialize, problem_from_local_rows

__all__ = ["gather", "initialize", "make_mesh", "problem_from_local_rows", "shard_problem"]
