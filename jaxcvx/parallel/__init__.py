"""Problems spread over several devices and processes, and training on data larger than memory."""

from jaxcvx.parallel.mesh import gather, make_mesh, shard_problem
from jaxcvx.parallel.multihost import initialize, problem_from_local_rows
from jaxcvx.parallel.streaming import solve_streamed

__all__ = ["gather", "initialize", "make_mesh", "problem_from_local_rows", "shard_problem", "solve_streamed"]
