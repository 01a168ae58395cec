"""Solvers that need gradients alone, for any smooth problem."""
