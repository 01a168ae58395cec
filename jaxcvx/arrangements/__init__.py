"""Hyperplane arrangement cells: enumerated, sampled, read off a network, merged."""
