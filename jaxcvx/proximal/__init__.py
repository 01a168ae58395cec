"""Proximal operators and projections."""
