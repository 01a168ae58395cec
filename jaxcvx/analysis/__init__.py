"""Analyses of problems, solutions and trajectories. They use solvers only through the solver protocol."""
