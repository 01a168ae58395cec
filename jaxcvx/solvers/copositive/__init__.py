"""Solvers of the doubly non-negative relaxation of the copositive program."""
