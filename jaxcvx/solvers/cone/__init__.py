"""Solvers of the cone-constrained ReLU program over cells."""
