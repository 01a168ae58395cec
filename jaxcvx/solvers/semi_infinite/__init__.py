"""Solvers of the dual semi-infinite program: column generation, cutting planes and Frank-Wolfe."""
