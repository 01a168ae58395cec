"""Solvers of the gated ReLU program: group lasso over cells, cone constraints dropped."""
