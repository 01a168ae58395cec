"""Penalties on blocks of weights: value, dual norm and proximal operator of each."""
