"""Solvers of the dual over all neurons: columns, cuts and Frank-Wolfe atoms."""
