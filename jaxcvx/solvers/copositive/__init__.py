"""Solvers of the doubly non-negative relaxation of the copositive program."""

from jaxcvx.solvers.copositive.program import Blocks as Blocks  # earlier pickles name it here
