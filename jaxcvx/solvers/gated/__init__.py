"""Solvers of the gated ReLU program: a penalty on each cell's block of weights, without the cone constraints."""
