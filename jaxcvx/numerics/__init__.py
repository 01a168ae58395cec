"""Numerical tools that know nothing of networks: precision, rounding, safe formulas, pytrees, validation."""
