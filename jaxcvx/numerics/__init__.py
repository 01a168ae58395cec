"""Knows jax and the errors, nothing else of the library: precision, rounding, safe formulas, trees, validation."""
