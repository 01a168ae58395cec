"""Cells of hyperplane arrangements: their enumeration, sampling and facets, and the cells of a network's neurons."""
